"""Which window shows most of a box.

Used where boxes are not covered by construction: proposals on their way to hard-negative chips, and boxes
in windows that were not mined for them. Boxes and windows share one frame, half-open ``xyxy``.
See ``docs/method.md``, "Chips".
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.compiled import compiled


class Assignment(NamedTuple):
    """The best window of each box."""

    window: NDArray[np.int32]  # (N,) index of the window with the largest share, the lowest of equals; -1: none
    share: NDArray[np.float64]  # (N,) share of the box's area inside it, 0 to 1
    part_wh: NDArray[np.float64]  # (N, 2) size of the part inside it


@compiled
def best_window(
    x1: float, y1: float, x2: float, y2: float, windows_xyxy: NDArray[np.float64], first: int, last: int
) -> tuple[int, float, float, float]:
    """Among windows ``first <= k < last``: the index with the largest share, the share, width and height of the part.

    The index is -1 if no window shares area with the box. For kernels that walk over images.
    """
    best, share, width, height = -1, 0.0, 0.0, 0.0
    area = (x2 - x1) * (y2 - y1)
    for k in range(first, last):
        w = min(x2, windows_xyxy[k, 2]) - max(x1, windows_xyxy[k, 0])
        h = min(y2, windows_xyxy[k, 3]) - max(y1, windows_xyxy[k, 1])
        if w > 0 and h > 0 and w * h / area > share:
            best, share, width, height = k, w * h / area, w, h
    return best, share, width, height


@compiled
def _assign(
    boxes: NDArray[np.float64], windows: NDArray[np.float64]
) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]:
    n = len(boxes)
    window, share, part = np.empty(n, np.int32), np.empty(n, np.float64), np.empty((n, 2), np.float64)
    for b in range(n):
        x1, y1, x2, y2 = boxes[b]
        window[b], share[b], part[b, 0], part[b, 1] = best_window(x1, y1, x2, y2, windows, 0, len(windows))
    return window, share, part


def assign(boxes_xyxy: NDArray[np.floating], windows_xyxy: NDArray[np.floating]) -> Assignment:
    """The window that shows the largest share of each of (N, 4) boxes, among (K, 4) windows."""
    boxes = np.ascontiguousarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    return Assignment(*_assign(boxes, np.ascontiguousarray(windows_xyxy, dtype=np.float64).reshape(-1, 4)))


def enough_left(
    part_wh: NDArray[np.floating], *, min_part_px: float = 1.0, range_px: tuple[float, float] = (0.0, math.inf)
) -> NDArray[np.bool_]:
    """(N,) whether the visible part of a box still counts as the box.

    Args:
        part_wh: (N, 2) size of the part, original px.
        min_part_px: least side of the part.
        range_px: ``low <= sqrt(area of the part) < high``.
    """
    area = np.asarray(part_wh[:, 0] * part_wh[:, 1], dtype=np.float64)
    in_range = (range_px[0] ** 2 <= area) & (area < range_px[1] ** 2)
    return np.asarray(in_range & (part_wh.min(axis=1, initial=math.inf) >= min_part_px))
