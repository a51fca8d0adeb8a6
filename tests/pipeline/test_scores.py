"""What an evaluation says where its protocols leave COCO out."""

import json
from pathlib import Path

import numpy as np
import pytest
from trained_run import Trained

from devices import DEVICE
from sniper.data.detections import DetectionTable
from sniper.data.source import DataSource
from sniper.errors import RecipeError
from sniper.evaluation.error_types import ErrorSplit
from sniper.evaluation.protocol import Score
from sniper.pipeline.evaluate import Evaluation, evaluate


def test_numbers_are_those_of_any_protocol_and_coco_may_be_missing() -> None:
    nothing = DetectionTable.from_arrays([], np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), None, np.zeros(0, int))
    done = Evaluation((Score("voc", {"mAP": 0.5}),), nothing, 1.0, 1.0, 1.0, [], ErrorSplit(0, 0, 0, 0, 0, 0, 0.0))
    assert done.as_dict() == {"mAP": 0.5}
    with pytest.raises(RecipeError, match=r"expected a COCO score.*\[voc\]"):
        _ = done.result


def test_protocols_by_word_take_the_place_of_the_recipes(trained: Trained, tmp_path: Path) -> None:
    done = evaluate(
        trained.run.folder, trained.val_json, output=tmp_path, protocols=("voc", "openimages"), device=DEVICE
    )
    assert [score.name for score in done.scores] == ["voc", "openimages"]
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written.items() >= done.as_dict().items()
    assert list(written)[:2] == ["VOC_AP50", "VOC_AP50_11"]
    with pytest.raises(RecipeError, match="name each one once, got voc, voc"):
        evaluate(trained.run.folder, trained.val_json, protocols=("voc", "voc"), device=DEVICE)


def test_data_without_an_object_to_find_are_told(
    trained: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = json.loads(trained.val_json.read_text())
    crowds = [one | {"iscrowd": 1} for one in said["annotations"]]
    for number, annotations in enumerate([said["annotations"], [], crowds]):
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps(said | {"annotations": annotations}))
        caplog.clear()
        evaluate(trained.run.folder, DataSource(file, images=trained.val_json.parent / "images"), device=DEVICE)
        told = [line for line in caplog.messages if "no object to find" in line]
        assert len(told) == (number > 0)
        assert all(f"3 images, {len(annotations)} objects" in line for line in told)
