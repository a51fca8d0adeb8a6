"""Can the mask branch learn? Overfit 20 photos from ImageNet weights, then measure masks on the same photos.

    python benchmarks/mask_overfit.py ../shared/data/coco_subset --out benchmarks/results/mask_overfit.json

On one CPU thread; a training that has finished is kept in --runs and only measured again. Prints JSON. Expected:
AP50 of the masks at least 0.8.
"""

import argparse
import csv
import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import numpy as np
import torch

from sniper.data.source import load_dataset
from sniper.data.table import AnnotationTable
from sniper.demo.assets import imagenet_mobilenet_v2
from sniper.files import write_text
from sniper.pipeline.train import train
from sniper.recipe import Recipe

FINISHED = "finished"


def photos(root: Path, count: int) -> AnnotationTable:
    """The first photos with objects, and only the classes that occur in them."""
    table = load_dataset(root / "annotations" / "instances_train2017.json", image_root=root / "train2017")
    busy = np.flatnonzero(np.diff(table.offsets))[:count]
    few = table.select(busy)
    return few.with_classes([few.class_names[label] for label in np.unique(few.labels)])


def recipe_for(weights: Path, steps: int) -> Recipe:
    """The settings of ``same_budget.py`` with a mask branch and without flips: to overfit is the aim."""
    return Recipe.parse(
        {
            "model": {"weights": str(weights), "masks": True},
            "loader": {"batch_size": 8, "workers": 0},
            "augment": {"horizontal_flip": 0.0},
            "train": {
                "steps": steps,
                "optimizer": "adamw",
                "learning_rate": 1.5e-3,
                "weight_decay": 0.05,
                "schedule": "cosine",
                "warmup_steps": 20,
                "clip_norm": 5.0,
                "seed": 0,
                "tensorboard": False,
                "device": "cpu",
            },
        },
        "mask_overfit",
    )


def learn(root: Path, images: int, weights: Path, steps: int, runs: Path) -> None:
    """Train one run named after its length, or go on with it."""
    torch.set_num_threads(1)
    name = f"{images}x{steps}"
    folder = runs / "train" / name
    former = {"resume": folder} if (folder / "state.pt").is_file() else {"name": name, "root": runs}
    done = train(recipe_for(weights, steps), data=photos(root, images), **former)  # type: ignore[arg-type]
    if done.result.finished:
        write_text(folder / FINISHED, f"{done.result.minutes:.1f} minutes\n")


def _losses(row: dict[str, str]) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in row.items() if name.startswith("loss") and value}


def measure(root: Path, images: int, folder: Path, out: Path) -> None:
    """Detect in the photos that were learned, and write the scores."""
    from sniper.pipeline.evaluate import evaluate

    torch.set_num_threads(1)
    done = evaluate(folder, photos(root, images), output=folder / "evaluation", device="cpu")
    assert done.masks is not None
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("loss/mask")]
    result: dict[str, Any] = {
        "images": images,
        "objects": done.masks.objects,
        "classes": len(done.masks.classes),
        "seconds_per_image": round(done.seconds / images, 2),
        "bbox": {name: round(value, 4) for name, value in done.result.as_dict().items()},
        "segm": {name: round(value, 4) for name, value in done.masks.as_dict().items()},
        "steps": int(rows[-1]["step"]),
        "minutes": round(float(rows[-1]["minutes"]), 1),
        "losses_first": _losses(rows[0]),
        "losses_last": _losses(rows[-1]),
    }
    write_text(out, json.dumps(result, indent=1) + "\n")


def main() -> None:
    """Train if that is still to be done, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, help="folder with annotations/instances_train2017.json and train2017")
    parser.add_argument("--weights", type=Path, default=None, help="ImageNet weights; none: the packaged ones")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--steps", type=int, default=450)
    parser.add_argument("--runs", type=Path, default=Path("runs/mask_overfit"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/mask_overfit.json"))
    args = parser.parse_args()
    folder = args.runs / "train" / f"{args.images}x{args.steps}"
    jobs: list[tuple[Any, ...]] = [(measure, args.root, args.images, folder, args.out)]
    if not (folder / FINISHED).is_file():
        jobs.insert(0, (learn, args.root, args.images, args.weights or imagenet_mobilenet_v2(), args.steps, args.runs))
    for job, *values in jobs:
        # A process of its own: what training leaves behind (memory, threads) must not slow the rest.
        process = multiprocessing.get_context("spawn").Process(target=job, args=tuple(values))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(process.exitcode)
    print(args.out.read_text())


if __name__ == "__main__":
    main()
