"""Verdicts on detections, and the counts of the best of them."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.boxes import iou
from sniper.data.detections import DetectionTable
from sniper.data.table import AnnotationTable
from sniper.evaluation.error_types import Verdict, at_equal_recall, judge


def truth(*images: list[tuple[tuple[float, ...], int, bool]]) -> AnnotationTable:
    objects = [entry for image in images for entry in image]
    count = len(objects)
    boxes = np.asarray([box for box, _, _ in objects], np.float32).reshape(-1, 4)
    return AnnotationTable(
        root=Path(),
        file_names=tuple(f"{i}.jpg" for i in range(len(images))),
        image_ids=np.arange(1, len(images) + 1),
        sizes_wh=np.full((len(images), 2), 200, np.int32),
        offsets=np.concatenate(([0], np.cumsum([len(image) for image in images]))).astype(np.int64),
        boxes_xyxy=boxes,
        labels=np.asarray([label for _, label, _ in objects], np.int32),
        flags=np.asarray([flags for _, _, flags in objects], np.uint8),
        areas=np.ones(count, np.float32),
        annotation_ids=np.arange(count),
        class_names=("a", "b"),
        class_ids=np.asarray([1, 2]),
    )


def found(*rows: tuple[int, tuple[float, ...], float, int], images: int = 2) -> DetectionTable:
    image, boxes, scores, labels = (np.asarray(column) for column in zip(*rows, strict=True))
    return DetectionTable.from_arrays(image, boxes, scores, labels, None, np.arange(1, images + 1))


TABLE = truth(
    [((10, 10, 50, 50), 0, False), ((100, 100, 180, 180), 1, False), ((100, 0, 200, 60), 0, True)],
    [((0, 0, 20, 20), 0, False)],
)
FOUND = found(
    (0, (10, 10, 50, 48), 0.9, 0),  # right
    (0, (12, 10, 50, 50), 0.8, 0),  # the same object again
    (0, (100, 100, 180, 180), 0.7, 0),  # wrong class
    (0, (100, 140, 180, 220), 0.6, 1),  # a third of it
    (0, (60, 60, 90, 90), 0.5, 1),  # nothing there
    (0, (110, 10, 130, 30), 0.4, 0),  # in the crowd
    (0, (110, 10, 130, 30), 0.35, 1),  # not a crowd of that class
    (1, (0, 0, 20, 20), 0.3, 0),  # right
    (1, (15, 15, 40, 40), 0.95, 0),  # hardly overlaps
)


def test_each_kind_of_error_is_told_apart() -> None:
    verdicts = judge(TABLE, FOUND)
    assert [Verdict(v).name for v in verdicts.verdict] == [
        "TRUE_POSITIVE", "DUPLICATE", "WRONG_CLASS", "LOCALISATION", "BACKGROUND", "IGNORED", "BACKGROUND",
        "TRUE_POSITIVE", "BACKGROUND",
    ]  # fmt: skip
    assert verdicts.objects == 3
    agnostic = judge(TABLE, FOUND, class_agnostic=True).verdict
    assert agnostic[2] == Verdict.TRUE_POSITIVE
    assert agnostic[6] == Verdict.IGNORED


def test_the_best_by_number_score_and_recall() -> None:
    verdicts = judge(TABLE, FOUND)
    two = verdicts.best(number=2)
    assert (two.background, two.true_positives, two.detections, two.recall) == (1, 1, 2, pytest.approx(1 / 3))
    assert two == verdicts.best(score=0.9) == verdicts.best(recall=0.2)
    every = verdicts.best(recall=2 / 3)
    assert (every.true_positives, every.detections, every.score) == (2, 8, pytest.approx(0.3))
    assert every == verdicts.best(recall=1.0), "not reached: everything"
    assert every.as_dict()["wrong_class"] == 1
    assert "8 best detections 2 are true positives, 3 lie on background" in every.sentence()
    none = verdicts.best(number=0)
    assert none.detections == 0
    assert math.isnan(none.precision)
    assert "score" not in none.as_dict()
    with pytest.raises(ValueError, match="one of number"):
        verdicts.best()


def test_two_detectors_at_equal_recall() -> None:
    cleaner = dataclasses.replace(FOUND, scores=np.where(FOUND.scores == np.float32(0.95), 0.01, FOUND.scores))
    both = at_equal_recall(TABLE, FOUND, cleaner, recall=2 / 3)
    assert (both.first.background, both.second.background) == (3, 2)
    assert both.first.true_positives == both.second.true_positives == 2
    assert both.fewer_background == pytest.approx(1 / 3)
    assert at_equal_recall(TABLE, FOUND, FOUND).recall == pytest.approx(0.6)


def test_images_that_were_not_looked_at_do_not_count() -> None:
    second = DetectionTable.from_arrays([0], np.asarray([[0, 0, 20, 20]]), [0.5], [0], None, np.asarray([2]))
    verdicts = judge(TABLE, second)
    assert (verdicts.objects, verdicts.verdict.tolist()) == (1, [Verdict.TRUE_POSITIVE])
    nothing = DetectionTable.from_arrays([], np.zeros((0, 4)), [], [], None, np.asarray([1, 2]))
    assert judge(TABLE, nothing).best(number=5).detections == 0
    other = DetectionTable.from_arrays([], np.zeros((0, 4)), [], [], None, np.asarray([7]))
    assert judge(TABLE, other).objects == 0


@given(seed=st.integers(0, 2**32 - 1), boxes=st.integers(0, 12), objects=st.integers(0, 8))
@settings(max_examples=80, deadline=None)
def test_verdicts_equal_a_plain_transcription(seed: int, boxes: int, objects: int) -> None:
    rng = np.random.default_rng(seed)

    def draw(count: int) -> np.ndarray:
        low = rng.integers(0, 12, (count, 2))
        return np.hstack([low, low + rng.integers(1, 12, (count, 2))]).astype(np.float32)

    gt, labels = draw(objects), rng.integers(0, 2, objects)
    table = truth([(tuple(box), int(label), False) for box, label in zip(gt, labels, strict=True)])
    dets, names = draw(boxes), rng.integers(0, 2, boxes)
    scores = rng.permutation(boxes) / 20 + 0.1
    verdicts = judge(table, DetectionTable.from_arrays(np.zeros(boxes, int), dets, scores, names, None, [1]))  # type: ignore[arg-type]
    overlap, free = iou(dets.astype(np.float64), gt.astype(np.float64)), np.ones(objects, bool)
    for row in np.argsort(-scores):
        own = labels == names[row]
        usable = np.where(free & own, overlap[row], -1)
        if objects and usable.max() >= 0.5:
            assert verdicts.verdict[row] == Verdict.TRUE_POSITIVE
            ties = np.flatnonzero(usable == usable.max())
            free[ties[-1]] = False
        elif overlap[row][own].max(initial=0) >= 0.5:
            assert verdicts.verdict[row] == Verdict.DUPLICATE
        elif overlap[row][~own].max(initial=0) >= 0.5:
            assert verdicts.verdict[row] == Verdict.WRONG_CLASS
        else:
            expected = Verdict.LOCALISATION if overlap[row].max(initial=0) >= 0.1 else Verdict.BACKGROUND
            assert verdicts.verdict[row] == expected
    assert (verdicts.verdict == Verdict.TRUE_POSITIVE).sum() == (~free).sum()
