"""Cutting a chip out of a decoded image, to a fraction of a pixel.

The centre of chip pixel ``(u, v)`` shows the original position ``((x0 + u + 0.5) / s, (y0 + v + 0.5) / s)``
for a chip with origin ``(x0, y0)`` in the image zoomed by ``s``, so that ``box * s - origin`` frames in the chip
exactly what ``box`` frames in the original. See ``docs/method.md``, "Pixels of a chip".
"""

import math
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from sniper.chips.compiled import compiled

Pixels = NDArray[np.uint8]
BORDER_RGB = (124, 116, 104)  # the mean colour of ImageNet: near zero after every usual normalisation


def cut(
    pixels: Pixels,
    origin_xy: tuple[int, int],
    scale: float,
    size_wh: tuple[int, int],
    content_wh: tuple[int, int],
    *,
    reduction: int = 1,
    border: tuple[int, int, int] = BORDER_RGB,
) -> Pixels:
    """One chip, (H, W, 3) uint8.

    Zooming in, and out by less than two, interpolates bilinearly. Zooming out further first averages blocks of
    k x k pixels, k the largest whole number that leaves a factor in (0.5, 1] to interpolate. Beyond the edge
    of the image its border pixels repeat (no dark fringe); beyond the content the canvas is ``border``.
    The cost is that of the chip, not of the image.

    Args:
        pixels: (h, w, 3) uint8, the image decoded at 1/``reduction``: pixel i covers original
            ``[i * reduction, (i + 1) * reduction)``.
        origin_xy: top-left corner of the chip in the zoomed image, network px.
        scale: network px per original px.
        size_wh: canvas, network px.
        content_wh: part of the canvas, from its top-left corner, that shows the picture.
        reduction: how much ``pixels`` are smaller than the original.
        border: colour of the canvas outside the content, in the channel order of ``pixels``.
    """
    content = cut_content(pixels, origin_xy, scale, content_wh, reduction=reduction)
    height, width = content.shape[:2]
    if size_wh == (width, height):
        return content
    canvas = np.empty((size_wh[1], size_wh[0], 3), dtype=np.uint8)
    canvas[:height, :width] = content
    canvas[:height, width:] = border
    canvas[height:] = border
    return canvas


def cut_content(
    pixels: Pixels, origin_xy: tuple[int, int], scale: float, content_wh: tuple[int, int], *, reduction: int = 1
) -> Pixels:
    """The picture of a chip without the padding around it, (h, w, 3) uint8; arguments as for ``cut``."""
    pixels = np.ascontiguousarray(pixels)
    step = 1 / (scale * reduction)  # px of ``pixels`` per chip px
    block = max(1, math.floor(step + 1e-9))
    step /= block
    height, width = pixels.shape[:2]
    x = _span(origin_xy[0], content_wh[0], step, -(-width // block))
    y = _span(origin_xy[1], content_wh[1], step, -(-height // block))
    if block > 1:
        pixels = _averaged(pixels, block, x.low, x.high, y.low, y.high)
        x, y = x.shifted(), y.shifted()
    if step == 1 and x.shows_whole(content_wh[0]) and y.shows_whole(content_wh[1]):
        content = pixels[y.low : y.high, x.low : x.high].copy()
    else:
        content = np.empty((content_wh[1], content_wh[0], 3), dtype=np.uint8)
        _interpolate(pixels, x.low, x.high, x.first, y.first, step, content)
    return content


def planes(content: Pixels, size_wh: tuple[int, int], border: tuple[int, int, int] = BORDER_RGB) -> Pixels:
    """(3, H, W) canvas with the (h, w, 3) picture in its top-left corner, ``border`` around it."""
    canvas = np.empty((3, size_wh[1], size_wh[0]), dtype=np.uint8)
    _separate(np.ascontiguousarray(content), canvas)
    height, width = content.shape[:2]
    for plane, colour in zip(canvas, border, strict=True):
        plane[:height, width:] = colour
        plane[height:] = colour
    return canvas


class _Span(NamedTuple):
    """What one axis of a chip needs of its source."""

    low: int  # first and
    high: int  # past-the-end source pixel
    first: float  # position of the first chip pixel's centre, counted from the centre of source pixel 0

    def shifted(self) -> Self:
        """The same in a source that begins at ``low``."""
        return self._replace(low=0, high=self.high - self.low, first=self.first - self.low)

    def shows_whole(self, length: int) -> bool:
        """Whether, at one source pixel per chip pixel, ``length`` chip pixels are source pixels."""
        return self.first == self.low and self.high - self.low == length


def _span(origin: int, length: int, step: float, available: int) -> _Span:
    """The span of ``length`` chip pixels, ``step`` source pixels each, of ``available`` source pixels."""
    first = (origin + 0.5) * step - 0.5
    low = min(max(math.floor(first), 0), available - 1)
    high = min(max(math.ceil(first + (length - 1) * step), low), available - 1) + 1
    return _Span(low, high, first)


@compiled
def _separate(content: Pixels, canvas: Pixels) -> None:
    """Copy the channels of (h, w, 3) into the top-left corner of (3, H, W)."""
    width = content.shape[1]
    for v in range(content.shape[0]):
        line = content[v].reshape(-1)
        for channel in range(3):
            out = canvas[channel, v, :width]
            for u in range(np.uint64(width)):  # type: ignore[call-overload]
                out[u] = line[np.uint64(3) * u + np.uint64(channel)]


@compiled
def _averaged(pixels: Pixels, block: int, x_low: int, x_high: int, y_low: int, y_high: int) -> Pixels:
    """(rows, columns, 3) means of ``block`` x ``block`` pixels; columns ``x_low..x_high``, rows ``y_low..y_high``.

    Blocks that reach over the edge of the image are completed with its border pixels. Unlike OpenCV's
    ``INTER_AREA`` this needs no padded copy of the image for it, and is as fast for odd sizes as for even.
    """
    height, width = pixels.shape[0], pixels.shape[1]
    lines = pixels.reshape(height, 3 * width)
    averaged = np.empty((y_high - y_low, x_high - x_low, 3), np.uint8)
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
            averaged[j, i, 0] = np.uint8(red * share + np.float32(0.5))
            averaged[j, i, 1] = np.uint8(green * share + np.float32(0.5))
            averaged[j, i, 2] = np.uint8(blue * share + np.float32(0.5))
    return averaged


@compiled
def _blend_columns(
    line: Pixels,
    left: NDArray[np.uint64],
    right: NDArray[np.uint64],
    share: NDArray[np.float32],
    floats: NDArray[np.float32],
    row: NDArray[np.float32],
) -> None:
    # Unsigned indices spare the test for negative ones; one conversion of the line spares six per pixel.
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    for j in range(len(line)):
        floats[j] = line[j]
    for u in range(np.uint64(len(left))):  # type: ignore[call-overload]
        a, b, t, o = left[u], right[u], share[u], three * u
        row[o] = floats[a] + (floats[b] - floats[a]) * t
        row[o + one] = floats[a + one] + (floats[b + one] - floats[a + one]) * t
        row[o + two] = floats[a + two] + (floats[b + two] - floats[a + two]) * t


@compiled
def _blend_rows(top: NDArray[np.float32], bottom: NDArray[np.float32], share: np.float32, out: Pixels) -> None:
    for j in range(len(out)):
        out[j] = np.uint8(np.int32(top[j] + (bottom[j] - top[j]) * share + np.float32(0.5)))


@compiled
def _interpolate(
    source: Pixels, x_low: int, x_high: int, x_first: float, y_first: float, step: float, out: Pixels
) -> None:
    """Bilinear samples of ``source`` at ``(x_first + u * step, y_first + v * step)``, its border repeating outside.

    OpenCV's ``resize`` cannot start between two pixels, and its ``warpAffine`` takes four times as long.
    """
    last_row = source.shape[0] - 1
    height, width = out.shape[0], out.shape[1]
    lines, out_lines = source.reshape(last_row + 1, 3 * source.shape[1]), out.reshape(height, 3 * width)
    left, right = np.empty(width, np.uint64), np.empty(width, np.uint64)
    share = np.empty(width, np.float32)
    for u in range(width):
        at = x_first + u * step
        below = int(np.floor(at))
        share[u] = at - below
        left[u] = 3 * (min(max(below, x_low), x_high - 1) - x_low)
        right[u] = 3 * (min(max(below + 1, x_low), x_high - 1) - x_low)
    floats = np.empty(3 * (x_high - x_low), np.float32)
    rows = np.empty((2, 3 * width), np.float32)  # two source rows, blended along x
    held = np.full(2, -1)  # which ones
    for v in range(height):
        at = y_first + v * step
        below = int(np.floor(at))
        top, bottom = min(max(below, 0), last_row), min(max(below + 1, 0), last_row)
        for wanted in (top, bottom):
            if held[0] != wanted and held[1] != wanted:
                slot = 0 if held[0] != top and held[0] != bottom else 1
                held[slot] = wanted
                _blend_columns(lines[wanted, 3 * x_low : 3 * x_high], left, right, share, floats, rows[slot])
        first, second = (0 if held[0] == top else 1), (0 if held[0] == bottom else 1)
        _blend_rows(rows[first], rows[second], np.float32(at - below), out_lines[v])
