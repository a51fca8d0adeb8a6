"""From files to COCO numbers: a tiny detector must learn, and its boxes must lie where the objects are.

Nothing is measured in parts here. Whatever shifts or scales boxes or pixels between the image file and the COCO numbers
(mining, loader, targets, decoding, windows, merging) lowers AP50 or shows as a mean offset of the boxes found.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import sniper
from devices import DEVICE, TRAIN_DEVICE
from sniper.boxes import iou, sqrt_area
from sniper.pipeline.evaluate import Evaluation

SIZE_WH = 320, 240
COLOURS = {"red": (230, 40, 30), "blue": (40, 70, 235)}
SIZES_PX = (50, 110), (50, 110), *[(8, 20)] * 6  # least and largest sqrt(area) of each object of an image

SETTINGS = [
    "model.backbone=timm/test_resnet",
    "model.weights=null",
    "model.feature_levels=1",
    "model.dilation=stop",
    "model.channels=32",
    "model.rpn_channels=32",
    "model.head_channels=16",
    "model.head_width=64",
    "model.anchors.scales=[1,2,4,7]",
    "model.proposals.keep=100",
    "model.rois.per_chip=64",
    "pyramid.chip_px=128",
    "loader.batch_size=6",
    "loader.workers=0",
    f"train.device={TRAIN_DEVICE}",
    "train.steps=120",
    "train.learning_rate=0.004",
    "train.evaluate_every=null",
    "train.tensorboard=false",
    "inference.window_px=512",
]

# Seeds 0 to 2 give AP50 0.77 to 0.79 and a drift of 0.03. Objects 8 network px off in training leave AP50 at 0.76, for
# the detector learns the offset, but show as a drift of 0.15.
MIN_AP50 = 0.5
MAX_DRIFT = 0.08  # of an object's side


def make_set(folder: Path, images: int, seed: int) -> Path:
    """Large and small rectangles, apart from each other, on textured noise; the COCO file written."""
    random = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    annotations: list[dict] = []
    for number in range(images):
        pixels, taken = _background(random), np.zeros((0, 4))
        for low, high in SIZES_PX:
            box = _free_place(random, random.uniform(low, high), taken)
            if box is None:
                continue
            taken = np.concatenate([taken, box[None]])
            label = int(random.integers(len(COLOURS)))
            x1, y1, x2, y2 = box.tolist()
            noise = random.integers(-15, 16, (y2 - y1, x2 - x1, 3))
            pixels[y1:y2, x1:x2] = np.clip(list(COLOURS.values())[label] + noise, 0, 255)
            place = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
            annotations.append(
                place | {"id": len(annotations) + 1, "image_id": number + 1, "category_id": label + 1}
            )  # fmt: skip
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    size = {"width": SIZE_WH[0], "height": SIZE_WH[1]}
    document = {
        "images": [size | {"id": k + 1, "file_name": f"{k}.png"} for k in range(images)],
        "annotations": annotations,
        "categories": [{"id": k, "name": name} for k, name in enumerate(COLOURS, 1)],
    }
    (folder / "set.json").write_text(json.dumps(document))
    return folder / "set.json"


def _background(random: np.random.Generator) -> NDArray[np.uint8]:
    width, height = SIZE_WH
    coarse = random.integers(70, 180, (height // 20, width // 20, 3)).repeat(20, axis=0).repeat(20, axis=1)
    return ((coarse + random.integers(60, 190, coarse.shape)) // 2).astype(np.uint8)


def _free_place(random: np.random.Generator, size: float, taken: NDArray) -> NDArray[np.int64] | None:
    """An xyxy box of that sqrt(area) at least 4 px from those taken; None where a few tries find none."""
    stretch = np.exp(random.uniform(-0.2, 0.2))
    wh = np.round([size * stretch, size / stretch]).astype(int)
    for _ in range(50):
        corner = random.integers(0, np.asarray(SIZE_WH) - wh)
        box = np.concatenate([corner, corner + wh])
        apart = (taken[:, :2] >= box[2:] + 4).any(axis=1) | (taken[:, 2:] <= box[:2] - 4).any(axis=1)
        if apart.all():
            return box
    return None


class Drift(NamedTuple):
    """Mean difference of found and true corners, shares of an object's side: x1 y1 x2 y2."""

    small: NDArray[np.float64]
    large: NDArray[np.float64]

    @property
    def largest(self) -> float:
        return float(np.abs([self.small, self.large]).max())


def drift_of(done: Evaluation, path: Path) -> Drift:
    """Of the surest box on every object: its centre is nearer to the object's than half a side."""
    table, apart, sizes = sniper.load_dataset(path), [], []
    for image in range(len(table)):
        own, found = table.objects(image), done.detections.objects(image)
        truth, boxes = table.boxes_xyxy[own], done.detections.boxes_xyxy[found]
        scores = np.where(iou(truth, boxes) > 0.2, done.detections.scores[found], 0)
        scores *= table.labels[own][:, None] == done.detections.labels[found]
        best = scores.argmax(axis=1)
        sure = np.flatnonzero(scores.max(axis=1) > 0.3)
        side = np.tile(truth[sure, 2:] - truth[sure, :2], 2)
        apart.append((boxes[best[sure]] - truth[sure]) / side)
        sizes.append(sqrt_area(truth[sure]))
    differences, small = np.concatenate(apart), np.concatenate(sizes) < 32
    return Drift(differences[small].mean(axis=0), differences[~small].mean(axis=0))


def train_and_evaluate(folder: Path, seed: int = 0) -> tuple[Evaluation, Drift]:
    """Files, chips, training, weights, inference over the pyramid, COCO numbers."""
    train_json, val_json = make_set(folder / "train", 24, seed=100 + seed), make_set(folder / "val", 6, seed=200 + seed)
    overrides = [*SETTINGS, f"data.train={train_json}", f"train.seed={seed}"]
    run = sniper.train("mobilenetv2", overrides=overrides, root=folder / "runs")
    assert len(run.recipe.pyramid.levels) >= 2, "one level alone would not show a wrong scale"
    done = sniper.evaluate(run.checkpoint, val_json, device=DEVICE)
    return done, drift_of(done, val_json)


@pytest.mark.slow
def test_ap50_and_drift_of_a_tiny_detector(tmp_path: Path) -> None:
    done, drift = train_and_evaluate(tmp_path)
    assert done.result.ap50 >= MIN_AP50, f"AP50 {done.result.ap50:.3f}; drift {drift}"
    assert drift.largest <= MAX_DRIFT, f"boxes lie beside the objects: {drift}; AP50 {done.result.ap50:.3f}"
