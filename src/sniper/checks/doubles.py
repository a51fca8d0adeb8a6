"""Objects that are drawn twice: two boxes of one image that lie on each other."""

import numpy as np
from numpy.typing import NDArray

from sniper.compiled import compiled, read_only
from sniper.data.table import AnnotationTable


def double_boxes(table: AnnotationTable, min_iou: float) -> NDArray[np.int64]:
    """(N,) for each object the row of the first earlier one of its image with at least ``min_iou``; -1: none.

    Crowd regions are left out: many objects lie in one.
    """
    return _doubles(read_only(table.offsets), read_only(table.boxes_xyxy), read_only(table.regions), min_iou)


@compiled
def _doubles(
    offsets: NDArray[np.int64], boxes: NDArray[np.float32], left_out: NDArray[np.bool_], min_iou: float
) -> NDArray[np.int64]:
    twins = np.full(len(boxes), -1, np.int64)
    for image in range(len(offsets) - 1):
        for row in range(offsets[image], offsets[image + 1]):
            if left_out[row]:
                continue
            x1, y1, x2, y2 = boxes[row]
            own = (x2 - x1) * (y2 - y1)
            for other in range(offsets[image], row):
                if left_out[other]:
                    continue
                width = min(x2, boxes[other, 2]) - max(x1, boxes[other, 0])
                height = min(y2, boxes[other, 3]) - max(y1, boxes[other, 1])
                if width <= 0 or height <= 0:
                    continue
                shared = width * height
                its = (boxes[other, 2] - boxes[other, 0]) * (boxes[other, 3] - boxes[other, 1])
                if shared >= min_iou * (own + its - shared):
                    twins[row] = other
                    break
    return twins
