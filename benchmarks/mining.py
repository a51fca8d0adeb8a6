"""Positive mining against the original's: microseconds per image on one thread, seconds for COCO on two.

    python benchmarks/mining.py --golden ../shared/golden

The original cannot run here; its time per image was recorded on the same 1,000 pictures (``timing.json``, the part that
makes the chips, without the one that assigns boxes to them). Ours are measured now, best of many repetitions:
``cover`` finds the valid objects of each of three levels and the chips that cover them, each object assigned to its
chip; ``mine`` adds what the loader reads (the finished table, background chips of empty images).
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np

from sniper.chips.config import ChipConfig
from sniper.chips.epoch import mine
from sniper.chips.positive import cover_images
from sniper.chips.seeding import Purpose, stream_keys
from sniper.chips.table import ChipKind
from sniper.data.table import AnnotationTable
from sniper.pyramid import Level, Pyramid
from sniper.validity import ScaledImages

RANGES = ((0.0, 80.0), (32.0, 150.0), (120.0, None))
ZOOMS = {
    "resolution": ({"short_px": 1400, "long_px": 2000}, {"short_px": 800, "long_px": 1280}, {"long_px": 512}),
    "factor": ({"scale": 3.0}, {"scale": 1.667}, {"long_px": 512}),
}
COCO_IMAGES = 118_000


def pictures(path: Path) -> AnnotationTable:
    """The recorded pictures, objects only; corners as they are, which gives the sizes that the original judged by."""
    data = np.load(path)
    is_object = data["max_overlaps"] == 1
    image = np.repeat(np.arange(len(data["wh"])), data["boxes/counts"])[is_object]
    boxes = data["boxes"][is_object].astype(np.float32)
    count = len(boxes)
    return AnnotationTable(
        root=Path(),
        file_names=tuple(f"{i}.jpg" for i in range(len(data["wh"]))),
        image_ids=np.arange(1, len(data["wh"]) + 1),
        sizes_wh=data["wh"].astype(np.int32),
        offsets=np.concatenate(([0], np.cumsum(np.bincount(image, minlength=len(data["wh"]))))),
        boxes_xyxy=boxes,
        labels=np.zeros(count, np.int32),
        flags=np.zeros(count, np.uint8),
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
        annotation_ids=np.arange(count),
        class_names=("object",),
        class_ids=np.asarray([1]),
    )


def seconds(action: Callable[[], object], repetitions: int) -> float:
    """The shortest time that ``action`` took."""
    best = float("inf")
    for _ in range(repetitions):
        start = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - start)
    return best


def per_image(table: AnnotationTable, pyramid: Pyramid, recorded_ms: float, recorded_chips: float) -> dict[str, float]:
    """Both sides, microseconds per image for all three levels on one thread."""
    config = ChipConfig()
    scaled_images, rule = ScaledImages.of(table.sizes_wh, pyramid), config.size_rule(pyramid.chip_px)
    keys = stream_keys(0, 0, Purpose.COVER, table.image_ids)
    cover = seconds(lambda: cover_images(table, scaled_images, rule, 57, keys), 200) / len(table)
    whole = seconds(lambda: mine(table, pyramid, config, seed=0, epoch=0), 100) / len(table)
    chips = [(mine(table, pyramid, config, seed=0, epoch=e).kind == ChipKind.POSITIVE).sum() for e in range(10)]
    return {
        "original_us": recorded_ms * 1e3,
        "cover_us": cover * 1e6,
        "mine_us": whole * 1e6,
        "times_faster_cover": recorded_ms / (cover * 1e3),
        "times_faster_mine": recorded_ms / (whole * 1e3),
        "original_chips_per_image": recorded_chips,
        "chips_per_image": float(np.mean(chips)) / len(table),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).resolve().parents[2] / "shared" / "golden"
    parser.add_argument("--golden", type=Path, default=Path(os.environ.get("SNIPER_GOLDEN", default)))
    chips = parser.parse_args().golden / "chips"
    recorded = json.loads((chips / "timing.json").read_text())["results"]
    table = pictures(chips / "timing_inputs.npz")
    pyramids = {
        form: Pyramid(
            levels=tuple(
                Level.model_validate({**zoom, "train_range_px": limits})
                for zoom, limits in zip(scaled_images, RANGES, strict=True)
            )
        )
        for form, scaled_images in ZOOMS.items()
    }
    mine(table, pyramids["factor"], ChipConfig(), seed=0, epoch=0)  # compile

    threads, numba.config.NUMBA_NUM_THREADS = min(2, numba.config.NUMBA_NUM_THREADS), 1
    result: dict[str, object] = {"images": len(table), "objects": int(table.offsets[-1]), "load": os.getloadavg()[0]}
    for form, pyramid in pyramids.items():
        original = recorded[f"{form}_noneg"]
        fastest = min(original["ms_per_image_extractor"], recorded[f"{form}_neg"]["ms_per_image_extractor"])
        result[form] = per_image(table, pyramid, fastest, original["mean_pos_chips"])

    coco = table.select(np.arange(COCO_IMAGES) % len(table))
    numba.config.NUMBA_NUM_THREADS = threads
    result["coco_size"] = {
        "images": len(coco),
        "objects": int(coco.offsets[-1]),
        "threads": threads,
        "chips": len(mine(coco, pyramids["factor"], ChipConfig(), seed=0, epoch=0)),
        "mine_s": seconds(lambda: mine(coco, pyramids["factor"], ChipConfig(), seed=0, epoch=1), 5),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
