"""AutoFocus through the pipeline: a branch that is trained, and the two settings of prediction and evaluation."""

import json
from pathlib import Path

import numpy as np
import pytest
from trained_run import Trained

from rectangle_set import TINY
from sniper.inference.autofocus import AutoFocusConfig
from sniper.pipeline import Model, evaluate, load_model, predict, train
from sniper.pipeline.evaluate import save_evaluation, table_for


@pytest.fixture(scope="module")
def focusing(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Four steps of a tiny detector with a focus branch."""
    overrides = [*TINY, f"data.train={trained.train_json}", "model.focus=true", "model.focus_channels=8"]
    overrides += ["pyramid.levels=[{factor: 2}, {factor: 1}]"]
    run = train("mobilenetv2", overrides=overrides, root=tmp_path_factory.mktemp("focus"))
    assert "loss/focus" in (run.folder / "metrics.csv").read_text()
    return load_model(run.folder, device="cpu")


def test_two_settings_and_nothing_else_change(focusing: Model) -> None:
    assert focusing.focused() is focusing
    changed = focusing.focused(0.2).focused(pixel_budget=0.5)
    assert changed.recipe.inference.focus == AutoFocusConfig(threshold=0.2, pixel_budget=0.5)
    assert changed.recipe.inference.model_copy(update={"focus": None}) == focusing.recipe.inference
    assert changed.detector is focusing.detector


def test_evaluation_tells_the_share_of_pixels(focusing: Model, trained: Trained, tmp_path: Path) -> None:
    plain, zero, none = (
        evaluate(model, trained.val_json) for model in (focusing, focusing.focused(0.0), focusing.focused(1.0))
    )
    assert plain.pixel_share == zero.pixel_share == 1
    assert none.pixel_share < 1, "no cell is that sure: the coarsest level alone"
    np.testing.assert_array_equal(plain.detections.boxes_xyxy, zero.detections.boxes_xyxy)
    np.testing.assert_array_equal(plain.detections.scores, zero.detections.scores)
    save_evaluation(none, table_for(focusing.class_names, trained.val_json), tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["pixel_share"] == none.pixel_share


def test_prediction_tells_the_share_of_pixels(focusing: Model, trained: Trained) -> None:
    images = sorted(trained.val_json.parent.rglob("*.jpg")) or sorted(trained.val_json.parent.rglob("*.png"))
    assert predict(focusing, images).pixel_share == 1
    assert predict(focusing.focused(1.0), images).pixel_share < 1


def test_an_impossible_setting_is_refused(focusing: Model) -> None:
    with pytest.raises(ValueError, match="threshold"):
        focusing.focused(threshold=2.0)
