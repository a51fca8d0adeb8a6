"""Why detections are wrong: background, wrong class, localisation or duplicate, and how two detectors compare.

Every detection gets one verdict from COCO's greedy matching at one IoU: best score first, each takes the free object of
its class that it overlaps most. A verdict depends on better detections only, so the first detections at any score,
number or recall are judged as if there were no others. The kinds of errors follow TIDE (arXiv 2008.08115), which has
one more (wrong class and localisation at once; localisation here). ``docs/method.md``, "Evaluation".
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.compiled import compiled, read_only
from sniper.data.detection_files import for_images
from sniper.data.detections import DetectionTable
from sniper.data.table import AnnotationTable

FOREGROUND_IOU = 0.5
BACKGROUND_IOU = 0.1


class Verdict(IntEnum):
    """What became of a detection."""

    TRUE_POSITIVE = 0
    BACKGROUND = 1  # no object overlaps it by more than BACKGROUND_IOU
    WRONG_CLASS = 2  # on an object of another class
    LOCALISATION = 3  # overlaps an object, but not enough
    DUPLICATE = 4  # on an object that a better detection has found
    IGNORED = 5  # in a crowd region or on a difficult object: neither right nor wrong


@dataclass(frozen=True, slots=True)
class ErrorSplit:
    """The best detections of a dataset by verdict."""

    true_positives: int
    background: int
    wrong_class: int
    localisation: int
    duplicate: int
    objects: int  # ignored ones not counted
    score: float  # of the last detection counted; nan if none is

    @property
    def recall(self) -> float:
        """Share of the objects that are found."""
        return self.true_positives / self.objects if self.objects else 0.0

    @property
    def precision(self) -> float:
        """Share of the detections that are right; nan if there are none."""
        return self.true_positives / self.detections if self.detections else float("nan")

    @property
    def detections(self) -> int:
        """How many detections are counted; those on ignored objects are not."""
        return self.true_positives + self.background + self.wrong_class + self.localisation + self.duplicate

    def as_dict(self) -> dict[str, float]:
        """Plain numbers."""
        counts = {
            name: getattr(self, name)
            for name in ("true_positives", "background", "wrong_class", "localisation", "duplicate")
        }
        score = {} if np.isnan(self.score) else {"score": self.score}
        return counts | {"detections": self.detections, "objects": self.objects, "recall": self.recall} | score

    def sentence(self) -> str:
        """One line for a terminal."""
        return (
            f"of the {self.detections} best detections {self.true_positives} are true positives, {self.background} lie "
            f"on background, {self.wrong_class} have the wrong class, {self.localisation} are localisation errors, "
            f"{self.duplicate} are duplicates"
        )


class Verdicts(NamedTuple):
    """A verdict for each detection. I images that were looked at, N detections, M objects in them."""

    verdict: NDArray[np.int8]  # (N,) a Verdict each
    scores: NDArray[np.float32]  # (N,)
    labels: NDArray[np.int32]  # (N,)
    offsets: NDArray[np.int64]  # (I + 1,) detections of each image
    matched: NDArray[np.int64]  # (N,) the object that it is on, by its verdict; -1: none
    object_labels: NDArray[np.int32]  # (M,)
    object_ignored: NDArray[np.bool_]  # (M,)
    object_offsets: NDArray[np.int64]  # (I + 1,) objects of each image

    @property
    def objects(self) -> int:
        """How many objects are to be found."""
        return int((~self.object_ignored).sum())

    def best(self, *, number: int | None = None, score: float | None = None, recall: float | None = None) -> ErrorSplit:
        """Count the best detections: a number of them, those from a score on, or as few as reach a recall.

        Detections on ignored objects do not count. A recall that is not reached takes all detections.

        Raises:
            ValueError: not exactly one of the three is given.
        """
        if sum(given is not None for given in (number, score, recall)) != 1:
            raise ValueError("give one of number, score and recall")
        order = np.argsort(-self.scores, kind="stable")
        order = order[self.verdict[order] != Verdict.IGNORED]
        if number is not None:
            order = order[:number]
        elif score is not None:
            order = order[self.scores[order] >= score]
        else:
            assert recall is not None
            found = np.cumsum(self.verdict[order] == Verdict.TRUE_POSITIVE)
            order = order[: int(np.searchsorted(found, np.ceil(recall * self.objects - 1e-9))) + 1]
        counts = np.bincount(self.verdict[order], minlength=len(Verdict)).tolist()
        last = float(self.scores[order[-1]]) if len(order) else float("nan")
        true_positives, background, wrong_class, localisation, duplicate = counts[:5]
        return ErrorSplit(true_positives, background, wrong_class, localisation, duplicate, self.objects, last)


class EqualRecall(NamedTuple):
    """Two detectors where each finds the same share of the objects."""

    recall: float
    first: ErrorSplit
    second: ErrorSplit

    @property
    def fewer_background(self) -> float:
        """By which share the second has fewer false positives on background: 0.25 is a quarter less, negative more."""
        return 1 - self.second.background / self.first.background if self.first.background else 0.0


@compiled
def _judge(
    starts: NDArray[np.int64],
    order: NDArray[np.int64],
    boxes: NDArray[np.float32],
    labels: NDArray[np.int32],
    object_offsets: NDArray[np.int64],
    objects: NDArray[np.float32],
    object_labels: NDArray[np.int32],
    ignored: NDArray[np.bool_],
    regions: NDArray[np.bool_],
    foreground: float,
    background: float,
    agnostic: bool,
) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    verdict = np.empty(len(boxes), np.int8)
    matched = np.full(len(boxes), -1, np.int64)
    taken = np.zeros(len(objects), np.bool_)
    for image in range(len(starts) - 1):
        for place in range(starts[image], starts[image + 1]):
            row = order[place]
            x1, y1 = np.float64(boxes[row, 0]), np.float64(boxes[row, 1])
            x2, y2 = np.float64(boxes[row, 2]), np.float64(boxes[row, 3])
            area = (x2 - x1) * (y2 - y1)
            free, best_free, same, other, on_ignored = -1, foreground, 0.0, 0.0, False
            on_same, on_other = -1, -1
            for k in range(object_offsets[image], object_offsets[image + 1]):
                w = min(x2, np.float64(objects[k, 2])) - max(x1, np.float64(objects[k, 0]))
                h = min(y2, np.float64(objects[k, 3])) - max(y1, np.float64(objects[k, 1]))
                if w <= 0 or h <= 0:
                    continue
                mine = agnostic or object_labels[k] == labels[row]
                own = (np.float64(objects[k, 2]) - objects[k, 0]) * (np.float64(objects[k, 3]) - objects[k, 1])
                overlap = w * h / (area + own - w * h)
                if ignored[k]:
                    share = w * h / area if regions[k] else overlap
                    if mine and share >= foreground:
                        on_ignored = True
                    continue
                if not mine:
                    if overlap > other:
                        other, on_other = overlap, k
                    continue
                if overlap > same:
                    same, on_same = overlap, k
                if not taken[k] and overlap >= best_free:
                    free, best_free = k, overlap
            if free >= 0:
                taken[free] = True
                verdict[row], matched[row] = 0, free
            elif on_ignored:
                verdict[row] = 5
            elif same >= foreground:
                verdict[row], matched[row] = 4, on_same
            elif other >= foreground:
                verdict[row], matched[row] = 2, on_other
            elif max(same, other) >= background:
                verdict[row], matched[row] = 3, on_same if same >= other else on_other
            else:
                verdict[row] = 1
    return verdict, matched


def judge(table: AnnotationTable, detections: DetectionTable, *, class_agnostic: bool = False) -> Verdicts:
    """The verdict of every detection, in the order of the table's images; images that it does not list do not count."""
    looked = np.isin(table.image_ids, detections.image_ids)
    images = table if looked.all() else table.select(np.flatnonzero(looked))
    found = for_images(detections, images, "the detection table")
    image = np.repeat(np.arange(len(found)), np.diff(found.offsets))
    order = np.lexsort((-found.scores, image))
    verdict, matched = _judge(
        read_only(found.offsets),
        order.astype(np.int64),
        read_only(found.boxes_xyxy),
        read_only(found.labels),
        read_only(images.offsets),
        read_only(images.boxes_xyxy),
        read_only(images.labels),
        read_only(images.ignored),
        read_only(images.regions),
        FOREGROUND_IOU,
        BACKGROUND_IOU,
        class_agnostic,
    )
    return Verdicts(
        verdict, found.scores, found.labels, found.offsets, matched, images.labels, images.ignored, images.offsets
    )


def at_equal_recall(
    table: AnnotationTable,
    first: DetectionTable,
    second: DetectionTable,
    *,
    recall: float | None = None,
    class_agnostic: bool = False,
) -> EqualRecall:
    """False positives of two detectors where both find the same share of the objects.

    Args:
        table: what is to be found.
        first, second: detections of the same images.
        recall: where to compare; none: nine tenths of the largest recall that both reach.
    """
    verdicts = [judge(table, found, class_agnostic=class_agnostic) for found in (first, second)]
    if recall is None:
        recall = 0.9 * min(v.best(number=len(v.verdict)).recall for v in verdicts)
    return EqualRecall(recall, *(v.best(recall=recall) for v in verdicts))
