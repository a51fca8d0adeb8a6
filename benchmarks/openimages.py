"""OpenImages at full size: seconds and memory to read it, and to mine it.

    python benchmarks/openimages.py FOLDER

Where FOLDER is empty, files of the official form and of the training part's size are made in it (``openimages_files``;
some minutes and 2.6 GB). The first reading takes the sizes of all images from their headers and keeps them in the cache
folder; the second finds them there. Mining is of the three levels of SNIPER's paper and of the two that the original
had for OpenImages, an epoch each, compiled before. Prints JSON; processor time tells more than wall time where other
programs run.
"""

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

from openimages_files import BOXES, IMAGES, LABELS, make_dataset
from sniper.chips.config import ChipConfig
from sniper.chips.epoch import mine
from sniper.data.source import load_dataset
from sniper.pyramid import Level, Pyramid

PYRAMIDS = {
    "three_levels": (
        {"scale": 3.0, "train_range_px": (0, 80)},
        {"scale": 1.667, "train_range_px": (32, 150)},
        {"long_px": 512, "train_range_px": (120, None)},
    ),
    "two_levels": ({"scale": 1.0, "train_range_px": (0, 300)}, {"long_px": 512, "train_range_px": (240, None)}),
}


def measured(action: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What ``action`` returns, and its seconds; memory is the most that this process had so far."""
    wall, processor = time.perf_counter(), time.process_time()
    result = action()
    return result, {
        "wall_s": time.perf_counter() - wall,
        "processor_s": time.process_time() - processor,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--boxes", type=int, default=BOXES)
    parser.add_argument("--labels", type=int, default=LABELS)
    given = parser.parse_args()
    if not given.folder.is_dir():
        make_dataset(given.folder, given.images, given.boxes, given.labels)
    result: dict[str, Any] = {"load_before": os.getloadavg()[0], "threads": numba.config.NUMBA_NUM_THREADS}
    table, result["read"] = measured(lambda: load_dataset(given.folder))
    result |= {"images": len(table), "objects": table.num_objects, "table_mb": table.nbytes() / 1e6}
    few = table.select(range(100))
    for name, levels in PYRAMIDS.items():
        pyramid = Pyramid(levels=tuple(Level.model_validate(level) for level in levels))
        mine(few, pyramid, ChipConfig(), seed=0, epoch=0)  # compile
        chips, result[name] = measured(lambda pyramid=pyramid: mine(table, pyramid, ChipConfig(), seed=0, epoch=1))
        result[name]["chips"] = len(chips)
    result["load_after"] = os.getloadavg()[0]
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
