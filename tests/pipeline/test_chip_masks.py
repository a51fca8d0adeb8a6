"""Masks of chips lie on what was painted, through cutting, flips and turns, in a dataset and in files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_coco_eval.core import mask as coco_mask
from PIL import Image

from rectangle_set import make_set
from sniper.data.source import load_dataset
from sniper.errors import DataError
from sniper.pipeline.chip_dataset import ChipDataset
from sniper.pipeline.chip_export import export_chips
from sniper.recipe import Recipe

RED = (230, 20, 20)
LEVELS = {
    "levels": [{"scale": 2.0, "train_range_px": [0, 30]}, {"scale": 1.0, "train_range_px": [24, None]}],
    "chip_px": 96,
}
LIVELY = ["augment.horizontal_flip=0.5", "augment.vertical_flip=0.5", "augment.rotate90=0.5"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Red triangles on grey with their outlines; the first has a run-length mask."""
    folder = tmp_path_factory.mktemp("triangles")
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(3):
        pixels = np.full((150, 200, 3), 120, np.uint8)
        for place in range(4):
            x, y, side = 50 * place + int(rng.integers(3, 8)), int(rng.integers(0, 100)), int(rng.integers(14, 40))
            ring = [x, y, x + side, y, x, y + side]
            shape: Any = [ring]
            drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(shape, 150, 200))).astype(bool)
            pixels[drawn] = RED
            if not annotations:
                counts = coco_mask.encode(np.asfortranarray(drawn.astype(np.uint8)))["counts"]
                shape = {"size": [150, 200], "counts": counts.decode() if isinstance(counts, bytes) else counts}
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "bbox": [x, y, side, side],
                 "area": side * side / 2, "iscrowd": 0, "segmentation": shape}
            )  # fmt: skip
        Image.fromarray(pixels).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 200, "height": 150})
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "triangle"}]}
    (folder / "train.json").write_text(json.dumps(document))
    return folder / "train.json"


def _overlap(mask: np.ndarray, red: np.ndarray, box: np.ndarray) -> float:
    """IoU of a mask with what is red in the box of its object."""
    x1, y1, x2, y2 = np.round(box).astype(int)
    inside = np.zeros_like(red)
    inside[y1:y2, x1:x2] = True
    red, mask = red & inside, mask.astype(bool)
    return float((mask & red).sum() / max((mask | red).sum(), 1))


def _red(pixels: np.ndarray) -> np.ndarray:
    """(H, W) of an (H, W, 3) picture."""
    return np.asarray((pixels[..., 0].astype(int) - pixels[..., 1]) > 80)


def test_a_dataset_turns_masks_with_their_pixels(data: Path) -> None:
    chips = ChipDataset(data, LEVELS, overrides=LIVELY, masks=True)
    overlaps = []
    for image, target in (chips[row] for row in range(len(chips))):
        red = _red((image.numpy() * 255).transpose(1, 2, 0))
        assert target["masks"].shape == (len(target["boxes"]), 96, 96)
        overlaps += [
            _overlap(mask, red, box) for mask, box in zip(target["masks"].numpy(), target["boxes"].numpy(), strict=True)
        ]
    assert len(overlaps) >= 10
    assert min(overlaps) > 0.75
    with_runs = [chips[row][1]["ignored"] for row in range(len(chips)) if chips.chips.image_index[row] == 0]
    assert sum(map(len, with_runs)) > 0, "an object without an outline is ignored"


def test_the_form_of_coco_has_polygons_of_what_is_learned(data: Path) -> None:
    chips = ChipDataset(data, LEVELS, overrides=LIVELY, form="coco", masks=True)
    learned = [one for row in range(len(chips)) for one in chips[row][1]["annotations"] if not one["iscrowd"]]
    assert learned
    for one in learned:
        points = np.concatenate([np.asarray(ring).reshape(-1, 2) for ring in one["segmentation"]])
        x, y, width, height = one["bbox"]
        np.testing.assert_allclose(points.min(axis=0), [x, y], atol=1e-3)
        np.testing.assert_allclose(points.max(axis=0), [x + width, y + height], atol=1e-3)


def test_files_of_coco_hold_outlines_and_run_lengths(data: Path, tmp_path: Path) -> None:
    recipe = Recipe.parse({"pyramid": LEVELS}).changed(["loader.workers=0"])
    done = export_chips(data, to="coco", output=tmp_path / "chips", recipe=recipe, masks=True, lossless=True)
    document = json.loads(done.data.read_text())
    pictures = {one["id"]: _red(np.asarray(Image.open(done.folder / one["file_name"]))) for one in document["images"]}
    runs, overlaps = 0, []
    for one in document["annotations"]:
        shape = one["segmentation"]
        runs += isinstance(shape, dict)
        packed = shape if isinstance(shape, dict) else coco_mask.merge(coco_mask.frPyObjects(shape, 96, 96))
        x, y, width, height = one["bbox"]
        if not one["iscrowd"]:
            red = pictures[one["image_id"]]
            overlaps.append(_overlap(coco_mask.decode(packed), red, np.array([x, y, x + width, y + height])))
    assert runs > 0
    assert len(overlaps) >= 10
    assert min(overlaps) > 0.7
    assert load_dataset(done.data).masks is not None
    without = export_chips(data, to="coco", output=tmp_path / "boxes", recipe=recipe)
    assert "segmentation" not in json.loads(without.data.read_text())["annotations"][0]


def test_labels_of_yolo_are_outlines(data: Path, tmp_path: Path) -> None:
    recipe = Recipe.parse({"pyramid": LEVELS}).changed(["loader.workers=0"])
    done = export_chips(data, to="yolo", output=tmp_path / "chips", recipe=recipe, masks=True)
    lines = [line.split() for path in (done.folder / "labels").rglob("*.txt") for line in path.read_text().splitlines()]
    assert len(lines) == done.objects["train"]
    assert all(len(line) >= 7 for line in lines)
    assert all(0 <= float(value) <= 1 for line in lines for value in line[1:])


def test_data_without_masks_are_refused(tmp_path: Path) -> None:
    boxes = make_set(tmp_path / "set")
    with pytest.raises(DataError, match="have no masks"):
        ChipDataset(boxes, LEVELS, masks=True)
    with pytest.raises(DataError, match="have no masks"):
        export_chips(boxes, to="coco", output=tmp_path / "chips", masks=True)
    assert not (tmp_path / "chips").exists()
