"""What automatic levels cover and cost on every data set at hand: pixels of chips against the alternatives.

python benchmarks/auto_levels.py DATA_ROOT
"""

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from sniper.chips.stats import coverage
from sniper.data.building import ObjectRows, build_table
from sniper.data.source import load_dataset
from sniper.data.table import AnnotationTable
from sniper.demo.assets import demo_data
from sniper.pipeline.detectors import resolve_pyramid
from sniper.recipe import Recipe


def wider_face(path: Path) -> AnnotationTable:
    """The boxes-only extract of WIDER FACE, which has a form of its own."""
    images = json.loads(path.read_text())["data"]
    boxes = np.asarray([box for image in images for box in image[3]], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    row = np.repeat(np.arange(len(images)), [len(image[3]) for image in images])
    return build_table(
        ObjectRows(image_row=row, boxes_xyxy=boxes, labels=np.zeros(len(boxes), np.int32)),
        source=str(path),
        root=path.parent,
        file_names=[image[0] for image in images],
        image_ids=np.arange(1, len(images) + 1),
        sizes_wh=np.asarray([image[1:3] for image in images]),
        class_names=("face",),
    )


def tables(root: Path) -> dict[str, AnnotationTable]:
    """Training parts of all data sets."""
    boxes_only = root / "annotations_only"
    cars = root / "aerial_cars_kit_ais"
    return {
        "tree crowns": load_dataset(demo_data().train),
        "aerial cars": load_dataset(cars / "annotations" / "train.json", image_root=cars),
        "blood cells": load_dataset(root / "bccd", "train"),
        "COCO subset": load_dataset(root / "coco_subset" / "annotations" / "instances_train2017.json"),
        "HIT-UAV": load_dataset(root / "hit_uav" / "train.json"),
        "mask faces": load_dataset(root / "mask_faces" / "train.json"),
        "TACO": load_dataset(boxes_only / "taco_annotations.json"),
        "UAVVaste": load_dataset(boxes_only / "uavvaste_annotations.json"),
        "VisDrone, first 50": load_dataset(boxes_only / "visdrone_first50_coco.json"),
        "WIDER FACE": wider_face(boxes_only / "wider_face_train_boxes.json"),
    }


def row(table: AnnotationTable) -> dict[str, Any]:
    """One data set's line."""
    recipe, pyramid = resolve_pyramid(Recipe.load("mobilenetv2"), table)
    report = coverage(table, pyramid, recipe.chips)
    chips = report.pixels["chips"]
    return {
        "levels": [f"{s.scale} [{s.range_px[0]:g}, {s.range_px[1]:g})" for s in report.levels],
        "covered_of_2px_and_more": round(report.covered, 4),
        "valid_in_none_one_several": [round(share, 4) for share in report.valid_in],
        "chips_per_image": round(sum(report.chips.values()) / report.images, 2),
        "megapixels_per_image": {way: round(count / report.images / 1e6, 3) for way, count in report.pixels.items()},
        "chips_share_of_tiles_at_finest_zoom": round(chips / report.pixels["uniform tiles, finest scale"], 4),
        "chips_share_of_full_pyramid": round(chips / report.pixels["full pyramid"], 4),
    }


def main() -> None:
    """Print a line for every data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    logging.disable(logging.WARNING)
    print(json.dumps({name: row(table) for name, table in tables(parser.parse_args().root).items()}, indent=1))


if __name__ == "__main__":
    main()
