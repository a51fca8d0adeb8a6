"""Masks end to end: trained, evaluated, predicted, drawn."""

import csv
import json

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from devices import DEVICE
from rectangle_set import TINY, make_set
from sniper.errors import RecipeError
from sniper.pipeline.evaluate import evaluate
from sniper.pipeline.predict import predict
from sniper.pipeline.train import train

MASKS = [*TINY, "model.masks=true", "model.mask_channels=8", "model.mask_convs=1", "train.steps=2"]


def outlined(path):
    """The set, with the boxes' rectangles as masks."""
    document = json.loads(path.read_text())
    for entry in document["annotations"]:
        x, y, w, h = entry["bbox"]
        entry["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    path.write_text(json.dumps(document))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masks")
    train_json = outlined(make_set(folder / "train"))
    val_json = outlined(make_set(folder / "val", images=3, seed=1))
    overrides = [*MASKS, f"data.train={train_json}", f"data.evaluate={val_json}"]
    return train("mobilenetv2", overrides=overrides, root=folder / "runs"), val_json


def test_masks_are_learned_and_measured(run, tmp_path):
    done, val_json = run
    assert done.evaluation.masks is not None
    with (done.folder / "metrics.csv").open(newline="") as file:
        names = next(csv.reader(file))
    assert "loss/mask" in names
    assert any("segm_AP50" in name for name in names)
    again = evaluate(done.folder, val_json, output=tmp_path, device=DEVICE)
    numbers = json.loads((tmp_path / "metrics.json").read_text())
    assert numbers["segm_AP"] == again.masks.ap == done.evaluation.masks.ap
    results = json.loads((tmp_path / "predictions.json").read_text())
    assert results
    assert all(entry["segmentation"]["size"] == [120, 160] for entry in results)
    assert len(COCO(str(val_json)).loadRes(str(tmp_path / "predictions.json")).anns) == len(results)


def test_masks_are_predicted_and_drawn(run, tmp_path):
    done, val_json = run
    image = val_json.parent / "images" / "0.png"
    found = predict(done.folder, [image], output=tmp_path, min_score=0, draw_min_score=0, device=DEVICE)
    entries = json.loads((tmp_path / "predictions.json").read_text())[0]["detections"]
    assert len(entries) == len(found.items[0].scores) > 0
    for entry in entries:
        decoded = coco_mask.decode(entry["segmentation"])
        x, y, w, h = entry["bbox"]
        rows, columns = np.nonzero(decoded)
        assert decoded.shape == (120, 160)
        assert (columns + 0.5 >= x - 0.01).all()
        assert (columns + 0.5 <= x + w + 0.01).all()
        assert (rows + 0.5 >= y - 0.01).all()
        assert (rows + 0.5 <= y + h + 0.01).all()
    drawn = cv2.imread(str(tmp_path / "0.jpg"))
    assert drawn.shape == (120, 160, 3)


def test_data_without_masks_are_refused(tmp_path):
    overrides = [*MASKS, f"data.train={make_set(tmp_path / 'train')}"]
    with pytest.raises(RecipeError, match="have no masks"):
        train("mobilenetv2", overrides=overrides, root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
