"""12-bit data in 16-bit files: training, evaluation and prediction see what they see of the same data in 8 bits."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trained_run import Trained

import sniper
from devices import DEVICE
from rectangle_set import TINY
from sniper.pipeline.model import load_model
from sniper.recipe import Recipe
from sniper.training.run import RunFolder

TOLD = "values from 0 to 4095 become 0 to 255"


@pytest.fixture(scope="module")
def grey(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The evaluation data in grey, with 8 bits, and with 12 in files of 16."""
    folder = tmp_path_factory.mktemp("grey")
    for name in ("eight", "twelve"):
        shutil.copytree(trained.val_json.parent, folder / name)
        for file in (folder / name / "images").iterdir():
            pixels = np.array(Image.open(file).convert("L"))
            pixels[0, 0], pixels[0, 1] = 0, 255
            made = Image.fromarray(pixels if name == "eight" else pixels.astype(np.uint16) * 16)
            made.save(file)
    return folder / "eight" / trained.val_json.name, folder / "twelve" / trained.val_json.name


def test_a_checkpoint_finds_the_same_in_twelve_bits(
    trained: Trained, grey: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = load_model(trained.run.folder, device=DEVICE)
    eight, twelve = (sniper.evaluate(model, data).detections for data in grey)
    assert eight.num_objects
    np.testing.assert_array_equal(eight.boxes_xyxy, twelve.boxes_xyxy)
    np.testing.assert_array_equal(eight.scores, twelve.scores)
    assert TOLD in caplog.text
    folders = [str(data.parent / "images") for data in grey]
    for number, folder in enumerate(folders):
        sniper.predict(model, folder, output=tmp_path / str(number), min_score=0.0)
    found = [json.loads((tmp_path / str(number) / "predictions.json").read_text()) for number in range(2)]
    assert [one["detections"] for one in found[0]] == [one["detections"] for one in found[1]]
    image = sorted((grey[0].parent / "images").iterdir())[0]
    for one, other in zip(*(model.detect([Path(f) / image.name], min_score=0) for f in folders), strict=True):
        np.testing.assert_array_equal(one.scores, other.scores)


def test_training_finds_the_range_and_keeps_it(
    grey: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runs = []
    for data in grey:
        caplog.clear()
        runs.append(
            sniper.train("mobilenetv2", overrides=[*TINY, "train.steps=1"], data=data, root=tmp_path / data.parent.name)
        )
    assert TOLD in caplog.text
    eight, twelve = (load_model(run.checkpoint, device="cpu") for run in runs)
    assert eight.recipe.data.value_range == "auto"
    assert twelve.recipe.data.value_range == (0, 4095)
    assert Recipe.load(runs[1].folder / "recipe.yaml").data.value_range == (0, 4095)
    losses = [RunFolder(run.folder).read_metrics()[-1]["loss"] for run in runs]
    assert losses[0] == losses[1], "the same chips"
    caplog.clear()
    sniper.evaluate(twelve, grey[1])
    assert not caplog.text, "known already"
