"""Masks of detections: pasted exactly, encoded as COCO's tools do, the same for a batch as for single images."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from faster_coco_eval.core import mask as coco_mask
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as pycoco_mask
from rectangles import RectangleFinder, draw, run

from sniper.data.run_lengths import RunLengths
from sniper.detectors.original.network import OriginalConfig, build_original
from sniper.detectors.protocol import MaskDetector, Outputs
from sniper.detectors.sniper.config import SniperConfig
from sniper.detectors.sniper.network import build_sniper
from sniper.inference.config import InferenceConfig, MergeConfig
from sniper.inference.images import ImageInput
from sniper.inference.masks import encode_masks
from sniper.pyramid import Level, Pyramid

PYRAMID = Pyramid(
    levels=(
        Level(scale=2.0, train_range_px=(0, 40), infer_range_px=(0, 45)),
        Level(scale=1.0, train_range_px=(30, None), infer_range_px=(25, None)),
    ),
    chip_px=512,
)


def pasted(grid, box, size_wh):
    """The same by NumPy, as a picture."""
    (width, height), cells = size_wh, len(grid)
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    u = np.clip((x - box[0]) / (box[2] - box[0]) * cells - 0.5, 0, cells - 1)
    v = np.clip((y - box[1]) / (box[3] - box[1]) * cells - 0.5, 0, cells - 1)
    i, j = np.minimum(u.astype(int), cells - 2), np.minimum(v.astype(int), cells - 2)
    a, b = u - i, (v - j)[:, None]
    rows = grid[:, i] * (1 - a) + grid[:, i + 1] * a
    value = rows[j] * (1 - b) + rows[j + 1] * b
    inside = ((y >= box[1]) & (y < box[3]))[:, None] & (x >= box[0]) & (x < box[2])
    return value, inside


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 70), st.integers(1, 70), st.integers(2, 28), st.booleans())
def test_run_lengths_hold_the_pasted_grids(seed, width, height, cells, coarse):
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, 1, (5, 2, 2)), axis=1) * [width, height]
    if coarse:
        corners = np.round(corners)
    corners[:, 1] = np.maximum(corners[:, 1], corners[:, 0] + 1e-3)
    corners[0] = [[0, 0], [width, height]]
    boxes = corners.reshape(-1, 4)
    grids = rng.uniform(0, 1, (5, cells, cells)).astype(np.float32)
    grids[1:3] = [[[1.0]], [[0.0]]]
    runs = encode_masks(grids, boxes, (width, height))
    for grid, box, rle in zip(grids, boxes, runs, strict=True):
        decoded = pycoco_mask.decode(rle)
        np.testing.assert_array_equal(decoded, coco_mask.decode(rle))
        value, inside = pasted(grid, box, (width, height))
        clear = ~inside | (np.abs(value - 0.5) > 1e-5)
        np.testing.assert_array_equal(decoded[clear], (inside & (value >= 0.5))[clear])
        assert pycoco_mask.encode(np.asfortranarray(decoded))["counts"].decode() == rle["counts"]


def test_nothing_and_large_boxes():
    assert len(encode_masks(np.zeros((0, 28, 28), np.float32), np.zeros((0, 4)), (10, 10))) == 0
    rng = np.random.default_rng(0)
    noise = rng.uniform(0, 1, (3, 28, 28)).astype(np.float32)
    noise[1] = 0.5  # exactly on the edge everywhere
    runs = encode_masks(noise, np.tile([[3.2, 4.1, 1990.0, 1490.5]], (3, 1)), (2000, 1500))
    assert pycoco_mask.area(runs[1]) == pytest.approx(1987 * 1486, rel=1e-3)
    joined = RunLengths.join([runs.take(np.asarray([2])), RunLengths.join([]), runs])
    assert [one["counts"] for one in joined] == [runs[k]["counts"] for k in (2, 0, 1, 2)]


class EllipseFinder(RectangleFinder):
    """Finds rectangles; says that an ellipse fills each, in the colour of its pixels' brightness at the middle."""

    predicts_masks = True

    def outputs(self, images, *, features=False, **others):
        return Outputs(self.detect(images), features=list(images.pixels) if features else None)

    def predict_masks(self, maps, boxes, labels):
        middle = ((boxes[:, :2] + boxes[:, 2:]) / 2).long()
        right = maps[labels, middle[:, 1], middle[:, 0]] > 0.5  # of the padded input it was found on
        axis = (torch.arange(28) + 0.5) / 14 - 1
        ellipse = (1.5 - axis[:, None] ** 2 - axis**2).clamp(0, 1)
        return ellipse * right[:, None, None]


def pictures():
    boxes = [
        np.array([[10, 12, 40, 60], [100, 20, 220, 140]]),
        np.zeros((0, 4), int),
        np.array([[300, 5, 330, 35], [2, 2, 90, 90]]),
    ]
    return [ImageInput(k, draw((400, 200), own, np.arange(len(own)))) for k, own in enumerate(boxes)]


def test_masks_come_from_the_window_of_each_detection():
    config = InferenceConfig(window_px=256, overlap=0.3, merge=MergeConfig(method="hard"))
    together = run(EllipseFinder(), pictures(), PYRAMID, config)
    alone = [run(EllipseFinder(), [one], PYRAMID, config)[0] for one in pictures()]
    without = run(RectangleFinder(), pictures(), PYRAMID, config)
    assert [len(one.scores) for one in together] == [2, 0, 2]
    for one, single, plain in zip(together, alone, without, strict=True):
        assert plain.masks is None
        assert len(one.masks) == len(one.scores)
        np.testing.assert_array_equal(one.boxes_xyxy, plain.boxes_xyxy)
        assert list(one.masks) == list(single.masks)
        for box, rle in zip(one.boxes_xyxy, one.masks, strict=True):
            assert rle["size"] == [200, 400]
            area = (box[2] - box[0]) * (box[3] - box[1])
            assert pycoco_mask.area(rle) == pytest.approx(np.pi / 4 * area, rel=0.04)
            x, y, w, h = pycoco_mask.toBbox(rle)
            np.testing.assert_allclose([x, y, x + w, y + h], box, atol=1.5)


TINY = {
    "backbone": "timm/test_resnet",
    "weights": None,
    "channels": 32,
    "rpn_channels": 32,
    "head_channels": 16,
    "head_width": 64,
}


def tiny(**more):
    torch.manual_seed(0)
    return build_sniper(SniperConfig(**TINY, score_threshold=0.0, **more), 3).eval()


def test_a_mask_branch_changes_no_detection():
    config = InferenceConfig()
    plain = run(tiny(), pictures()[:1], PYRAMID, config)[0]
    masked = run(tiny(masks=True, mask_channels=16), pictures()[:1], PYRAMID, config)[0]
    assert not tiny().predicts_masks
    assert isinstance(tiny(), MaskDetector)
    assert plain.masks is None
    assert len(masked.masks) == len(masked.scores) > 0
    for name in ("boxes_xyxy", "scores", "labels", "levels"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(masked, name))


def test_the_original_predicts_masks():
    torch.manual_seed(0)
    detector = build_original(OriginalConfig(network="sniper_mobilenetv2", masks=True), 3).eval()
    pyramid = PYRAMID.model_copy(update={"levels": PYRAMID.levels[1:]})
    picture = replace(pictures()[0], pixels=pictures()[0].pixels[:128, :160])
    merge = InferenceConfig().merge.model_copy(update={"max_per_image": 12})
    found = run(detector, [picture], pyramid, InferenceConfig(merge=merge))[0]
    assert len(found.masks) == len(found.scores) == 12
    assert json.loads(json.dumps(found.masks[0]))["size"] == [128, 160]
