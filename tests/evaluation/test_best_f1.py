"""The score of each class from which on detections are drawn."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.data.detections import DetectionTable
from sniper.data.flags import ObjectFlag, flags_where
from sniper.data.table import AnnotationTable
from sniper.evaluation.best_f1 import DEFAULT_SCORE, best_f1, drawn_detections

NAMES = ("car", "tree", "pond")


def objects(boxes: list[tuple[float, ...]], labels: list[int], ignored: tuple[int, ...] = ()) -> AnnotationTable:
    """One image of 100 px."""
    xyxy, n = np.asarray(boxes, np.float32).reshape(-1, 4), len(boxes)
    return AnnotationTable(
        root=Path(),
        file_names=("one.jpg",),
        image_ids=np.asarray([1]),
        sizes_wh=np.asarray([[100, 100]], np.int32),
        offsets=np.asarray([0, n]),
        boxes_xyxy=xyxy,
        labels=np.asarray(labels, np.int32),
        flags=flags_where(np.isin(np.arange(n), ignored), ObjectFlag.DIFFICULT),
        areas=np.prod(xyxy[:, 2:] - xyxy[:, :2], axis=1),
        annotation_ids=np.arange(n),
        class_names=NAMES,
        class_ids=np.arange(3),
    )


def detections(boxes: list[tuple[float, ...]], scores: list[float], labels: list[int]) -> DetectionTable:
    rows = np.zeros(len(boxes), np.int64)
    return DetectionTable.from_arrays(
        rows,
        np.asarray(boxes, float).reshape(-1, 4),
        np.asarray(scores),
        np.asarray(labels, np.int32),
        None,
        np.asarray([1]),
    )


def square(x: float, y: float = 0) -> tuple[float, ...]:
    return x, y, x + 8, y + 8


def test_each_class_has_its_own_score() -> None:
    table = objects([square(0), square(20), square(40), square(0, 40)], [0, 0, 0, 1])
    found = detections(
        [square(0), square(20), square(60), square(40), square(80), square(0, 40), square(50, 50)],
        [0.9, 0.8, 0.7, 0.2, 0.1, 0.15, 0.05],
        [0, 0, 0, 0, 0, 1, 1],
    )
    car, tree, pond = best_f1(table, found)
    assert car == pytest.approx((0.2, 3 / 4, 1.0, 6 / 7, 3))
    assert tree == pytest.approx((0.15, 1.0, 1.0, 1.0, 1))
    together = best_f1(table, found, class_agnostic=True)
    assert pond == pytest.approx((together[0].score, 0, 0, 0, 0)), "nothing to find: the score of all together"
    assert together[0] == together[1] == together[2]
    assert together[0].score == pytest.approx(0.15)


def test_doubles_count_as_they_are_drawn() -> None:
    """A second box on each object at a low score: the picture has none, so the score may go that low."""
    table = objects([square(0), square(20)], [0, 0])
    nested = (1, 1, 7, 7)
    found = detections([square(0), nested, square(20)], [0.9, 0.5, 0.2], [0, 0, 0])
    assert best_f1(table, found)[0] == pytest.approx((0.2, 1, 1, 1, 2))
    assert drawn_detections(found).num_objects == 2
    assert drawn_detections(found, [0.3, 0, 0]).num_objects == 1


def test_ignored_objects_are_neither_right_nor_wrong() -> None:
    table = objects([square(0), square(20)], [0, 0], ignored=(1,))
    assert best_f1(table, detections([square(0), square(20)], [0.4, 0.9], [0, 0]))[0] == pytest.approx(
        (0.4, 1, 1, 1, 1)
    )


@pytest.mark.parametrize("found", [([], [], []), ([square(50)], [0.9], [0])])
def test_without_a_true_positive_there_is_the_default(found: tuple[list, list, list]) -> None:
    best = best_f1(objects([square(0)], [0]), detections(*found))
    assert [one.score for one in best] == [DEFAULT_SCORE] * 3
    assert best[0].f1 == 0


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_no_other_score_is_better(seed: int, count: int) -> None:
    """Against counting anew at every score."""
    random = np.random.default_rng(seed)
    table = objects([square(20 * k) for k in range(5)], [0] * 5)
    places = random.integers(0, 8, count)
    scores = random.integers(1, 9, count) / 8
    found = detections([square(20 * k, 0 if k < 5 else 12 * k) for k in places], scores.tolist(), [0] * count)
    best = best_f1(table, found)[0]
    f1 = {}
    for score in np.unique(scores):
        shown = set(places[scores >= score].tolist())
        f1[score] = 2 * len(shown & {0, 1, 2, 3, 4}) / (len(shown) + 5)
    assert best.f1 == pytest.approx(max(f1.values()))
    if best.f1:
        assert best.score == max(score for score, value in f1.items() if value == pytest.approx(best.f1))
