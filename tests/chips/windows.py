"""What the original does with boxes and windows, in NumPy: references that tests compare with."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Assignment(NamedTuple):
    """The best window of each of N boxes."""

    window: NDArray[np.int64]  # (N,) index of the window with the largest share, the lowest of equals; -1: none
    share: NDArray[np.float64]  # (N,) share of the box's area inside it
    part_wh: NDArray[np.float64]  # (N, 2) size of the part inside it


def parts_inside(boxes_xyxy: NDArray[np.floating], windows_xyxy: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N, K, 2) sizes of what each of K windows shows of each of N boxes."""
    low = np.maximum(boxes_xyxy[:, None, :2], windows_xyxy[None, :, :2])
    high = np.minimum(boxes_xyxy[:, None, 2:], windows_xyxy[None, :, 2:])
    return np.maximum(high - low, 0).astype(np.float64)


def covered_share(boxes_xyxy: NDArray[np.floating], windows_xyxy: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N, K) share of each box's area that lies in each window; 0 for an empty box."""
    own = np.maximum(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0).prod(axis=1)[:, None]
    shared = parts_inside(boxes_xyxy, windows_xyxy).prod(axis=2)
    return np.divide(shared, own, out=np.zeros_like(shared), where=own > 0)


def assign(boxes_xyxy: NDArray[np.floating], windows_xyxy: NDArray[np.floating]) -> Assignment:
    """The window that shows the largest share of each of (N, 4) boxes, among (K, 4) windows."""
    nothing = np.zeros((len(boxes_xyxy), 1))
    share = np.concatenate([nothing, covered_share(boxes_xyxy, windows_xyxy)], axis=1)
    parts = np.concatenate([nothing[:, None].repeat(2, axis=2), parts_inside(boxes_xyxy, windows_xyxy)], axis=1)
    best = share.argmax(axis=1)
    rows = np.arange(len(best))
    return Assignment(best - 1, share[rows, best], parts[rows, best])


def enough_left(
    part_wh: NDArray[np.floating], *, min_part_px: float = 1.0, range_px: tuple[float, float] = (0.0, math.inf)
) -> NDArray[np.bool_]:
    """(N,) whether the visible part of a box still counts as the box: ``low <= sqrt(area) < high``, no thin side."""
    area = part_wh[:, 0] * part_wh[:, 1]
    in_range = (range_px[0] ** 2 <= area) & (area < range_px[1] ** 2)
    return np.asarray(in_range & (part_wh.min(axis=1, initial=math.inf) >= min_part_px))
