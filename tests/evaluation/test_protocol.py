"""Scores of protocols: COCO's numbers, tables and curves, and several scores together."""

from pathlib import Path

import numpy as np
import pytest

from sniper.data.detections import DetectionTable
from sniper.evaluation.coco import evaluate_coco
from sniper.evaluation.config import CocoEvalConfig
from sniper.evaluation.protocol import Curve, Score, all_curves, all_numbers
from sniper.evaluation.protocols import protocols_of
from voc_cases import voc_table


def test_the_coco_score_is_the_coco_result(tmp_path: Path) -> None:
    table = voc_table(tmp_path / "voc", ((0, 0, 40, 40), ""), ((100, 100, 140, 140), ""))
    boxes = np.array([[0, 0, 40, 40], [100, 100, 140, 130]])
    found = DetectionTable.from_arrays([0, 0], boxes, np.array([0.9, 0.8]), np.zeros(2, int), None, table.image_ids)
    config = CocoEvalConfig(max_detections=500)
    (protocol,) = protocols_of(config)
    score, result = protocol(table, found), evaluate_coco(table, found, config)
    assert (score.name, score.numbers) == ("coco", result.as_dict())
    assert [tuple(one) for one in score.tables] == result.tables()
    assert list(score.curves) == list(result.pr_curves)
    assert np.array_equal(score.curves["IoU 0.50"].precision, result.pr_curves["IoU 0.50"][1])
    assert (score.boxes.as_dict(), score.masks) == (result.as_dict(), None)


def test_several_scores_together() -> None:
    curve = Curve(np.linspace(0, 1, 3), np.ones(3))
    one, other = (
        Score("coco", {"AP": 0.5}, curves={"IoU 0.50": curve}),
        Score("voc", {"mAP": 0.6}, curves={"cat": curve}),
    )
    assert all_numbers([one, other]) == {"AP": 0.5, "mAP": 0.6}
    assert list(all_curves([one])) == ["IoU 0.50"]
    assert list(all_curves([one, other])) == ["coco, IoU 0.50", "voc, cat"]
    with pytest.raises(ValueError, match="protocol voc gives AP"):
        all_numbers([one, Score("voc", {"AP": 1.0})])
