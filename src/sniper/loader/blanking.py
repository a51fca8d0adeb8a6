"""Ignored objects painted over, for trainers that know no ignored objects: what is not seen is not background."""

import numpy as np
from numpy.typing import NDArray

from sniper.pixels.resample import BORDER_RGB


def blanked(
    pixels: NDArray[np.uint8], ignored_xyxy: NDArray[np.floating], valid_xyxy: NDArray[np.floating]
) -> NDArray[np.uint8]:
    """(3, H, W) RGB ``pixels`` with the mean colour in ignored boxes, but for the pixels of valid ones.

    Boxes are (M, 4) and (N, 4) xyxy in px of the chip; a pixel that a box touches belongs to it.
    """
    if not len(ignored_xyxy):
        return pixels
    painted = covered(ignored_xyxy, pixels.shape[1:]) & ~covered(valid_xyxy, pixels.shape[1:])
    return np.where(painted, np.asarray(BORDER_RGB, np.uint8)[:, None, None], pixels)


def covered(boxes_xyxy: NDArray[np.floating], size_hw: tuple[int, ...]) -> NDArray[np.bool_]:
    """(H, W) pixels that at least one of (N, 4) boxes touches."""
    height, width = size_hw
    low = np.clip(np.floor(boxes_xyxy[:, :2]), 0, (width, height)).astype(np.int64)
    high = np.clip(np.ceil(boxes_xyxy[:, 2:]), low, (width, height)).astype(np.int64)
    # Each box adds one at its corner and takes it away past its sides: sums over rows and columns count the boxes.
    counts = np.zeros((height + 1, width + 1), np.int32)
    for x, y, sign in ((low[:, 0], low[:, 1], 1), (high[:, 0], high[:, 1], 1),
                       (low[:, 0], high[:, 1], -1), (high[:, 0], low[:, 1], -1)):  # fmt: skip
        np.add.at(counts, (y, x), sign)
    return np.asarray(counts.cumsum(axis=0).cumsum(axis=1)[:height, :width] > 0)
