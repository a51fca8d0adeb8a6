"""What missing labels cost, and what soft sampling wins back: with and without it, at several lengths.

    python benchmarks/soft_sampling.py DATA_ROOT WEIGHTS cells --seeds 0 1 2 --epochs 6 12
    python benchmarks/soft_sampling.py DATA_ROOT WEIGHTS bicycles --seeds 0 1 --epochs 6

``cells``: BCCD, 30 % of the training boxes removed at random, whole images of 320 px. ``bicycles``: the images of
HIT-UAV with bicycles and as many without, half of the bicycles removed, whole images at 1 x. Test sets keep all their
boxes. The ways: all labels; some removed; some removed and ``model.rois.soft_sampling: 0.25``. All ways of a seed see
the same images in the same order, for as many steps. A row is kept as JSON when it is done, and not run again.
"""

import argparse
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from sniper.data.detections import DetectionTable
from sniper.data.source import load_dataset
from sniper.data.table import AnnotationTable
from sniper.evaluation.coco_result import CocoResult
from sniper.evaluation.error_types import Verdict, judge
from sniper.pipeline.evaluate import evaluate_table
from sniper.pipeline.model import load_model
from sniper.pipeline.train import train
from sniper.recipe import Recipe

WAYS = {"all labels": 1.0, "removed": 1.0, "removed, soft": 0.25}  # weight of background far from labelled objects
LEVEL: dict[str, dict[str, Any]] = {"cells": {"long_px": 320}, "bicycles": {"scale": 1.0}}


def tables(data: str, root: Path, seed: int, *, complete: bool) -> tuple[AnnotationTable, AnnotationTable]:
    """Training table, with boxes removed unless ``complete``, and test table."""
    rng = np.random.default_rng(seed)
    if data == "cells":
        table = load_dataset(root / "bccd", split="trainval")
        rows = rng.permutation(table.num_objects)[: round(0.3 * table.num_objects)]
        test = load_dataset(root / "bccd", split="test", classes=table.class_names, missing_classes="allow")
    else:
        folder = root / "hit_uav"
        everything = load_dataset(folder / "train.json")
        bicycle = everything.class_names.index("bicycle")
        shows = np.unique(everything.image_rows_of_objects()[(everything.labels == bicycle) & ~everything.ignored])
        others = rng.permutation(np.setdiff1d(np.arange(len(everything)), shows))[: len(shows)]
        table = everything.select(np.sort(np.concatenate((shows, others))))
        bicycles = np.flatnonzero((table.labels == bicycle) & ~table.ignored)
        rows = rng.permutation(bicycles)[: len(bicycles) // 2]
        test = load_dataset(folder / "test.json", classes=table.class_names, missing_classes="allow")
    return (table if complete else table.without_objects(np.sort(rows))), test


def recipe_for(data: str, floor: float, epochs: float, seed: int, weights: Path) -> Recipe:
    """What all ways share, and the weight of far background."""
    settings = {
        "model": {
            "backbone": "sniper/mobilenet_v1_x0.25", "weights": str(weights), "frozen_stages": 0,
            "rois": {"soft_sampling": floor, "per_chip": 64}, "proposals": {"keep": 150},
        },
        "pyramid": {"levels": [LEVEL[data]]},
        "sampler": {"method": "whole"},
        "loader": {"batch_size": 8, "workers": 0},
        "augment": {"horizontal_flip": 0.5, "vertical_flip": 0.5},
        "train": {
            "epochs": epochs, "optimizer": "adamw", "learning_rate": 1.5e-3, "weight_decay": 0.05,
            "schedule": "cosine", "warmup_steps": 30, "clip_norm": 5.0, "seed": seed,
            "tensorboard": False, "checkpoint_every_minutes": None, "device": "cpu",
        },
    }  # fmt: skip
    return Recipe.parse(settings, f"soft sampling {floor}")


def measured(data: str, way: str, epochs: float, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train and test one way."""
    table, test = tables(data, args.root, seed, complete=way == "all labels")
    name = f"{data}-{way.replace(', ', '-').replace(' ', '-')}-{epochs:g}-{seed}"
    cpu = time.process_time()
    run = train(recipe_for(data, WAYS[way], epochs, seed, args.weights), data=table, name=name, root=args.runs)
    cpu = time.process_time() - cpu
    model = load_model(run.folder, device="cpu")
    done = evaluate_table(model.backend, test, model.pyramid, model.recipe.inference, model.recipe.evaluation)
    return {
        "data": data, "way": way, "epochs": epochs, "seed": seed,
        "steps": run.result.step, "boxes": int((~table.ignored).sum()), "cpu_minutes": round(cpu / 60, 2),
        **scores(done.result, test, done.detections),
    }  # fmt: skip


def scores(result: CocoResult, test: AnnotationTable, found: DetectionTable) -> dict[str, Any]:
    """AP, and how sure the detector is of the objects that it finds."""
    verdicts = judge(test, found)
    right = verdicts.verdict == Verdict.TRUE_POSITIVE
    of_class = [verdicts.scores[right & (verdicts.labels == label)] for label in range(len(test.class_names))]
    return {
        "AP": round(result.ap, 4),
        "AP50": round(result.ap50, 4),
        "AR": round(result.ar100, 4),
        "class_AP50": {one.name: round(one.ap50, 4) for one in result.classes},
        "median_score_of_found": {
            name: round(float(np.median(own)), 3)
            for name, own in zip(test.class_names, of_class, strict=True)
            if len(own)
        },
    }


def main() -> None:
    """Run what is not there yet, print all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder with bccd and hit_uav")
    parser.add_argument("weights", type=Path, help="of MobileNetV1 x 0.25, from ImageNet")
    parser.add_argument("data", choices=list(LEVEL))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, nargs="+", default=[6, 12])
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--out", type=Path, default=Path("runs/soft_sampling.jsonl"))
    parser.add_argument("--runs", type=Path, default=Path("runs/soft_sampling"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.is_file() else []
    there = {(row["data"], row["way"], row["epochs"], row["seed"]) for row in rows}
    for seed, epochs, way in itertools.product(args.seeds, args.epochs, args.ways):
        if (args.data, way, epochs, seed) in there:
            continue
        row = measured(args.data, way, epochs, seed, args)
        with args.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
