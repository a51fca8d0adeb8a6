"""From which score on to show detections: for each class the score with the best F1.

F1 = 2 PR / (P + R) weighs a false positive like a missed object. A detector's scores mean something else for each
class, data set and length of training; 0.3 is a guess. Detections are counted as they are drawn, one an object
(``inference.distinct``). ``docs/method.md``, "Evaluation".
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.data.detections import DetectionTable
from sniper.data.table import AnnotationTable
from sniper.evaluation.error_types import Verdict, Verdicts, judge
from sniper.inference.distinct import distinct

DEFAULT_SCORE = 0.3  # where evaluation cannot tell


class BestF1(NamedTuple):
    """Where the F1 of a class is best. Precision, recall and F1 are 0 for a class that evaluation says nothing of."""

    score: float  # of the last detection that counts
    precision: float
    recall: float
    f1: float
    objects: int  # ignored ones not counted


def drawn_detections(detections: DetectionTable, min_scores: Sequence[float] | None = None) -> DetectionTable:
    """One box an object, and only those of at least their class' score, if scores are given: (C,)."""
    kept = np.ones(len(detections.scores), np.bool_)
    if min_scores is not None:
        kept = detections.scores >= np.asarray(min_scores, np.float32)[detections.labels]
    rows = np.flatnonzero(kept)
    rows = rows[distinct(_offsets(detections, rows), *_columns(detections, rows))]
    return DetectionTable(
        detections.image_ids, _offsets(detections, rows), *_columns(detections, rows), detections.levels[rows]
    )


def _columns(detections: DetectionTable, rows: NDArray[np.int64]) -> tuple[NDArray, NDArray, NDArray]:
    return detections.boxes_xyxy[rows], detections.scores[rows], detections.labels[rows]


def _offsets(detections: DetectionTable, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of the images, when only these rows are left."""
    return np.asarray(np.searchsorted(rows, detections.offsets), np.int64)


def best_f1(table: AnnotationTable, detections: DetectionTable, *, class_agnostic: bool = False) -> tuple[BestF1, ...]:
    """(C,) the best F1 of each class of the table.

    A class without objects or true positives has the score that is best for all classes together; without a single
    true positive there is none, and it is ``DEFAULT_SCORE``. ``class_agnostic`` gives all classes that of all together.
    """
    verdicts = judge(table, drawn_detections(detections), class_agnostic=class_agnostic)
    counted = verdicts.verdict != Verdict.IGNORED
    right = verdicts.verdict == Verdict.TRUE_POSITIVE
    together = _best(verdicts.scores[counted], right[counted], verdicts.objects)
    fallback = DEFAULT_SCORE if together is None else together.score
    objects = _objects_of_classes(verdicts, len(table.class_names))
    found = []
    for label, count in enumerate(objects.tolist()):
        of_class = counted & (verdicts.labels == label)
        best = together if class_agnostic else _best(verdicts.scores[of_class], right[of_class], count)
        found.append(best or BestF1(fallback, 0.0, 0.0, 0.0, count))
    return tuple(found)


def _objects_of_classes(verdicts: Verdicts, classes: int) -> NDArray[np.int64]:
    return np.bincount(verdicts.object_labels[~verdicts.object_ignored], minlength=classes)


def _best(scores: NDArray[np.float32], right: NDArray[np.bool_], objects: int) -> BestF1 | None:
    """Of equal values the one at the highest score; None without a true positive."""
    if not right.any():
        return None
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(right[order])
    count = np.arange(1, len(order) + 1)
    f1 = 2 * found / (count + objects)
    f1[:-1][np.diff(scores[order]) == 0] = 0  # a score takes all detections that have it
    at = int(np.argmax(f1))
    true_positives = int(found[at])
    return BestF1(float(scores[order[at]]), true_positives / (at + 1), true_positives / objects, float(f1[at]), objects)
