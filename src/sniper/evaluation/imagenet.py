"""ImageNet's detection task (ILSVRC 2013 to 2017): AP of 200 classes, lenient with small objects.

A detection, best score first, takes the free object of its class that it overlaps best, of those that it overlaps by
the object's own threshold: ``min(0.5, w h / ((w + 10) (h + 10)))``, so that ten pixels of doubt are forgiven. Of the
published development kit; ``docs/method.md``, "Protocols".
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sniper.compiled import compiled, read_only
from sniper.data.detections import DetectionTable
from sniper.data.flags import ObjectFlag, any_flag
from sniper.data.table import AnnotationTable
from sniper.evaluation.average_precision import class_table
from sniper.evaluation.class_scores import ClassScores, class_scores
from sniper.evaluation.measured import measured_rows
from sniper.evaluation.protocol import Score, split_numbers

MIN_IOU = 0.5
DOUBT_PX = 10.0


@dataclass(frozen=True, slots=True)
class ImagenetScore(Score):
    """A score of ImageNet's detection task, with each class."""

    area: ClassScores = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class ImagenetProtocol:
    """``DET_AP``: the mean over classes with objects. Crowd regions and difficult objects, where others mark them, are
    neither to be found nor wrong to find.
    """

    class_agnostic: bool = False  # treat all classes as one

    def __call__(self, table: AnnotationTable, detections: DetectionTable) -> ImagenetScore:
        """Measure detections on the images that ``detections.image_ids`` lists.

        Raises:
            DataError: they do not fit the table.
        """
        images = table.select(measured_rows(table, detections))
        names, labels = images.class_names, images.labels
        if self.class_agnostic:
            names, labels = ("object",), np.zeros_like(labels)
            detections = detections.of_one_class()
        left_out = any_flag(images.flags, ObjectFlag.DIFFICULT | ObjectFlag.CROWD)
        found = _greedy(
            read_only(detections.offsets),
            read_only(detections.boxes_xyxy),
            read_only(detections.labels),
            read_only(_best_first(detections)),
            read_only(images.offsets),
            read_only(images.boxes_xyxy),
            read_only(labels),
            read_only(left_out),
        )
        counted = found != _UNJUDGED
        number = np.bincount(labels[~left_out], minlength=len(names))
        area = class_scores(
            names, detections.labels[counted], detections.scores[counted], found[counted] == _RIGHT, number
        )
        title = f"ImageNet DET: {len(images)} images, {number.sum()} objects, {len(found)} detections"
        numbers, untold = split_numbers({"DET_AP": area.ap})
        table_of_classes = class_table(title, {"AP": area.classes})
        return ImagenetScore(
            "imagenet", numbers, (table_of_classes,), {"DET": area.mean_curve}, area.curves, untold, area=area
        )


_WRONG, _RIGHT, _UNJUDGED = 0, 1, 2


def _best_first(detections: DetectionTable) -> NDArray[np.int64]:
    """(N,) rows, image by image, the best score first; equal scores keep their order."""
    image = np.repeat(np.arange(len(detections)), np.diff(detections.offsets))
    return np.lexsort((-detections.scores, image))


@compiled
def _greedy(
    offsets: NDArray[np.int64],
    boxes: NDArray[np.float32],
    labels: NDArray[np.int32],
    order: NDArray[np.int64],
    object_offsets: NDArray[np.int64],
    objects: NDArray[np.float32],
    object_labels: NDArray[np.int32],
    left_out: NDArray[np.bool_],
) -> NDArray[np.int8]:
    """(N,) verdict on each detection."""
    verdicts = np.zeros(len(boxes), np.int8)
    taken = np.zeros(len(objects), np.bool_)
    for image in range(len(offsets) - 1):
        for row in order[offsets[image] : offsets[image + 1]]:
            x1, y1 = np.float64(boxes[row, 0]), np.float64(boxes[row, 1])
            x2, y2 = np.float64(boxes[row, 2]), np.float64(boxes[row, 3])
            best, best_iou, on_left_out = -1, -1.0, False
            for k in range(object_offsets[image], object_offsets[image + 1]):
                if object_labels[k] != labels[row] or taken[k]:
                    continue
                w = min(x2, np.float64(objects[k, 2])) - max(x1, np.float64(objects[k, 0]))
                h = min(y2, np.float64(objects[k, 3])) - max(y1, np.float64(objects[k, 1]))
                if w <= 0 or h <= 0:
                    continue
                width = np.float64(objects[k, 2]) - np.float64(objects[k, 0])
                height = np.float64(objects[k, 3]) - np.float64(objects[k, 1])
                area = width * height
                iou = w * h / ((x2 - x1) * (y2 - y1) + area - w * h)
                if iou < min(MIN_IOU, area / ((width + DOUBT_PX) * (height + DOUBT_PX))):
                    continue
                if left_out[k]:
                    on_left_out = True
                elif iou > best_iou:
                    best, best_iou = k, iou
            if best >= 0:
                verdicts[row] = _RIGHT
                taken[best] = True
            elif on_left_out:
                verdicts[row] = _UNJUDGED
    return verdicts
