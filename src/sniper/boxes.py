"""Box arithmetic on NumPy arrays.

Boxes are half-open ``xyxy``: ``width = x2 - x1``, and pixel ``i`` covers ``[i, i + 1)``. Shapes: N and M
boxes are ``(N, 4)`` and ``(M, 4)``; results keep the floating type of the input.
"""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]


def xywh_to_xyxy(boxes_xywh: FloatArray) -> FloatArray:
    """(N, 4) corner and size to two corners."""
    boxes = np.array(boxes_xywh, copy=True)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def xyxy_to_xywh(boxes_xyxy: FloatArray) -> FloatArray:
    """(N, 4) two corners to corner and size."""
    boxes = np.array(boxes_xyxy, copy=True)
    boxes[:, 2:] -= boxes[:, :2]
    return boxes


def area(boxes_xyxy: FloatArray) -> FloatArray:
    """(N,) areas in square pixels; inverted boxes count as empty."""
    size = np.maximum(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0)
    return size[:, 0] * size[:, 1]


def sqrt_area(boxes_xyxy: FloatArray) -> FloatArray:
    """(N,) square roots of the areas, the size that valid ranges are given in."""
    return np.sqrt(area(boxes_xyxy))


def clip(boxes_xyxy: FloatArray, width: float, height: float) -> FloatArray:
    """Boxes limited to ``[0, width] x [0, height]``."""
    limit = np.asarray([width, height, width, height], dtype=boxes_xyxy.dtype)
    return np.asarray(np.clip(boxes_xyxy, 0, limit))


def intersection(boxes_xyxy: FloatArray, others_xyxy: FloatArray) -> FloatArray:
    """(N, M) areas of the pairwise intersections."""
    low = np.maximum(boxes_xyxy[:, None, :2], others_xyxy[None, :, :2])
    high = np.minimum(boxes_xyxy[:, None, 2:], others_xyxy[None, :, 2:])
    size = np.maximum(high - low, 0)
    return np.asarray(size[..., 0] * size[..., 1])


def iou(boxes_xyxy: FloatArray, others_xyxy: FloatArray) -> FloatArray:
    """(N, M) intersection over union; 0 where both boxes are empty."""
    shared = intersection(boxes_xyxy, others_xyxy)
    union = area(boxes_xyxy)[:, None] + area(others_xyxy)[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def covered_share(boxes_xyxy: FloatArray, windows_xyxy: FloatArray) -> FloatArray:
    """(N, M) share of each box's area that lies in each window; 0 for an empty box."""
    shared = intersection(boxes_xyxy, windows_xyxy)
    own = area(boxes_xyxy)[:, None]
    return np.divide(shared, own, out=np.zeros_like(shared), where=own > 0)


def sides_at_least(boxes_xyxy: FloatArray, min_px: float) -> NDArray[np.bool_]:
    """(N,) bool: boxes whose width and height are both ``min_px`` or more."""
    return np.asarray(((boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]) >= min_px).all(axis=1))
