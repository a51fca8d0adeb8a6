"""Claim: sniper check reads COCO-size annotations in under 20 s, and opens COCO's images at 150 a second on 2 cores.

    python benchmarks/check_data.py DATA/coco_subset [--images 118000] [--boxes 860000] [--repeat 5]

The first number is the whole command, in a process of its own, over a synthetic file of COCO's form and size
(coco_load.py), from imports to the page. The second is the check of all splits of a folder whose images are opened,
without imports, the best of several runs; processor time is given beside it.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from coco_load import write_coco
from sniper.pipeline.check import check, load_parts


def annotations_only(images: int, boxes: int) -> dict[str, float | int]:
    """Seconds and memory of ``sniper check FILE --no-open``."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "instances_synthetic.json"
        write_coco(file, images, boxes, points=20)
        command = [sys.executable, "-m", "sniper", "check", str(file), "--no-open", "-o", f"{folder}/out"]
        subprocess.run(command, capture_output=True)  # kernels are compiled once, and kept
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, capture_output=True)
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        found = json.loads((Path(folder) / "out" / "check.json").read_text())
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "peak_mb": round(after.ru_maxrss / 1024),
        "findings": len(found["findings"]),
    }


def with_images(data: Path, repeat: int) -> dict[str, float | int]:
    """Images a second of a check that opens them, over all splits."""
    best: tuple[float, float] = (float("inf"), 0.0)
    for _ in range(repeat):
        start, cpu = time.perf_counter(), time.process_time()
        loaded = load_parts(data)
        check(loaded)
        best = min(best, (time.perf_counter() - start, time.process_time() - cpu))
    return {
        "images": loaded.images,
        "images_per_second": round(loaded.images / best[0], 1),
        "cpu_ms_per_image": round(1000 * best[1] / loaded.images, 2),
    }


def main() -> None:
    """Print both as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=118_000)
    parser.add_argument("--boxes", type=int, default=860_000)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    report = {
        "annotations_only": annotations_only(args.images, args.boxes),
        "with_images": with_images(args.data, args.repeat),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
