"""Positive mining over the boxes of WIDER FACE: seconds, and which faces the chips cover.

    python benchmarks/wider_mining.py DATA/annotations_only/wider_face_train_boxes.json

The training part: 12,880 images with up to 1,968 faces each. Two levels: enlarged twice, and reduced to 512 px. The
original's three: 3, 1.667 and 512 px, with its ranges. SSH's pyramid: short sides of 1600, 1200, 800 and 500 px, where
every face is valid at every level.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from sniper.boxes import sqrt_area
from sniper.chips.config import ChipConfig
from sniper.chips.epoch import mine
from sniper.chips.positive import valid_objects
from sniper.chips.table import ChipKind, ChipTable
from sniper.data.building import ObjectRows, build_table
from sniper.data.table import AnnotationTable
from sniper.pyramid import Level, Pyramid
from sniper.validity import ScaledImages

PYRAMIDS = {
    "two levels": Pyramid(
        levels=(Level(scale=2.0, train_range_px=(0, 64)), Level(long_px=512, train_range_px=(48, None)))
    ),
    "three levels of the original": Pyramid(
        levels=(
            Level(scale=3.0, train_range_px=(0, 80)),
            Level(scale=1.667, train_range_px=(32, 150)),
            Level(long_px=512, train_range_px=(120, None)),
        )
    ),
    "SSH's pyramid": Pyramid(levels=tuple(Level(short_px=short) for short in (1600, 1200, 800, 500))),
}


def wider_boxes(file: Path) -> AnnotationTable:
    """File, width, height and boxes (x, y, width, height) of each image."""
    entries = json.loads(file.read_text())["data"]
    boxes = np.array([box for *_, faces in entries for box in faces], np.float64)
    boxes[:, 2:] += boxes[:, :2]
    rows = np.repeat(np.arange(len(entries)), [len(faces) for *_, faces in entries])
    return build_table(
        ObjectRows(rows, boxes, np.zeros(len(rows), np.int32)),
        source=file,
        root=Path(),
        file_names=[name for name, *_ in entries],
        image_ids=None,
        sizes_wh=np.array([[width, height] for _, width, height, _ in entries]),
        class_names=["face"],
    )


def measured(table: AnnotationTable, pyramid: Pyramid, repetitions: int) -> dict[str, Any]:
    """Time, chips and covered faces of one pyramid."""
    config = ChipConfig()
    mine(table.select(range(8)), pyramid, config, seed=0, epoch=0)  # compile
    wall, processor = [], []
    for epoch in range(repetitions):
        start = time.perf_counter(), time.process_time()
        chips = mine(table, pyramid, config, seed=0, epoch=epoch)
        wall.append(time.perf_counter() - start[0])
        processor.append(time.process_time() - start[1])
    return {"wall_s": min(wall), "processor_s": min(processor), **covered(table, pyramid, config, chips)}


def covered(table: AnnotationTable, pyramid: Pyramid, config: ChipConfig, chips: ChipTable) -> dict[str, Any]:
    """How many chips there are, and which faces are learned; checked against the rule of validity."""
    positive = np.flatnonzero(chips.kind == ChipKind.POSITIVE)
    counts = np.diff(chips.object_offsets)
    level = np.repeat(chips.level, counts)
    learned = np.zeros((table.num_objects, len(pyramid.levels)), np.bool_)
    learned[chips.object_rows, level] = True
    valid = valid_objects(table, ScaledImages.of(table.sizes_wh, pyramid), config.size_rule(pyramid.chip_px))
    sizes = sqrt_area(table.boxes_xyxy)
    return {
        "positive_chips_an_image": len(positive) / len(table),
        "most_chips_of_an_image": int(np.bincount(chips.image_index[positive]).max()),
        "valid_faces_that_no_chip_of_their_level_has": int((valid & ~learned).sum()),
        "faces_learned_at_some_level": float(learned.any(axis=1).mean()),
        "of_4_px_and_more": float(learned.any(axis=1)[sizes >= 4].mean()),
        "megapixels_an_image": float(chips.size_wh[positive].prod(axis=1).sum() / len(table) / 1e6),
    }


def main() -> None:
    """Print a line for each pyramid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("boxes", type=Path)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    table = wider_boxes(options.boxes)
    result: dict[str, Any] = {"images": len(table), "faces": table.num_objects, "load": os.getloadavg()[0]}
    result |= {name: measured(table, pyramid, options.repetitions) for name, pyramid in PYRAMIDS.items()}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
