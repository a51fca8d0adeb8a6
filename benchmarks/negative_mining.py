"""Mining with negative chips against the original's: microseconds per image on one core, seconds for COCO on two.

    python benchmarks/negative_mining.py --golden ../shared/golden

The original cannot run here; its times per image were recorded (``timing.json``: chips, assignment and negative chips
of all three levels). With 300 proposals an image both sides saw the same 1,000 pictures. For 2,000 an image the
original's pictures were not kept; ours are the first 200 of those 1,000 with proposals of random others of them, scaled
to fit. Ours is the whole of ``mine``, the finished chip table included, by the processor's clock; ``false_positives``
is what a run does once beforehand.
"""

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np

from mining import COCO_IMAGES, RANGES, ZOOMS, pictures
from sniper.chips.config import ChipConfig
from sniper.chips.epoch import mine
from sniper.chips.negative import NegativeConfig, Proposals, false_positives
from sniper.chips.table import ChipKind
from sniper.data.table import AnnotationTable
from sniper.pyramid import Level, Pyramid


def recorded_proposals(path: Path) -> Proposals:
    """The recorded pictures' proposals; scores, which were not kept, are random."""
    data = np.load(path)
    proposed = data["max_overlaps"] != 1
    image = np.repeat(np.arange(len(data["wh"])), data["boxes/counts"])[proposed]
    offsets = np.concatenate(([0], np.cumsum(np.bincount(image, minlength=len(data["wh"])))))
    scores = np.random.default_rng(0).random(len(image), dtype=np.float32)
    return Proposals(offsets.astype(np.int64), data["boxes"][proposed].astype(np.float32), scores)


def more_proposals(table: AnnotationTable, source: AnnotationTable, proposals: Proposals, count: int) -> Proposals:
    """``count`` an image, from random images of ``source``, as large a share of the image as there."""
    rng = np.random.default_rng(1)
    rows = rng.integers(len(proposals.boxes_xyxy), size=count * len(table))
    image = np.searchsorted(proposals.offsets, rows, side="right") - 1
    zoom = np.repeat(table.sizes_wh, count, axis=0) / source.sizes_wh[image]
    boxes = (proposals.boxes_xyxy[rows] * np.tile(zoom, 2)).astype(np.float32)
    return Proposals(np.arange(len(table) + 1) * count, boxes, proposals.scores[rows])


def repeat(proposals: Proposals, rows: np.ndarray) -> Proposals:
    """The proposals of the given images."""
    counts = np.diff(proposals.offsets)[rows]
    offsets = np.concatenate(([0], np.cumsum(counts)))
    take = np.arange(offsets[-1]) + np.repeat(proposals.offsets[rows] - offsets[:-1], counts)
    return Proposals(offsets, proposals.boxes_xyxy[take], proposals.scores[take])


def cpu_us(action: Callable[[], object], images: int, repetitions: int) -> float:
    """The least processor time of ``action``, microseconds per image."""
    best = float("inf")
    for _ in range(repetitions):
        start = time.process_time()
        action()
        best = min(best, time.process_time() - start)
    return best / images * 1e6


def compare(
    table: AnnotationTable, proposals: Proposals, pyramid: Pyramid, recorded_ms: float, repetitions: int
) -> dict[str, float]:
    """Both sides, with either rule of what is covered."""
    result: dict[str, float] = {"original_us": recorded_ms * 1e3}
    for covered in ("contained", "overlap"):
        config = NegativeConfig(covered=covered)

        def run(config: NegativeConfig = config, epoch: int = 0) -> object:
            return mine(table, pyramid, ChipConfig(), seed=0, epoch=epoch, proposals=proposals, negatives=config)

        kinds = [np.bincount(run(epoch=e).kind, minlength=4) for e in range(5)]
        result[f"mine_us_{covered}"] = cpu_us(run, len(table), repetitions)
        result[f"times_faster_{covered}"] = result["original_us"] / result[f"mine_us_{covered}"]
        result[f"negatives_per_image_{covered}"] = float(np.mean([k[ChipKind.NEGATIVE] for k in kinds])) / len(table)
    result["false_positives_us"] = cpu_us(lambda: false_positives(table, proposals, NegativeConfig()), len(table), 5)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).resolve().parents[2] / "shared" / "golden"
    parser.add_argument("--golden", type=Path, default=Path(os.environ.get("SNIPER_GOLDEN", default)))
    chips = parser.parse_args().golden / "chips"
    recorded = json.loads((chips / "timing.json").read_text())
    table, proposals = pictures(chips / "timing_inputs.npz"), recorded_proposals(chips / "timing_inputs.npz")
    pyramids = {
        form: Pyramid(
            levels=tuple(
                Level.model_validate({**zoom, "train_range_px": limits})
                for zoom, limits in zip(scaled_images, RANGES, strict=True)
            )
        )
        for form, scaled_images in ZOOMS.items()
    }
    threads, numba.config.NUMBA_NUM_THREADS = min(2, numba.config.NUMBA_NUM_THREADS), 1
    some = table.select(np.arange(200))
    crowded = more_proposals(some, table, proposals, 2000)
    result: dict[str, object] = {"load": os.getloadavg()[0]}
    for form, pyramid in pyramids.items():
        original = recorded["results"][f"{form}_neg"]["ms_per_image_total"]
        result[f"{form}, 300 proposals"] = compare(table, proposals, pyramid, original, 30)
        extra = recorded["extra_200_images_2000_proposals"][f"{form}_neg_2000props"]
        original = extra["ms_per_image_extractor"] + extra["ms_per_image_assigner"]
        result[f"{form}, 2000 proposals"] = compare(some, crowded, pyramid, original, 30)

    rows = np.arange(COCO_IMAGES) % len(table)
    coco, many = table.select(rows), repeat(proposals, rows)
    numba.config.NUMBA_NUM_THREADS = threads
    wall, cpu = time.perf_counter(), time.process_time()
    left = false_positives(coco, many, NegativeConfig())
    once = time.perf_counter() - wall, time.process_time() - cpu
    del left
    wall, cpu = time.perf_counter(), time.process_time()
    made = mine(coco, pyramids["factor"], ChipConfig(), seed=0, epoch=1, proposals=many)
    result["coco_size"] = {
        "images": len(coco),
        "proposals": len(many.boxes_xyxy),
        "threads": threads,
        "chips": len(made),
        "negatives": int((made.kind == ChipKind.NEGATIVE).sum()),
        "mine_s": time.perf_counter() - wall,
        "mine_cpu_s": time.process_time() - cpu,
        "false_positives_s": once[0],
        "false_positives_cpu_s": once[1],
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
