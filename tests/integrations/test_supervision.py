"""Our detections as supervision's; these tests need it, and skip without."""

from pathlib import Path

import numpy as np
import pytest
from faster_coco_eval.core import mask as coco_mask

import sniper
from facts import facts
from rectangle_set import CLASSES
from sniper.data.columns import PackedStrings
from sniper.data.run_lengths import RunLengths
from sniper.errors import RecipeError
from sniper.pipeline.prediction import Prediction

sv = pytest.importorskip("supervision")


def test_predictions_of_a_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    image = next((checkpoint.parents[2] / "train" / "images").glob("*.png"))
    (item,) = sniper.predict(checkpoint, image, output=tmp_path / "found", min_score=0.0).items
    found = sniper.to_supervision(item)
    assert isinstance(found, sv.Detections)
    assert len(found) == len(item.scores) > 0
    np.testing.assert_array_equal(found.xyxy, item.boxes_xyxy)
    np.testing.assert_array_equal(found.confidence, item.scores)
    assert found["class_name"].tolist() == [CLASSES[label] for label in found.class_id]
    assert found.mask is None
    model = sniper.load_model(checkpoint)
    again = sniper.to_supervision(model.detect(image, min_score=0.0), model.class_names)
    np.testing.assert_array_equal(again.xyxy, found.xyxy)
    with pytest.raises(RecipeError, match=facts("class_names", "model.class_names")):
        sniper.to_supervision(model.detect(image))
    pixels = np.zeros((120, 160, 3), np.uint8)
    drawn = sv.BoxAnnotator().annotate(pixels.copy(), found[found.confidence >= np.median(found.confidence)])
    assert (drawn != pixels).any()


def test_masks_are_those_of_the_image_and_can_be_drawn() -> None:
    masks = np.zeros((3, 40, 60), np.uint8)
    boxes = np.asarray([[5, 6, 25, 30], [30.5, 2.25, 59, 38.5], [0, 0, 1, 1]], np.float32)
    masks[0, 6:30, 5:25], masks[1, 10:38, 31:50], masks[2, 0, 0] = 1, 1, 1
    masks[0, 10:20, 10:20] = 0
    counts = [coco_mask.encode(np.asfortranarray(mask))["counts"] for mask in masks]
    texts = [text.decode() if isinstance(text, bytes) else text for text in counts]
    run_lengths = RunLengths(PackedStrings.pack(texts), np.asarray([[40, 60]] * 3, np.int32))
    item = Prediction(
        Path("a.jpg"), None, boxes, np.asarray([0.9, 0.5, 0.1], np.float32), np.asarray([1, 0, 1], np.int32),
        ("car", "bus"), run_lengths,
    )  # fmt: skip
    found = sniper.to_supervision(item)
    assert found.mask.shape == (3, 40, 60)
    assert np.array_equal(np.asarray(found.mask), masks.astype(bool))
    assert found.area.tolist() == masks.sum(axis=(1, 2)).tolist()
    assert np.array_equal(np.asarray(found[found["class_name"] == "car"].mask), masks[[1]].astype(bool))
    drawn = sv.MaskAnnotator().annotate(np.zeros((40, 60, 3), np.uint8), found)
    assert np.array_equal(drawn.any(axis=2), masks.any(axis=0))


def test_nothing_found() -> None:
    nothing = Prediction(
        Path("a.jpg"), None, np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32), ("car",),
        RunLengths(PackedStrings.pack([]), np.zeros((0, 2), np.int32)),
    )  # fmt: skip
    found = sniper.to_supervision(nothing)
    assert len(found) == 0
    assert found.is_empty()
