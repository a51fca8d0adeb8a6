"""New classes from photos that show several kinds of things: eight classes of COCO that the detector never learned.

    python benchmarks/new_classes_scenes.py DATA CHECKPOINT --out scenes.json

``DATA`` is a folder with ``coco_subset``; ``CHECKPOINT`` learned what ``new_classes.py objects`` writes, in which boxes
of these classes are neither object nor ground. Photos of ``train2017`` are learned from, as they are; a photo is one of
the class of its largest such object. Looked for in all of ``val2017``, where nearly everything is something else.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from new_classes import (
    FOUND_IOU,
    HELD_OUT_COCO,
    WAYS,
    Learning,
    described,
    detections_through,
    head_of,
    opened,
    photo_of,
    spread,
)
from sniper.backends.new_classes import NewClassBackend
from sniper.boxes import area, iou
from sniper.data.source import load_dataset
from sniper.data.table import AnnotationTable
from sniper.evaluation.voc import VocProtocol
from sniper.inference.regions import RegionSource
from sniper.new_classes.examples import BACKGROUND, Examples
from sniper.pipeline.model import Model
from sniper.pipeline.photo_regions import describe_photos
from sniper.pipeline.region_store import RegionStore

SHOTS = (1, 5, 20)  # or as many as there are


def learning_photos(
    model: Model, source: RegionSource, table: AnnotationTable, store: RegionStore
) -> tuple[Learning, list[NDArray[np.float32]]]:
    """The photos with one of the classes, and all boxes of its class in each."""
    photos, largest, boxes = [], [], []
    for row in range(len(table)):
        objects = np.arange(len(table.labels))[table.objects(row)]
        objects = objects[~table.ignored[objects]]
        if not len(objects):
            continue
        first = objects[np.argmax(area(table.boxes_xyxy[objects]))]
        label = table.labels[first]
        photos.append(photo_of(table.image_path(row), table.class_names[label]))
        largest.append(table.boxes_xyxy[first])
        boxes.append(table.boxes_xyxy[objects[table.labels[objects] == label]])
    return described(model, source, photos, largest, store), boxes


def on_class(rows: NDArray[np.int64], examples: Examples, boxes: list[NDArray[np.float32]]) -> float:
    """Share of photos of which some learned region has an IoU of 0.5 and more with an object of the class."""
    right = []
    for place, row in enumerate(rows.tolist()):
        own = (examples.photos == place) & (examples.labels != BACKGROUND)
        right.append(bool((iou(examples.boxes[own], boxes[row]) >= FOUND_IOU).any()))
    return float(np.mean(right))


def found_share(model: Model, source: RegionSource, table: AnnotationTable, store: RegionStore) -> dict[str, float]:
    """Share of the objects to be found that some region has, and one of the first five."""
    photos = [photo_of(table.image_path(row), None) for row in range(len(table))]
    any_region, first_five = [], []
    for row, one in enumerate(describe_photos(model, source, photos, store=store)):
        objects = np.arange(len(table.labels))[table.objects(row)]
        overlap = iou(table.boxes_xyxy[objects[~table.ignored[objects]]], one.boxes[:-1]) >= FOUND_IOU
        any_region += overlap.any(axis=1).tolist()
        first_five += overlap[:, :5].any(axis=1).tolist()
    return {"objects": len(any_region), "region": float(np.mean(any_region)), "first_five": float(np.mean(first_five))}


def measure(data: Path, checkpoint: Path, out: Path, features: str, weights: str | None) -> None:
    """All ways and numbers of photos; written after each."""
    model, store, source, told = opened(checkpoint, out, features, weights)
    folder, names = data / "coco_subset", sorted(HELD_OUT_COCO)
    tables = [
        load_dataset(folder / f"annotations/instances_{split}2017.json", image_root=folder / f"{split}2017")
        for split in ("train", "val")
    ]
    train, val = (
        table.without_objects(np.flatnonzero(~np.isin(table.labels, [table.class_names.index(name) for name in names])))
        for table in tables
    )
    learning, boxes = learning_photos(model, source, train, store)
    of_class = {name: [k for k, one in enumerate(learning.photos) if one.class_name == name] for name in names}
    result: dict[str, Any] = {
        "features": source.name,
        "photos": {name: len(rows) for name, rows in of_class.items()},
        "found": found_share(model, source, val, store),
        "rows": [],
    }
    print(json.dumps(result), flush=True)
    for shots in SHOTS:
        some = np.array([k for name in names for k in spread(of_class[name], min(shots, len(of_class[name])))])
        for way in WAYS:
            head = head_of(learning, some, names, way, told)
            score = VocProtocol()(
                val.with_classes(names), detections_through(model, NewClassBackend(source, head), val)
            )
            row = {
                "photos": shots,
                "way": way,
                "kind": head.classifier.kind,
                "on_class": on_class(some, head.examples, boxes),
                "expected": head.expected._asdict(),
                "AP50": score.numbers["VOC_AP50"],
                "per_class": score.tables[0].rows,
            }
            result["rows"].append(row)
            out.write_text(json.dumps(result, indent=1))
            print(json.dumps(row), flush=True)


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--features", default="detector")
    parser.add_argument("--feature-weights")
    given = parser.parse_args()
    measure(given.data, given.checkpoint, given.out, given.features, given.feature_weights)


if __name__ == "__main__":
    main()
