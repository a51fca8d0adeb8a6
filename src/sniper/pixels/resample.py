"""Cutting a chip out of a decoded image, to a fraction of a pixel.

The centre of chip pixel ``(u, v)`` shows the original position ``((x0 + u + 0.5) / s, (y0 + v + 0.5) / s)``
for a chip with origin ``(x0, y0)`` in the image scaled by ``s``, so that ``box * s - origin`` frames in the chip
exactly what ``box`` frames in the original. See ``docs/method.md``, "The loader".
"""

import numpy as np
from numpy.typing import NDArray

from sniper.compiled import compiled, read_only
from sniper.pixels.footprint import Footprint, footprint

Pixels = NDArray[np.uint8]
BORDER_RGB = (124, 116, 104)  # the mean colour of ImageNet: near zero after every usual normalisation


def cut(
    pixels: Pixels,
    origin_xy: tuple[int, int],
    scale: float,
    size_wh: tuple[int, int],
    valid_wh: tuple[int, int],
    *,
    reduction: int = 1,
    border: tuple[int, int, int] = BORDER_RGB,
) -> Pixels:
    """One chip, (H, W, 3) uint8.

    Each chip pixel is the mean of the original over its own footprint, or over one original pixel where that
    is larger: enlarging is bilinear interpolation, reducing skips nothing. At small scales, blocks of
    k x k pixels are averaged first, k the largest whole number that leaves a scale in (0.5, 1]. Beyond the edge
    of the image its border pixels repeat (no dark fringe); beyond the valid region the padded input is ``border``.
    The cost is that of the chip, not of the image.

    Args:
        pixels: (h, w, 3) uint8, the image decoded at 1/``reduction``: pixel i covers original
            ``[i * reduction, (i + 1) * reduction)``.
        origin_xy: top-left corner of the chip in the scaled image, network px.
        scale: network px per original px.
        size_wh: padded input, network px.
        valid_wh: part of the padded input, from its top-left corner, that shows the image.
        reduction: how much ``pixels`` are smaller than the original.
        border: colour of the padded input outside the valid region, in the channel order of ``pixels``.
    """
    return pad_to(cut_region(pixels, origin_xy, scale, valid_wh, reduction=reduction), size_wh, border)


def pad_to(region: Pixels, size_wh: tuple[int, int], border: tuple[int, int, int] = BORDER_RGB) -> Pixels:
    """(H, W, 3) padded input with the (h, w, 3) valid region in its top-left corner, ``border`` around it."""
    height, width = region.shape[:2]
    if size_wh == (width, height):
        return region
    padded = np.empty((size_wh[1], size_wh[0], 3), dtype=np.uint8)
    padded[:height, :width] = region
    padded[:height, width:] = border
    padded[height:] = border
    return padded


def cut_region(
    pixels: Pixels, origin_xy: tuple[int, int], scale: float, valid_wh: tuple[int, int], *, reduction: int = 1
) -> Pixels:
    """The valid region of a chip without the padding around it, (h, w, 3) uint8; arguments as for ``cut``."""
    pixels = read_only(pixels)
    shown = footprint((pixels.shape[1], pixels.shape[0]), origin_xy, scale * reduction, valid_wh)
    if shown.block == 1:
        return resampled(pixels, shown, valid_wh)
    x, y = shown.x, shown.y
    return resampled(averaged(pixels, shown.block, x.low, x.high, y.low, y.high), shown.of_blocks(), valid_wh)


def planes(region: Pixels, size_wh: tuple[int, int], border: tuple[int, int, int] = BORDER_RGB) -> Pixels:
    """(3, H, W) padded input with the (h, w, 3) valid region in its top-left corner, ``border`` around it."""
    padded = np.empty((3, size_wh[1], size_wh[0]), dtype=np.uint8)
    _separate(np.ascontiguousarray(region), padded)
    height, width = region.shape[:2]
    for plane, colour in zip(padded, border, strict=True):
        plane[:height, width:] = colour
        plane[height:] = colour
    return padded


def resampled(
    pixels: Pixels, shown: Footprint, valid_wh: tuple[int, int], corner_xy: tuple[int, int] = (0, 0)
) -> Pixels:
    """The valid region of a chip from contiguous (h, w, 3) ``pixels``, blocks averaged, that begin at ``corner_xy``.

    What lies outside the footprint is not read, so a part of an image gives, bit for bit, what all of it gives.
    """
    x, y, (left, top) = shown.x, shown.y, corner_xy
    if shown.step == 1 and x.shows_whole(valid_wh[0]) and y.shows_whole(valid_wh[1]):
        return pixels[y.low - top : y.high - top, x.low - left : x.high - left].copy()
    region = np.empty((valid_wh[1], valid_wh[0], 3), dtype=np.uint8)
    _resample(read_only(pixels), (left, top), (x.low, x.high, x.first), (y.low, y.high, y.first), shown.step, region)
    return region


@compiled
def _separate(region: Pixels, padded: Pixels) -> None:
    """Copy the channels of (h, w, 3) into the top-left corner of (3, H, W)."""
    width = region.shape[1]
    for v in range(region.shape[0]):
        line = region[v].reshape(-1)
        for channel in range(3):
            out = padded[channel, v, :width]
            for u in range(np.uint64(width)):  # type: ignore[call-overload]
                out[u] = line[np.uint64(3) * u + np.uint64(channel)]


@compiled
def averaged(pixels: Pixels, block: int, x_low: int, x_high: int, y_low: int, y_high: int) -> Pixels:
    """(rows, columns, 3) means of ``block`` x ``block`` pixels; columns ``x_low..x_high``, rows ``y_low..y_high``.

    Blocks that reach over the edge of the image are completed with its border pixels. Unlike OpenCV's
    ``INTER_AREA`` this needs no padded copy of the image for it, and is as fast for odd sizes as for even.
    """
    height, width = pixels.shape[0], pixels.shape[1]
    lines = pixels.reshape(height, 3 * width)
    means = np.empty((y_high - y_low, x_high - x_low, 3), np.uint8)
    start, stop = x_low * block, min(x_high * block, width)
    sums = np.empty(3 * block * (x_high - x_low), np.uint32)
    inside = 3 * (stop - start)
    share = np.float32(1 / (block * block))
    step, one, two, three = np.uint64(3 * block), np.uint64(1), np.uint64(2), np.uint64(3)
    for j in range(y_high - y_low):
        sums[:] = 0
        for row in range((y_low + j) * block, (y_low + j + 1) * block):
            line = lines[min(row, height - 1), 3 * start : 3 * stop]
            for i in range(inside):
                sums[i] += line[i]
        for i in range(inside, len(sums)):
            sums[i] = sums[i - 3]
        for i in range(np.uint64(x_high - x_low)):  # type: ignore[call-overload]
            red, green, blue = np.uint32(0), np.uint32(0), np.uint32(0)
            for at in range(i * step, (i + one) * step, three):
                red += sums[at]
                green += sums[at + one]
                blue += sums[at + two]
            means[j, i, 0] = np.uint8(red * share + np.float32(0.5))
            means[j, i, 1] = np.uint8(green * share + np.float32(0.5))
            means[j, i, 2] = np.uint8(blue * share + np.float32(0.5))
    return means


@compiled
def _taps(
    first: float, step: float, count: int, low: int, high: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], bool]:
    """(count, 3) source pixels under the footprint of each chip pixel, their shares, and whether three are needed.

    Pixels outside [low, high) are the nearest inside.
    """
    pixels, shares = np.empty((count, 3), np.int64), np.zeros((count, 3), np.float32)
    width = max(1.0, step)
    three = False
    for i in range(count):
        begin = first + i * step - width / 2 + 0.5  # where pixel k covers [k, k + 1)
        pixel = int(np.floor(begin))
        end = begin + width - pixel
        shares[i, 0] = (min(end, 1.0) - (begin - pixel)) / width
        shares[i, 1] = (min(end, 2.0) - 1) / width
        if end > 2 + 1e-6:
            shares[i, 2] = (end - 2) / width
            three = True
        for tap in range(3):
            pixels[i, tap] = min(max(pixel + tap, low), high - 1)
    return pixels, shares, three


@compiled
def _blend_columns(
    line: Pixels,
    taps: NDArray[np.uint64],
    shares: NDArray[np.float32],
    three: bool,
    floats: NDArray[np.float32],
    row: NDArray[np.float32],
) -> None:
    # Unsigned indices spare the test for negative ones; one conversion of the line spares many.
    c1, c2, c3 = np.uint64(1), np.uint64(2), np.uint64(3)
    for j in range(len(line)):
        floats[j] = line[j]
    for u in range(np.uint64(len(taps))):  # type: ignore[call-overload]
        a, b, out = taps[u, 0], taps[u, 1], c3 * u
        s, t = shares[u, 0], shares[u, 1]
        row[out] = floats[a] * s + floats[b] * t
        row[out + c1] = floats[a + c1] * s + floats[b + c1] * t
        row[out + c2] = floats[a + c2] * s + floats[b + c2] * t
        if three:
            a, s = taps[u, 2], shares[u, 2]
            row[out] += floats[a] * s
            row[out + c1] += floats[a + c1] * s
            row[out + c2] += floats[a + c2] * s


@compiled
def _blend_two(a: NDArray[np.float32], b: NDArray[np.float32], s: np.float32, t: np.float32, out: Pixels) -> None:
    for j in range(len(out)):
        out[j] = np.uint8(np.int32(a[j] * s + b[j] * t + np.float32(0.5)))


@compiled
def _blend_three(
    a: NDArray[np.float32], b: NDArray[np.float32], c: NDArray[np.float32], shares: NDArray[np.float32], out: Pixels
) -> None:
    s, t, r = shares[0], shares[1], shares[2]
    for j in range(len(out)):
        out[j] = np.uint8(np.int32(a[j] * s + b[j] * t + c[j] * r + np.float32(0.5)))


@compiled
def _resample(
    source: Pixels,
    corner: tuple[int, int],
    x: tuple[int, int, float],
    y: tuple[int, int, float],
    step: float,
    out: Pixels,
) -> None:
    """Fill ``out`` from the spans ``x`` and ``y``, ``step`` <= 2 source pixels per chip pixel.

    ``source`` begins at ``corner`` (x, y) of what the spans are counted in.

    OpenCV's ``resize`` cannot start between two pixels, and its ``warpAffine`` takes four times as long.
    """
    height, width = out.shape[0], out.shape[1]
    lines, out_lines = source.reshape(source.shape[0], 3 * source.shape[1]), out.reshape(height, 3 * width)
    x_low, x_high, x_first = x
    left, top = corner
    columns, column_shares, three = _taps(x_first - x_low, step, width, 0, x_high - x_low)
    offsets = (3 * columns).astype(np.uint64)
    wanted, row_shares, _ = _taps(y[2], step, height, y[0], y[1])
    floats = np.empty(3 * (x_high - x_low), np.float32)
    rows = np.empty((3, 3 * width), np.float32)  # source rows blended along x, each in the slot of its number
    held = np.full(3, -1)
    for v in range(height):
        shares = row_shares[v]
        for tap in range(3):
            row = wanted[v, tap]
            if (tap < 2 or shares[2] > 0) and held[row % 3] != row:
                held[row % 3] = row
                line = lines[row - top, 3 * (x_low - left) : 3 * (x_high - left)]
                _blend_columns(line, offsets, column_shares, three, floats, rows[row % 3])
        a, b, c = rows[wanted[v, 0] % 3], rows[wanted[v, 1] % 3], rows[wanted[v, 2] % 3]
        if shares[2] > 0:
            _blend_three(a, b, c, shares, out_lines[v])
        else:
            _blend_two(a, b, shares[0], shares[1], out_lines[v])
