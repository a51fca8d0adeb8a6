"""Files of OpenImages' official form and size, made by chance, for ``openimages.py``.

The counts are those of the training part of V6: 1,743,042 images, 14,610,229 boxes of 601 classes, 8,900,000 verified
image-level labels; the box file has all 21 columns. Image files are hard links to a few JPEG files of usual sizes.
"""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray
from PIL import Image

IMAGES, BOXES, LABELS, CLASSES = 1_743_042, 14_610_229, 8_900_000, 601
SIZES = ((1024, 768), (1024, 683), (768, 1024), (1024, 1024), (683, 1024), (1024, 576))
_LINKS = 50_000  # of one file; ext4 allows 65,000
_CLICKS = [f"XClick{k}{axis}" for axis in "XY" for k in (1, 2, 3, 4)]


def make_dataset(folder: Path, images: int, boxes: int, labels: int, seed: int = 0) -> None:
    """Write the four files, and an image file for every image."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    ids = np.sort(np.unique(rng.integers(0, 2**63, images + images // 100, dtype=np.uint64))[:images])
    names = np.array([f"{number:016x}" for number in ids.tolist()])
    mids = [f"/m/{number:05x}" for number in range(CLASSES)]
    descriptions = "".join(f"{mid},Class {number}\n" for number, mid in enumerate(mids))
    (folder / "class-descriptions-boxable.csv").write_text(descriptions)
    kinds = [{"LabelName": mid, "Subcategory": [{"LabelName": f"/m/{k:05x}"} for k in range(20 * n, 20 * n + 12)]}
             for n, mid in enumerate(f"/m/{600 - n:05x}" for n in range(29))]  # fmt: skip
    (folder / "bbox_labels_600_hierarchy.json").write_text(json.dumps({"LabelName": "/m/0bl9f", "Subcategory": kinds}))
    often = 1 / np.arange(1, CLASSES + 1) ** 1.1  # the commonest class has about a fifth of all boxes
    often /= often.sum()
    _write_boxes(folder / "train-annotations-bbox.csv", names, mids, often, boxes, rng)
    _write_labels(folder / "train-annotations-human-imagelabels-boxable.csv", names, mids, often, labels, rng)
    _link_images(folder, names.tolist())


def _write_boxes(
    file: Path, names: NDArray[np.str_], mids: list[str], often: NDArray[np.float64], boxes: int,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    image = np.sort(np.concatenate([np.arange(len(names)), rng.integers(0, len(names), boxes - len(names))]))
    with pa.csv.CSVWriter(file, _schema(), write_options=pa.csv.WriteOptions(quoting_style="none")) as writer:
        for start in range(0, boxes, 500_000):
            rows = image[start : start + 500_000]
            count = len(rows)
            side = np.minimum(np.exp(rng.normal(-1.8, 1.0, (count, 2))), 0.999)
            corner = rng.random((count, 2)) * (1 - side)
            corners = np.round(np.concatenate([corner, corner + side], axis=1), 6)
            flags = (rng.random((count, 5)) < (0.5, 0.3, 0.06, 0.05, 0.002)).astype(np.int8)
            clicks = np.round(corners[:, [0, 0, 2, 2, 1, 1, 3, 3]], 6)
            columns = [
                names[rows], np.full(count, "xclick"), np.array(mids)[rng.choice(CLASSES, count, p=often)],
                np.ones(count, np.int8), *corners[:, [0, 2, 1, 3]].T, *flags.T, *clicks.T,
            ]  # fmt: skip
            writer.write_batch(pa.record_batch([pa.array(c) for c in columns], schema=_schema()))


def _schema() -> pa.Schema:
    texts = {"ImageID": pa.string(), "Source": pa.string(), "LabelName": pa.string(), "Confidence": pa.int8()}
    corners = dict.fromkeys(("XMin", "XMax", "YMin", "YMax"), pa.float64())
    flags = dict.fromkeys(("IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside"), pa.int8())
    return pa.schema(list((texts | corners | flags | dict.fromkeys(_CLICKS, pa.float64())).items()))


def _write_labels(
    file: Path, names: NDArray[np.str_], mids: list[str], often: NDArray[np.float64], labels: int,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    rows = np.sort(rng.integers(0, len(names), labels))
    columns = {
        "ImageID": names[rows],
        "Source": np.full(labels, "verification"),
        "LabelName": np.array(mids)[rng.choice(CLASSES, labels, p=often)],
        "Confidence": (rng.random(labels) < 0.5).astype(np.int8),
    }
    pa.csv.write_csv(pa.table(columns), file, write_options=pa.csv.WriteOptions(quoting_style="none"))


def _link_images(folder: Path, names: list[str]) -> None:
    (folder / "train").mkdir(exist_ok=True)
    photos = folder / "photos"
    photos.mkdir(exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (1024, 1024, 3), np.uint8)
    for number, name in enumerate(names):
        photo = photos / f"{number // _LINKS}_{number % len(SIZES)}.jpg"
        if number % _LINKS < len(SIZES):
            width, height = SIZES[number % len(SIZES)]
            Image.fromarray(pixels[:height, :width]).resize((width, height)).save(photo, quality=50)
        os.link(photo, folder / "train" / f"{name}.jpg")
