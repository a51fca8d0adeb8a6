"""A dataset of coloured rectangles on noise in every form, and settings that train on it within seconds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from devices import TRAIN_DEVICE

SIZE = 160, 120
CLASSES = ("blue", "green", "red")
COLOURS = {"blue": (30, 60, 255), "green": (20, 220, 40), "red": (255, 30, 20)}

TINY = [
    "model.backbone=timm/test_resnet",
    "model.weights=null",
    "model.channels=16",
    "model.rpn_channels=16",
    "model.head_channels=8",
    "model.head_width=16",
    "model.score_threshold=0.0",
    "model.max_detections=20",
    "pyramid.chip_px=128",
    "loader.batch_size=2",
    "loader.workers=0",
    f"train.device={TRAIN_DEVICE}",
    "train.steps=4",
    "train.log_every=1",
    "train.tensorboard=false",
]

Object = tuple[str, tuple[int, int, int, int]]  # class name, xyxy


def make_set(
    folder: Path,
    form: Literal["coco", "yolo", "voc"] = "coco",
    *,
    images: int = 6,
    classes: Sequence[str] = CLASSES,
    seed: int = 0,
) -> Path:
    """Write images (the last one without objects) and their annotations; returns what ``load_dataset`` takes."""
    random = np.random.default_rng(seed)
    inner = {"coco": "images", "yolo": "images", "voc": "JPEGImages"}[form]
    (folder / inner).mkdir(parents=True)
    objects: dict[str, list[Object]] = {}
    for number in range(images):
        pixels = random.integers(90, 160, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
        found: list[Object] = []
        for place in range(4 if number < images - 1 else 0):
            x, y = 40 * place + int(random.integers(0, 10)), int(random.integers(0, 80))
            width, height = (int(side) for side in random.integers(10, 28, 2))
            # The first image has every class, so that a set's classes do not depend on chance.
            name = classes[place % len(classes)] if number == 0 else str(random.choice(list(classes)))
            pixels[y : y + height, x : x + width] = COLOURS[name]
            found.append((name, (x, y, x + width, y + height)))
        Image.fromarray(pixels).save(folder / inner / f"{number}.png")
        objects[f"{number}.png"] = found
    return {"coco": _coco, "yolo": _yolo, "voc": _voc}[form](folder, objects, classes)


def coco_document(objects: dict[str, list[Object]], classes: Sequence[str]) -> dict:
    """The content of a COCO file; class ids 10, 20, ..., image ids from 100."""
    return {
        "images": [
            {"id": 100 + k, "file_name": name, "width": SIZE[0], "height": SIZE[1]} for k, name in enumerate(objects)
        ],
        "categories": [{"id": 10 * (k + 1), "name": name} for k, name in enumerate(classes)],
        "annotations": [
            {
                "id": 1000 * k + n,
                "image_id": 100 + k,
                "category_id": 10 * (list(classes).index(label) + 1),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
            }
            for k, found in enumerate(objects.values())
            for n, (label, (x1, y1, x2, y2)) in enumerate(found, 1)
        ],
    }


def _coco(folder: Path, objects: dict[str, list[Object]], classes: Sequence[str]) -> Path:
    (folder / "set.json").write_text(json.dumps(coco_document(objects, classes)))
    return folder / "set.json"


def _yolo(folder: Path, objects: dict[str, list[Object]], classes: Sequence[str]) -> Path:
    (folder / "labels").mkdir()
    for name, found in objects.items():
        lines = [
            f"{list(classes).index(label)} {(x1 + x2) / 2 / SIZE[0]} {(y1 + y2) / 2 / SIZE[1]} "
            f"{(x2 - x1) / SIZE[0]} {(y2 - y1) / SIZE[1]}\n"
            for label, (x1, y1, x2, y2) in found
        ]
        (folder / "labels" / name).with_suffix(".txt").write_text("".join(lines))
    (folder / "data.yaml").write_text(f"train: images\nval: images\nnames: {list(classes)}\n")
    return folder / "data.yaml"


def _voc(folder: Path, objects: dict[str, list[Object]], classes: Sequence[str]) -> Path:
    (folder / "Annotations").mkdir()
    for name, found in objects.items():
        entries = "".join(
            f"<object><name>{label}</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
            f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for label, (x1, y1, x2, y2) in found
        )
        size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth></size>"
        page = f"<annotation><filename>{name}</filename>{size}{entries}</annotation>"
        (folder / "Annotations" / name).with_suffix(".xml").write_text(page)
    return folder
