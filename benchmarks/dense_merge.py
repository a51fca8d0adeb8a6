"""Claim: detections of crowded images are merged in less processor time and memory than by SAHI, and none is capped.

    python benchmarks/dense_merge.py [--boxes 33000 400000] [--limit-s 300] [--only sniper_hard,sahi_nms]

One class; around each object lie 20 near copies, as windows and levels leave them: 33,000 boxes are 1,650 objects,
400,000 are 20,000. Objects are 12 to 60 px large, so many to a megapixel that they touch. Each side runs in a process
of its own, on one thread: once on 1,000 boxes, which compiles or loads what it needs, then once on all. The second run
is measured. Peak memory is what the process grew by meanwhile, at its highest. A side that takes longer than
``--limit-s`` is stopped. SAHI (``pip install sahi``) merges with the engine that it chooses here, at the same IoU of
0.5; boxes go in as arrays, so its own objects for each box are not counted.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

IOU, COPIES = 0.5, 20
SIDES = ("sniper_soft_gaussian", "sniper_hard", "torchvision_nms", "sahi_nms", "sahi_greedy_nmm", "sahi_nmm")

Scene = tuple[np.ndarray, np.ndarray, np.ndarray]


def make_scene(boxes: int, seed: int = 0) -> Scene:
    """Boxes (N, 4) xyxy, scores and labels, in random order; 500 objects a megapixel."""
    rng = np.random.default_rng(seed)
    objects = boxes // COPIES
    side = np.sqrt(objects / 500) * 1000
    centre, size = rng.uniform(0, side, (objects, 2)), np.exp(rng.uniform(np.log(12), np.log(60), (objects, 1)))
    size = size * np.exp(rng.normal(0, 0.2, (objects, 2)))
    centre, size = centre.repeat(COPIES, axis=0), size.repeat(COPIES, axis=0)
    centre = centre + rng.normal(0, 0.05, centre.shape) * size
    size = size * np.exp(rng.normal(0, 0.08, size.shape))
    order = rng.permutation(len(centre))
    found = np.concatenate([centre - size / 2, centre + size / 2], axis=1).astype(np.float32)[order]
    return found, rng.beta(2, 2, len(centre)).clip(0.001).astype(np.float32), np.zeros(len(centre), np.int64)


def merger(side: str) -> Callable[[Scene], int]:
    """What merges a scene and tells how many boxes are left."""
    if side.startswith("sniper"):
        from sniper.inference.config import MergeConfig
        from sniper.inference.merge import nms

        config = MergeConfig(method=side.removeprefix("sniper_"), iou_threshold=IOU)  # type: ignore[arg-type]
        return lambda scene: len(nms(*scene, config).keep)
    import torch

    torch.set_num_threads(1)
    if side == "torchvision_nms":
        from torchvision.ops import batched_nms

        return lambda scene: len(batched_nms(*map(torch.from_numpy, scene), IOU))
    from sahi.postprocess import combine

    merge: Any = getattr(combine, side.replace("sahi", "batched"))

    def run(scene: Scene) -> int:
        boxes, scores, labels = scene
        rows = np.concatenate([boxes, scores[:, None], labels[:, None]], axis=1)  # columns as SAHI takes them
        return len(merge(rows, "IOU", IOU))

    return run


class Peak:
    """The highest resident memory of this process while it is watched, above what it had before, MB."""

    def __enter__(self) -> "Peak":
        self._process, self._over = psutil.Process(), threading.Event()
        self._before = self._highest = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.mb = (self._highest - self._before) / 1e6

    def _watch(self) -> None:
        while not self._over.wait(0.002):
            self._highest = max(self._highest, self._process.memory_info().rss)


def measure(side: str, boxes: int) -> dict[str, Any]:
    work = merger(side)
    work(make_scene(1000))
    scene = make_scene(boxes)
    with Peak() as peak:
        wall, processor = time.perf_counter(), time.process_time()
        kept = work(scene)
        took = time.perf_counter() - wall, time.process_time() - processor
    return {"wall_s": round(took[0], 3), "processor_s": round(took[1], 3), "peak_mb": round(peak.mb), "kept": kept}


def in_a_process(side: str, boxes: int, limit_s: float) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__)), "--side", side, "--boxes", str(boxes)]
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    try:
        done = subprocess.run(command, env=os.environ | one_thread, capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        return {"stopped_after_s": limit_s}
    if done.returncode != 0:
        return {"failed": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, nargs="+", default=[33_000, 400_000])
    parser.add_argument("--limit-s", type=float, default=300)
    parser.add_argument("--only", default=",".join(SIDES), help="sides, between commas")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)  # of the process that measures one
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options.side, options.boxes[0])))
        return
    report: dict[str, Any] = {"machine": platform.machine(), "iou": IOU, "copies": COPIES}
    try:
        from sahi import __version__ as sahi_version
        from sahi.postprocess.backends import resolve_backend

        report |= {"sahi": sahi_version, "sahi_engine": resolve_backend()}
    except ImportError:
        report["sahi"] = None
    sides = [side for side in options.only.split(",") if report["sahi"] or not side.startswith("sahi")]
    for boxes in options.boxes:
        report[str(boxes)] = {side: in_a_process(side, boxes, options.limit_s) for side in sides}
        print(json.dumps({str(boxes): report[str(boxes)]}), file=sys.stderr)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
