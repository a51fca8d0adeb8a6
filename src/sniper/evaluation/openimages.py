"""OpenImages: the V2 metric and that of the challenge, mean AP at IoU 0.5 over the boxable classes.

Ground truth is expanded along the class tree: an object of a class is one of every class above it, and a class that is
verified absent is absent with every class below it. Detections are not: a detector that is to score for a class above
must give that class too. A group-of box takes every detection with half of its area inside. V2 leaves these out; the
challenge counts the best of them as one object found, and a group-of box without one as missed. The challenge measures
an image for the classes that were verified in it or have boxes there. ``docs/method.md``, "Protocols".
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.data.class_tree import lines_of
from sniper.data.columns import ragged_rows
from sniper.data.detections import DetectionTable
from sniper.data.flags import ObjectFlag, any_flag
from sniper.data.table import AnnotationTable
from sniper.evaluation.average_precision import class_table
from sniper.evaluation.best_overlap import BestOverlaps, Objects, best_overlaps, first_of_each
from sniper.evaluation.class_scores import ClassScores, class_scores
from sniper.evaluation.measured import measured_rows
from sniper.evaluation.protocol import Score, split_numbers

MIN_IOU = 0.5


@dataclass(frozen=True, slots=True)
class OpenImagesScore(Score):
    """A score of the OpenImages protocol, with each class."""

    v2: ClassScores = field(kw_only=True)
    challenge: ClassScores = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class OpenImagesProtocol:
    """``OID_AP50``, the metric called OpenImages V2, and ``OID_challenge_AP50``; means over classes with objects."""

    def __call__(self, table: AnnotationTable, detections: DetectionTable) -> OpenImagesScore:
        """Measure detections on the images that ``detections.image_ids`` lists.

        Raises:
            DataError: they do not fit the table.
        """
        images = table.select(measured_rows(table, detections))
        tree = _Tree.of(images)
        truth = _expanded(images, tree)
        best = best_overlaps(detections, truth.objects)
        everything = np.ones(len(detections.scores), np.bool_)
        v2 = _scores(images, truth, detections, best, everything, groups_count=False)
        judged = _judged(images, tree, truth, detections)
        challenge = _scores(images, truth, detections, best, judged, groups_count=True)
        counts = f"{len(images)} images, {int(truth.single.sum())} objects after expansion"
        title = f"OpenImages, IoU 0.5: {counts}, {int(truth.group.sum())} group-of boxes, {len(everything)} detections"
        numbers, untold = split_numbers({"OID_AP50": v2.ap, "OID_challenge_AP50": challenge.ap})
        return OpenImagesScore(
            "openimages",
            numbers,
            (class_table(title, {"AP": v2.classes, "AP, challenge": challenge.classes}),),
            {"V2, IoU 0.50": v2.mean_curve, "challenge, IoU 0.50": challenge.mean_curve},
            v2.curves,
            untold,
            v2=v2,
            challenge=challenge,
        )


class _Tree(NamedTuple):
    """Classes above and below each class, itself included, as rows behind offsets. C classes."""

    above: NDArray[np.int32]
    above_offsets: NDArray[np.int64]  # (C + 1,)
    below: NDArray[np.int32]
    below_offsets: NDArray[np.int64]  # (C + 1,)

    @classmethod
    def of(cls, table: AnnotationTable) -> "_Tree":
        pairs, count = table.class_ancestors, len(table.class_names)
        return cls(*lines_of(pairs, count, up=True), *lines_of(pairs, count, up=False))


class _Truth(NamedTuple):
    """Objects with those of the classes above. M objects, grouped by image."""

    objects: Objects
    group: NDArray[np.bool_]  # (M,) group-of
    single: NDArray[np.bool_]  # (M,) neither group-of nor a crowd region


def _expanded(images: AnnotationTable, tree: _Tree) -> _Truth:
    """Each object once for its class and for each above; a box that is given for a class above already stays one."""
    rows, offsets = ragged_rows(tree.above_offsets, images.labels.astype(np.int64))
    source = np.repeat(np.arange(images.num_objects), np.diff(offsets))
    labels = tree.above[rows]
    boxes, flags, image = images.boxes_xyxy[source], images.flags[source], images.image_rows_of_objects()[source]
    if len(source) > images.num_objects:
        regions = any_flag(flags, ObjectFlag.GROUP_OF | ObjectFlag.CROWD)
        keys = np.column_stack([image, labels, regions, boxes.view(np.int32).astype(np.int64)])
        given = rows == tree.above_offsets[images.labels[source]]  # its own class comes first among those above
        order = np.lexsort((~given, *keys.T[::-1]))
        again = np.concatenate([[False], (np.diff(keys[order], axis=0) == 0).all(axis=1)]) & ~given[order]
        kept = np.sort(order[~again])
        labels, boxes, flags, image = labels[kept], boxes[kept], flags[kept], image[kept]
    group, crowd = any_flag(flags, ObjectFlag.GROUP_OF), any_flag(flags, ObjectFlag.CROWD)
    starts = np.searchsorted(image, np.arange(len(images) + 1)).astype(np.int64)
    return _Truth(Objects(starts, boxes, labels, group | crowd), group & ~crowd, ~group & ~crowd)


def _judged(images: AnnotationTable, tree: _Tree, truth: _Truth, detections: DetectionTable) -> NDArray[np.bool_]:
    """(N,) whether the class of a detection was verified in its image, or has a box there."""
    classes = len(images.class_names)
    image = np.repeat(np.arange(len(images)), np.diff(truth.objects.offsets))
    keys = [image * classes + truth.objects.labels]
    if images.image_labels is not None:
        given = images.image_labels
        image = np.repeat(np.arange(len(images)), np.diff(given.offsets))
        for chosen, others, starts in (
            (given.present, tree.above, tree.above_offsets),
            (given.absent, tree.below, tree.below_offsets),
        ):
            rows, offsets = ragged_rows(starts, given.labels[chosen].astype(np.int64))
            keys.append(np.repeat(image[chosen], np.diff(offsets)) * classes + others[rows])
    own = np.repeat(np.arange(len(images)), np.diff(detections.offsets)) * classes + detections.labels
    return np.isin(own, np.unique(np.concatenate(keys)))


def _scores(
    images: AnnotationTable,
    truth: _Truth,
    detections: DetectionTable,
    best: BestOverlaps,
    judged: NDArray[np.bool_],
    *,
    groups_count: bool,
) -> ClassScores:
    right = first_of_each(best.objects, detections.scores, judged & (best.ious >= MIN_IOU))
    inside = judged & ~right & (best.shares >= MIN_IOU)
    counted = judged & ~inside
    number = truth.single
    if groups_count:
        in_group = inside & np.append(truth.group, False)[best.regions]  # -1: none
        finds_group = first_of_each(best.regions, detections.scores, in_group)
        right, counted, number = right | finds_group, counted | finds_group, number | truth.group
    return class_scores(
        images.class_names,
        detections.labels[counted],
        detections.scores[counted],
        right[counted],
        np.bincount(truth.objects.labels[number], minlength=len(images.class_names)),
    )
