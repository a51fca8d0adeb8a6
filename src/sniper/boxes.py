"""Box arithmetic on NumPy arrays.

Boxes are half-open ``xyxy``: ``width = x2 - x1``, and pixel ``i`` covers ``[i, i + 1)``. Shapes: N and M
boxes are ``(N, 4)`` and ``(M, 4)``; results keep the floating type of the input.
"""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]


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
