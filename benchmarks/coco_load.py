"""Claim: a COCO file of 118,000 images and 860,000 polygons loads under 2 GB and then holds under 200 MB.

    python benchmarks/coco_load.py [--images 118000] [--boxes 860000] [--points 20]

Writes a file of COCO's form and size into a temporary folder, loads it once with sniper and once with pycocotools,
each in a process of its own, and prints seconds, peak memory and what the table holds.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SNIPER = """
import json, pickle, resource, sys, time
from sniper.data.source import load_dataset
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
table = load_dataset(sys.argv[1])
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
shared = table.share()
share_seconds = time.perf_counter() - start
start = time.perf_counter()
table.fingerprint()
print(json.dumps({"seconds": seconds, "peak_rss_mb": peak / 1024, "rss_before_mb": before / 1024,
  "table_mb": table.nbytes() / 1e6, "images": len(table), "boxes": table.num_objects,
  "points": len(table.masks.points_xy), "fingerprint_seconds": time.perf_counter() - start,
  "share_seconds": share_seconds, "pickled_bytes": len(pickle.dumps(shared))}))
"""
PYCOCOTOOLS = """
import json, resource, sys, time
from pycocotools.coco import COCO
start = time.perf_counter()
with open("/dev/null", "w") as sys.stdout:
    data = COCO(sys.argv[1])
sys.stdout = sys.__stdout__
print(json.dumps({"seconds": time.perf_counter() - start,
  "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "boxes": len(data.anns)}))
"""


def write_coco(path: Path, images: int, boxes: int, points: int, seed: int = 0) -> None:
    """A file in COCO's own layout: numbers with two decimals, 1 % crowd with run lengths, ``points`` a polygon."""
    rng = np.random.default_rng(seed)
    with path.open("w") as file:
        entries = (
            f'{{"license": 3,"file_name": "{i:012d}.jpg","coco_url": "http://images.example.org/train2017/{i:012d}.jpg",'
            f'"height": 480,"width": 640,"date_captured": "2013-11-14 17:02:52","id": {i}}}'
            for i in range(1, images + 1)
        )
        file.write('{"info": {"description": "synthetic"},"images": [' + ",".join(entries) + '],"annotations": [')
        for start in range(0, boxes, 20_000):
            count = min(20_000, boxes - start)
            corner = rng.uniform(0, [500, 400], (count, 2)).round(2)
            size = rng.uniform(2, [140, 80], (count, 2)).round(2)
            length = rng.poisson(points - 3, count) + 3
            image, category = rng.integers(1, images + 1, count), rng.integers(1, 81, count)
            crowd = rng.random(count) < 0.01
            pieces = []
            for k in range(count):
                if crowd[k]:
                    shape = json.dumps({"counts": rng.integers(1, 500, 150).tolist(), "size": [480, 640]})
                else:
                    ring = corner[k] + rng.random((length[k], 2)) * size[k]
                    shape = "[[" + ",".join(f"{value:.2f}" for value in ring.ravel().tolist()) + "]]"
                pieces.append(
                    f'{{"segmentation": {shape},"area": {size[k].prod():.4f},"iscrowd": {int(crowd[k])},'
                    f'"image_id": {image[k]},"bbox": [{corner[k, 0]},{corner[k, 1]},{size[k, 0]},{size[k, 1]}],'
                    f'"category_id": {category[k]},"id": {start + k + 1}}}'
                )
            file.write(("," if start else "") + ",".join(pieces))
        categories = [{"supercategory": "thing", "id": c, "name": f"class {c}"} for c in range(1, 81)]
        file.write('],"categories": ' + json.dumps(categories) + "}")


def measure(program: str, path: Path) -> dict[str, float]:
    """Run the program on the file in a process of its own; it prints its numbers."""
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1]}
    return {name: round(value, 3) for name, value in json.loads(done.stdout).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=118_000)
    parser.add_argument("--boxes", type=int, default=860_000)
    parser.add_argument("--points", type=int, default=20, help="mean points of a polygon")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instances_synthetic.json"
        write_coco(path, options.images, options.boxes, options.points)
        result = {
            "file_mb": round(path.stat().st_size / 1e6, 1),
            "sniper": measure(SNIPER, path),
            "pycocotools": measure(PYCOCOTOOLS, path),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
