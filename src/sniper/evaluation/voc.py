"""Pascal VOC: AP at IoU 0.5 by the area under the curve (since 2010) and by eleven points (2007).

A detection goes to the object of its class that it overlaps most. Difficult objects are neither to be found nor wrong
to find. Other marks are not Pascal VOC's: group-of boxes are objects as any other, and crowd regions, which COCO's
files have, take every detection with half of its area inside. ``docs/method.md``, "Protocols".
"""

from dataclasses import dataclass, field

import numpy as np

from sniper.data.detections import DetectionTable
from sniper.data.flags import ObjectFlag, any_flag
from sniper.data.table import AnnotationTable
from sniper.evaluation.average_precision import ClassAp, class_table, mean_ap
from sniper.evaluation.best_overlap import Objects, best_overlaps, first_of_each
from sniper.evaluation.class_scores import ClassScores, class_scores
from sniper.evaluation.measured import measured_rows
from sniper.evaluation.protocol import Score, split_numbers

MIN_IOU = 0.5


@dataclass(frozen=True, slots=True)
class VocScore(Score):
    """A score of the Pascal VOC protocol, with each class."""

    area: ClassScores = field(kw_only=True)
    eleven_points: tuple[ClassAp, ...] = field(kw_only=True)  # (C,)


@dataclass(frozen=True, slots=True)
class VocProtocol:
    """``VOC_AP50`` by the area under the curve, ``VOC_AP50_11`` by eleven points; means over classes with objects."""

    class_agnostic: bool = False  # treat all classes as one

    def __call__(self, table: AnnotationTable, detections: DetectionTable) -> VocScore:
        """Measure detections on the images that ``detections.image_ids`` lists.

        Raises:
            DataError: they do not fit the table.
        """
        images = table.select(measured_rows(table, detections))
        names = ("object",) if self.class_agnostic else images.class_names
        difficult = any_flag(images.flags, ObjectFlag.DIFFICULT)
        regions = any_flag(images.flags, ObjectFlag.CROWD)
        objects = Objects(images.offsets, images.boxes_xyxy, images.labels, regions)
        if self.class_agnostic:
            objects = objects._replace(labels=np.zeros_like(objects.labels))
            detections = detections.of_one_class()
        best = best_overlaps(detections, objects)
        on_object = best.ious >= MIN_IOU
        on_difficult = on_object & np.append(difficult, False)[best.objects]  # -1: none
        right = first_of_each(best.objects, detections.scores, on_object & ~on_difficult)
        counted = ~on_difficult & (right | (best.shares < MIN_IOU))
        number = np.bincount(objects.labels[~difficult & ~regions], minlength=len(names))
        area = class_scores(names, detections.labels[counted], detections.scores[counted], right[counted], number)
        eleven = area.at_eleven_points()
        title = f"Pascal VOC, IoU 0.5: {len(images)} images, {number.sum()} objects, {len(right)} detections"
        numbers, untold = split_numbers({"VOC_AP50": area.ap, "VOC_AP50_11": mean_ap(eleven)})
        return VocScore(
            "voc",
            numbers,
            (class_table(title, {"AP": area.classes, "AP, 11 points": eleven}),),
            {"IoU 0.50": area.mean_curve},
            area.curves,
            untold,
            area=area,
            eleven_points=eleven,
        )
