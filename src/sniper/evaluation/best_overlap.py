"""The matcher of Pascal VOC, OpenImages and WIDER FACE: every detection goes to the object that it overlaps most.

In these protocols the object of a detection depends on no other detection (COCO's greedy matching differs: there a
detection takes the best *free* object). Of several detections of an object, the one with the highest score finds it.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.compiled import compiled, read_only
from sniper.data.detections import DetectionTable


class Objects(NamedTuple):
    """What is to be found in I images. M objects, grouped by image."""

    offsets: NDArray[np.int64]  # (I + 1,)
    boxes_xyxy: NDArray[np.float32]  # (M, 4) original px
    labels: NDArray[np.int32]  # (M,)
    regions: NDArray[np.bool_]  # (M,) boxes around many objects, told by the share of a detection's area inside


class BestOverlaps(NamedTuple):
    """For each of N detections the object and the region of its own class and image that it overlaps most."""

    objects: NDArray[np.int64]  # (N,) row of the object; -1: none overlaps
    ious: NDArray[np.float64]  # (N,)
    regions: NDArray[np.int64]  # (N,) row of the region; -1: none overlaps
    shares: NDArray[np.float64]  # (N,) of the detection's own area


def best_overlaps(detections: DetectionTable, objects: Objects, *, corner_px: float = 0.0) -> BestOverlaps:
    """Of equal overlaps, the first object in the order of the table.

    Args:
        detections: of the same I images, in the same order.
        objects: what they are matched with.
        corner_px: added to every width and height; 1 for protocols that count corners as pixels inside.
    """
    return BestOverlaps(
        *_best_overlaps(
            read_only(detections.offsets),
            read_only(detections.boxes_xyxy),
            read_only(detections.labels),
            read_only(objects.offsets),
            read_only(objects.boxes_xyxy),
            read_only(objects.labels),
            read_only(objects.regions),
            float(corner_px),
        )
    )


def first_of_each(
    groups: NDArray[np.int64], scores: NDArray[np.float32], candidates: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """(N,) of the candidates of each group, the one with the highest score; of equal scores the first."""
    order = np.argsort(-scores, kind="stable")
    order = order[candidates[order]]
    _, first = np.unique(groups[order], return_index=True)
    chosen = np.zeros(len(scores), np.bool_)
    chosen[order[first]] = True
    return chosen


@compiled
def _best_overlaps(
    offsets: NDArray[np.int64],
    boxes: NDArray[np.float32],
    labels: NDArray[np.int32],
    object_offsets: NDArray[np.int64],
    objects: NDArray[np.float32],
    object_labels: NDArray[np.int32],
    regions: NDArray[np.bool_],
    corner: float,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    best_object, best_region = np.full(len(boxes), -1, np.int64), np.full(len(boxes), -1, np.int64)
    best_iou, best_share = np.zeros(len(boxes)), np.zeros(len(boxes))
    for image in range(len(offsets) - 1):
        for row in range(offsets[image], offsets[image + 1]):
            x1, y1 = np.float64(boxes[row, 0]), np.float64(boxes[row, 1])
            x2, y2 = np.float64(boxes[row, 2]), np.float64(boxes[row, 3])
            area = (x2 - x1 + corner) * (y2 - y1 + corner)
            for k in range(object_offsets[image], object_offsets[image + 1]):
                if object_labels[k] != labels[row]:
                    continue
                w = min(x2, np.float64(objects[k, 2])) - max(x1, np.float64(objects[k, 0])) + corner
                h = min(y2, np.float64(objects[k, 3])) - max(y1, np.float64(objects[k, 1])) + corner
                if w <= 0 or h <= 0:
                    continue
                if regions[k]:
                    share = w * h / area
                    if share > best_share[row]:
                        best_share[row], best_region[row] = share, k
                    continue
                width = np.float64(objects[k, 2]) - np.float64(objects[k, 0]) + corner
                height = np.float64(objects[k, 3]) - np.float64(objects[k, 1]) + corner
                iou = w * h / (area + width * height - w * h)
                if iou > best_iou[row]:
                    best_iou[row], best_object[row] = iou, k
    return best_object, best_iou, best_region, best_share
