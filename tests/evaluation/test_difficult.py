"""Difficult objects: told by IoU, neither to be found nor wrong to find. Crowds are told by share."""

from pathlib import Path

import numpy as np
import pytest

from sniper.data.detections import DetectionTable
from sniper.data.table import AnnotationTable
from sniper.evaluation.coco import evaluate_coco
from sniper.evaluation.config import CocoEvalConfig
from sniper.evaluation.error_types import Verdict, judge
from voc_cases import voc_table

THING, HARD = (0, 0, 40, 40), (100, 100, 180, 180)


def found(table: AnnotationTable, *rows: tuple[tuple[int, ...], float]) -> DetectionTable:
    boxes, scores = (np.asarray(column, np.float32) for column in zip(*rows, strict=True))
    nothing = np.zeros(len(rows), np.int64)
    return DetectionTable.from_arrays(nothing, boxes, scores, nothing, None, table.image_ids)


@pytest.fixture
def table(tmp_path: Path) -> AnnotationTable:
    return voc_table(tmp_path / "voc", (THING, ""), (HARD, "difficult"))


@pytest.mark.parametrize("agnostic", [False, True])
def test_vocs_difficult_matches_by_iou(table: AnnotationTable, agnostic: bool) -> None:
    config = CocoEvalConfig(class_agnostic=agnostic)
    on_it = found(table, (HARD, 0.9), (HARD, 0.8), (HARD, 0.7), (THING, 0.5))
    result = evaluate_coco(table, on_it, config)
    assert (result.ap, result.ap50, result.objects) == (pytest.approx(1), pytest.approx(1), 1)
    # A ninth of it: inside by share, but no detection of it.
    part = found(table, ((110, 110, 137, 137), 0.9), (THING, 0.5))
    assert evaluate_coco(table, part, config).ap == pytest.approx(0.5)


def test_a_detection_takes_a_regular_object_before_a_difficult_one(tmp_path: Path) -> None:
    table = voc_table(tmp_path / "voc", ((0, 0, 40, 40), ""), ((0, 0, 40, 38), "difficult"))
    assert evaluate_coco(table, found(table, ((0, 0, 40, 38), 0.9))).ap50 == pytest.approx(1)
    assert judge(table, found(table, ((0, 0, 40, 38), 0.9))).verdict.tolist() == [Verdict.TRUE_POSITIVE]


def test_verdicts_on_difficult_objects_go_by_iou(table: AnnotationTable) -> None:
    verdicts = judge(table, found(table, (HARD, 0.9), (HARD, 0.8), ((110, 110, 137, 137), 0.7), (THING, 0.5)))
    assert verdicts.verdict.tolist() == [
        Verdict.IGNORED,
        Verdict.IGNORED,
        Verdict.BACKGROUND,
        Verdict.TRUE_POSITIVE,
    ]
    assert verdicts.objects == 1
