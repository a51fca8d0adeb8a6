"""One box an object, to a person's eye.

Soft-NMS lowers the score of a second box on an object, but keeps it: average precision gains by that, a picture does
not. Here the second box goes where it overlaps a better one of its class as much as a match would, or lies inside it
or around it and is not far from its size. ``docs/method.md``, "Merging levels".
"""

import numpy as np
from numpy.typing import NDArray

from sniper.compiled import compiled, read_only

OVERLAP_IOU = 0.5  # two boxes of a class that overlap so much show one object
NESTED_SHARE = 0.85  # of the smaller box, inside the larger one: nested
NESTED_IOU = 0.25  # nested boxes show one object if they overlap at least so much; below, a part or a neighbour


@compiled
def _distinct(
    starts: NDArray[np.int64],
    order: NDArray[np.int64],
    boxes: NDArray[np.float32],
    labels: NDArray[np.int32],
    overlap_iou: float,
    nested_share: float,
    nested_iou: float,
) -> NDArray[np.bool_]:
    kept = np.zeros(len(boxes), np.bool_)
    picked = np.empty(len(order), np.int64)
    for image in range(len(starts) - 1):
        count = 0
        for place in range(starts[image], starts[image + 1]):
            row = order[place]
            x1, y1 = np.float64(boxes[row, 0]), np.float64(boxes[row, 1])
            x2, y2 = np.float64(boxes[row, 2]), np.float64(boxes[row, 3])
            area = (x2 - x1) * (y2 - y1)
            double = False
            for k in range(count):
                other = picked[k]
                if labels[other] != labels[row]:
                    continue
                w = min(x2, np.float64(boxes[other, 2])) - max(x1, np.float64(boxes[other, 0]))
                h = min(y2, np.float64(boxes[other, 3])) - max(y1, np.float64(boxes[other, 1]))
                if w <= 0 or h <= 0:
                    continue
                own = (np.float64(boxes[other, 2]) - boxes[other, 0]) * (np.float64(boxes[other, 3]) - boxes[other, 1])
                iou = w * h / (area + own - w * h)
                if iou >= overlap_iou or (iou >= nested_iou and w * h >= nested_share * min(area, own)):
                    double = True
                    break
            if not double:
                kept[row] = True
                picked[count] = row
                count += 1
    return kept


def distinct(
    offsets: NDArray[np.int64],
    boxes_xyxy: NDArray[np.floating],
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
) -> NDArray[np.bool_]:
    """(N,) bool, True for the boxes that are the best of their object; best score first, of equal ones the lower row.

    ``offsets`` (I + 1,) groups the rows of boxes (N, 4), half-open xyxy, scores (N,) and labels (N,) by image.
    """
    image = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.lexsort((-np.asarray(scores, np.float64), image))
    return _distinct(
        read_only(np.asarray(offsets, np.int64)),
        order.astype(np.int64),
        read_only(np.asarray(boxes_xyxy, np.float32).reshape(-1, 4)),
        read_only(np.asarray(labels, np.int32)),
        OVERLAP_IOU,
        NESTED_SHARE,
        NESTED_IOU,
    )
