"""Upright pixels from stored ones, by the EXIF orientation 1..8."""

import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]


def oriented(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """(H, W, 3) upright from (h, w, 3) as stored."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def oriented_size(stored_wh: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Size of the upright image."""
    return (stored_wh[1], stored_wh[0]) if orientation >= 5 else stored_wh


def stored_window(window_xyxy: Box, size_wh: tuple[int, int], orientation: int) -> Box:
    """Where a window of the upright image of ``size_wh`` is stored."""
    x1, y1, x2, y2 = window_xyxy
    width, height = size_wh
    if orientation in (2, 3, 6, 7):
        x1, x2 = width - x2, width - x1
    if orientation in (3, 4, 7, 8):
        y1, y2 = height - y2, height - y1
    return (y1, x1, y2, x2) if orientation >= 5 else (x1, y1, x2, y2)
