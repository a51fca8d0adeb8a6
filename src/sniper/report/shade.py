"""Darkened parts of a drawing: what no window covers."""

import cv2
import numpy as np
from numpy.typing import NDArray

from sniper.report.palette import Pixels


def covered(windows_xyxy: NDArray[np.floating], height: int, width: int) -> NDArray[np.bool_]:
    """(H, W) pixels that some window shows."""
    corners = np.clip(np.round(windows_xyxy), 0, [width, height, width, height]).astype(np.int32)
    # Counting openings and closings of windows along both axes marks all of them at once.
    counts = np.zeros((height + 1, width + 1), dtype=np.int32)
    for x, y, sign in ((0, 1, 1), (2, 3, 1), (0, 3, -1), (2, 1, -1)):
        np.add.at(counts, (corners[:, y], corners[:, x]), sign)
    return np.asarray(counts.cumsum(axis=0).cumsum(axis=1)[:height, :width] > 0)


def dim(pixels: Pixels, where: NDArray[np.bool_], brightness: float, colour: float) -> None:
    """Darken, and take away colour from, a part of the image."""
    grey = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    dimmed = cv2.addWeighted(pixels, brightness * colour, grey, brightness * (1 - colour), 0)
    cv2.copyTo(dimmed, where.view(np.uint8), pixels)
