"""ONNX detectors from elsewhere, by a form: two real ones, and what does not fit."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facts import facts
from sniper.errors import CheckpointError, RecipeError
from sniper.pipeline.model import load_model
from sniper.pipeline.predict import predict

FASTESTDET, YUNET = "fastestdet_coco80.onnx", "yunet_n.onnx"


@pytest.fixture(scope="module")
def weights(shared_data: Path) -> Path:
    return shared_data.parent / "weights"


def test_fastestdet_finds_what_is_on_a_photo(weights: Path, shared_data: Path, tmp_path: Path) -> None:
    model = load_model(weights / FASTESTDET, form="fastestdet")
    assert (len(model.class_names), model.class_ids[-1]) == (80, 90)
    assert model.recipe.inference.window_px == 352
    photo = shared_data / "coco_subset" / "val2017" / "000000000139.jpg"
    if not photo.is_file():
        photo = sorted(photo.parent.glob("*.jpg"))[0]
    done = predict(model, photo, output=tmp_path, min_score=0.3)
    found = done.items[0]
    width, height = Image.open(photo).size
    assert len(found.scores) > 0
    assert (found.boxes_xyxy >= 0).all()
    assert (found.boxes_xyxy <= [width, height, width, height]).all()
    assert (tmp_path / "predictions.json").is_file()


def test_levels_of_a_form_of_ones_own(weights: Path, shared_data: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    shutil.copy(weights / FASTESTDET, model)
    shipped = load_model(weights / FASTESTDET, form="fastestdet").form
    assert shipped is not None
    levels = "pyramid:\n  levels:\n    - {long_px: 704, infer_range_px: [0, 96]}\n    - {long_px: 352}\n"
    text = shipped.read_text().replace("fit: stretch", "fit: pad")
    model.with_suffix(".yaml").write_text(text + levels)
    found = load_model(model)
    assert found.form == model.with_suffix(".yaml")
    photo = sorted((shared_data / "coco_subset" / "val2017").glob("*.jpg"))[0]
    everywhere, focused = found.detect(photo), found.focused(0.3).detect(photo)
    assert set(everywhere.levels.tolist()) == {0, 1}
    assert focused.pixels_processed <= everywhere.pixels_processed == everywhere.pixels_full


def test_yunet_finds_faces(weights: Path, shared_data: Path) -> None:
    photos = (
        sorted((shared_data / "mask_faces").rglob("*.jpg"))[:3]
        + sorted((shared_data / "mask_faces").rglob("*.png"))[:3]
    )
    model = load_model(weights / YUNET, form="yunet")
    assert model.class_names == ("face",)
    assert sum(len(model.detect(photo, min_score=0.6).scores) for photo in photos) >= 3


def test_a_file_without_a_form_is_refused_in_one_sentence(
    weights: Path, sniper: Callable[..., Any], tmp_path: Path
) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(photo)
    done = sniper("predict", weights / YUNET, photo)
    assert done.code == 2
    assert "was not written by sniper export and has no form beside it (yunet_n.yaml)" in " ".join(done.lines)
    assert "name a shipped form (fastestdet, yunet)" in " ".join(done.lines)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (YUNET, "classes: [a]\noutput: {kind: detr}\n", "kind detr reads 2 outputs, but .* has 12"),
        (YUNET, "classes: [a]\noutputs: [x]\noutput: {kind: yolo}\n", "has no output 'x', only cls_8"),
        (YUNET, "classes: [a]\noutput: {kind: yollo}\n", "yollo"),
        (YUNET, "output: {kind: yunet}\n", "classes"),
        (FASTESTDET, "classes: [a]\ninput: {size: [320, 320]}\noutput: {kind: fastestdet}\n", r"takes \[352, 352\]"),
        (
            FASTESTDET,
            "classes: [a]\noutput: {kind: fastestdet}\ninference: {window_px: 512}\n",
            "inference.window_px is 512, but the input of .* set it to 352 or less",
        ),
    ],
)
def test_a_form_that_does_not_fit_is_refused(weights: Path, tmp_path: Path, file: str, text: str, message: str) -> None:
    form = tmp_path / "form.yaml"
    form.write_text(text)
    with pytest.raises(RecipeError, match=message) as error:
        load_model(weights / file, form=form)
    assert str(form) in str(error.value)


def test_a_class_count_that_disagrees_is_told_when_it_shows(weights: Path, tmp_path: Path) -> None:
    form = tmp_path / "form.yaml"
    form.write_text("classes: [a, b]\noutput: {kind: fastestdet}\n")
    with pytest.raises(RecipeError, match=facts("form.yaml", "output (1, 85, 22, 22)", "80 class", "2 classes")):
        load_model(weights / FASTESTDET, form=form).detect(np.zeros((40, 60, 3), np.uint8))


def test_no_such_form_and_a_form_for_a_checkpoint(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=facts("form yolo", "YAML file", "shipped forms")):
        load_model(weights / YUNET, form="yolo")
    checkpoint = tmp_path / "best.safetensors"
    checkpoint.touch()
    with pytest.raises(RecipeError, match="is no ONNX file, and only these have a form"):
        load_model(checkpoint, form="yunet")
    with pytest.raises(CheckpointError):
        load_model(tmp_path / "none.onnx")
