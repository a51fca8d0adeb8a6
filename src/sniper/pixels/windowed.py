"""Cutting out of images that are not in memory: only what a window shows is read.

Bit for bit what ``cut`` makes of the whole image. ``docs/method.md``, "Huge images".
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sniper.compiled import read_only
from sniper.pixels.footprint import Footprint, footprint
from sniper.pixels.resample import Pixels, averaged, cut_region, pad_to, resampled

BAND_PX = 8 * 1024 * 1024  # source pixels in memory at once where a window shows more than that


class PixelSource(Protocol):
    """An image whose pixels come when they are asked for."""

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height of the whole image, px."""
        ...

    def read(self, x1: int, y1: int, x2: int, y2: int) -> Pixels:
        """(y2 - y1, x2 - x1, 3) uint8 RGB; ``0 <= x1 < x2 <= width``, ``0 <= y1 < y2 <= height``.

        Raises:
            DataError: they cannot be read.
        """
        ...

    def close(self) -> None:
        """Nothing will be read any more."""
        ...


def size_of(pixels: Pixels | PixelSource) -> tuple[int, int]:
    """Width and height of an image, px."""
    return (pixels.shape[1], pixels.shape[0]) if isinstance(pixels, np.ndarray) else pixels.size_wh


def close(pixels: Pixels | PixelSource) -> None:
    """Close the file that pixels come from, if they do."""
    if not isinstance(pixels, np.ndarray):
        pixels.close()


def cut_from(
    pixels: Pixels | PixelSource,
    origin_xy: tuple[int, int],
    scale: float,
    size_wh: tuple[int, int],
    valid_wh: tuple[int, int],
) -> NDArray[np.uint8]:
    """One padded input, (H, W, 3) uint8, of an image in memory or not; arguments as for ``cut``.

    Raises:
        DataError: the source cannot be read there.
    """
    return pad_to(cut_region_from(pixels, origin_xy, scale, valid_wh), size_wh)


def cut_region_from(
    pixels: Pixels | PixelSource,
    origin_xy: tuple[int, int],
    scale: float,
    valid_wh: tuple[int, int],
    *,
    reduction: int = 1,
) -> NDArray[np.uint8]:
    """The valid region of a chip, (h, w, 3) uint8, of an image in memory or not; arguments as for ``cut_region``.

    ``reduction`` tells of pixels in memory; a source is of full size. Where many of its pixels make one of the chip,
    they are read and averaged band by band.

    Raises:
        DataError: the source cannot be read there.
    """
    if isinstance(pixels, np.ndarray):
        return cut_region(pixels, origin_xy, scale, valid_wh, reduction=reduction)
    shown = footprint(pixels.size_wh, origin_xy, scale, valid_wh)
    x, y = shown.x, shown.y
    if shown.block == 1:
        return resampled(pixels.read(x.low, y.low, x.high, y.high), shown, valid_wh, (x.low, y.low))
    return resampled(_means(pixels, shown), shown.of_blocks(), valid_wh)


def small_copy(pixels: Pixels | PixelSource, longest_px: int) -> tuple[Pixels, float]:
    """An image as it is, or, if it is not in memory, one of at most that long a side; and its px per original px."""
    if isinstance(pixels, np.ndarray):
        return pixels, 1.0
    width, height = pixels.size_wh
    scale = min(1.0, longest_px / max(width, height))
    size_wh = max(1, round(width * scale)), max(1, round(height * scale))
    return cut_from(pixels, (0, 0), scale, size_wh, size_wh), scale


def _means(pixels: PixelSource, shown: Footprint) -> Pixels:
    """(rows, columns, 3) means of the blocks of a footprint."""
    (x, y), (width, height), block = (shown.x, shown.y), pixels.size_wh, shown.block
    means = np.empty((y.high - y.low, x.high - x.low, 3), np.uint8)
    left, right = x.low * block, min(x.high * block, width)
    rows = max(1, BAND_PX // ((right - left) * block))
    for first in range(y.low, y.high, rows):
        last = min(first + rows, y.high)
        band = pixels.read(left, first * block, right, min(last * block, height))
        means[first - y.low : last - y.low] = averaged(read_only(band), block, 0, x.high - x.low, 0, last - first)
    return means
