"""AutoFocus through the pipeline: a branch that is trained, and the two settings of prediction and evaluation."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from trained_run import Trained

from devices import DEVICE
from rectangle_set import TINY
from sniper.errors import RecipeError, StorageError
from sniper.inference.config import AutoFocusConfig
from sniper.pipeline.evaluate import evaluate, save_evaluation
from sniper.pipeline.model import Model, load_model
from sniper.pipeline.predict import predict
from sniper.pipeline.tables import table_for
from sniper.pipeline.train import train
from sniper.pixels.decode import read_image


@pytest.fixture(scope="module")
def focusing(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Four steps of a tiny detector with a focus branch."""
    overrides = [*TINY, f"data.train={trained.train_json}", "model.focus=true", "model.focus_channels=8"]
    overrides += ["pyramid.levels=[{scale: 2}, {scale: 1}]"]
    run = train("mobilenetv2", overrides=overrides, root=tmp_path_factory.mktemp("focus"))
    assert "loss/focus" in (run.folder / "metrics.csv").read_text()
    return load_model(run.folder, device=DEVICE)


def test_two_settings_and_nothing_else_change(focusing: Model) -> None:
    assert focusing.focused() is focusing
    changed = focusing.focused(0.2).focused(pixel_budget=0.5)
    assert changed.recipe.inference.focus == AutoFocusConfig(threshold=0.2, pixel_budget=0.5)
    assert changed.recipe.inference.model_copy(update={"focus": None}) == focusing.recipe.inference
    assert changed.detector is focusing.detector


def test_evaluation_tells_the_share_of_pixels(focusing: Model, trained: Trained, tmp_path: Path) -> None:
    plain, zero, none = (
        evaluate(focusing, trained.val_json, focus_threshold=threshold) for threshold in (None, 0.0, 1.0)
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
    assert predict(focusing, images, focus_threshold=1.0).pixel_share < 1


def test_where_it_looked_is_drawn_beside_the_detections(focusing: Model, trained: Trained, tmp_path: Path) -> None:
    images = sorted(trained.val_json.parent.rglob("*.png"))
    found = predict(focusing.focused(0.5), images, output=tmp_path, draw_focus=True)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["0-focus.jpg", "0.jpg", "1-focus.jpg", "1.jpg", "2-focus.jpg", "2.jpg", "predictions.json"]
    assert read_image(tmp_path / "0-focus.jpg").shape[1] > 640
    plain = predict(focusing.focused(0.5), images)
    for one, other in zip(found.items, plain.items, strict=True):
        np.testing.assert_array_equal(one.boxes_xyxy, other.boxes_xyxy)
    (only := tmp_path / "only").mkdir()
    predict(focusing.focused(0.5), images[:1], output=only, draw=False, draw_focus=True)
    assert sorted(path.name for path in only.iterdir()) == ["0-focus.jpg", "predictions.json"]


def test_nothing_is_drawn_where_there_is_nothing_to_see(focusing: Model, trained: Trained, tmp_path: Path) -> None:
    image = next(trained.val_json.parent.rglob("0.png"))
    for model in (focusing, focusing.focused(0.0)):
        with pytest.raises(RecipeError, match="the model runs on every window; give a focus threshold"):
            predict(model, image, output=tmp_path / "new", draw_focus=True)
    with pytest.raises(RecipeError, match="give output"):
        predict(focusing.focused(0.5), image, draw_focus=True)
    assert not (tmp_path / "new").exists()
    own, other = tmp_path / "a.png", tmp_path / "a-focus.jpg"
    for path in (own, other):
        shutil.copy(image, path)
    with pytest.raises(StorageError, match="would replace"):
        predict(focusing.focused(0.5), [own, other], output=tmp_path, draw=False, draw_focus=True)


def test_without_a_branch_nothing_is_lost_that_plain_inference_finds(
    trained: Trained, caplog: pytest.LogCaptureFixture
) -> None:
    """Its coarsest level keeps large objects only, and did not learn to propose the small ones."""
    levels = "{scale: 1, infer_range_px: [0, 60]}, {scale: 0.5, infer_range_px: [60, null]}"
    base = load_model(trained.run.folder, device=DEVICE)
    model = replace(base, recipe=base.recipe.changed([f"pyramid.levels=[{levels}]"]))
    images = sorted(trained.val_json.parent.rglob("*.png"))
    plain, focused = predict(model, images), predict(model, images, focus_threshold=0.9)
    assert sum(len(one.scores) for one in plain.items) > 0
    for one, other in zip(plain.items, focused.items, strict=True):
        np.testing.assert_array_equal(one.boxes_xyxy, other.boxes_xyxy)
        np.testing.assert_array_equal(one.scores, other.scores)
    predict(model, images[:1], focus_threshold=0.9)
    assert caplog.text.count("no focus branch") == 1, "told once, not with every image"


def test_one_level_is_run_whole_and_the_user_is_told(trained: Trained, caplog: pytest.LogCaptureFixture) -> None:
    base = load_model(trained.run.folder, device=DEVICE)
    model = replace(base, recipe=base.recipe.changed(["pyramid.levels=[{scale: 1}]"]))
    images = sorted(trained.val_json.parent.rglob("*.png"))
    plain, focused = predict(model, images), predict(model, images, focus_threshold=0.9)
    assert [record.getMessage() for record in caplog.records] == [
        "the checkpoint has one level, so there is no finer one for AutoFocus to choose from: focus threshold and "
        "pixel budget change nothing"
    ]
    for one, other in zip(plain.items, focused.items, strict=True):
        np.testing.assert_array_equal(one.boxes_xyxy, other.boxes_xyxy)


def test_an_impossible_setting_is_refused(focusing: Model) -> None:
    with pytest.raises(ValueError, match="threshold"):
        focusing.focused(threshold=2.0)
