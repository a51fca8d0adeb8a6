"""Chips against whole images and uniform tiles: the same detector, the same CPU time, tested the way it was trained.

    python benchmarks/same_time.py DATA_ROOT --out benchmarks/results/same_time

A cell is (data set, method, seed). Its number of steps is the budget divided by the CPU seconds of a step of
that method, measured first; so the schedule is complete whatever else the machine does, and every cell costs
the same. Finished cells are kept as JSON and not run again; the table is printed from what is there.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import shutil
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import torch

from sniper.data.source import load_dataset
from sniper.data.table import AnnotationTable
from sniper.demo.assets import demo_data, imagenet_mobilenet_v2
from sniper.pipeline import train
from sniper.pipeline.evaluate import evaluate_table
from sniper.pipeline.model import load_model, resolve_pyramid
from sniper.pipeline.train import ChipSource
from sniper.recipe import Recipe
from sniper.structures import Batch
from sniper.training.devices import keep_freed_memory

METHODS: dict[str, dict[str, Any]] = {
    "chips": {"sampler": {"method": "chips"}, "pyramid": {"levels": "auto"}},
    "whole": {
        "sampler": {"method": "whole"},
        "pyramid": {"levels": [{"short_px": 800, "long_px": 1333}], "chip_px": 512},
        "loader": {"batch_size": 2},
    },
    "tiles": {
        "sampler": {"method": "tiles"},
        "pyramid": {"levels": [{"factor": 1.0}], "chip_px": 512},
        "inference": {"window_px": 512, "overlap": 0.2},
    },
}


def base(seed: int) -> dict[str, Any]:
    """What all methods share. A batch is 2 megapixels for each: eight chips or tiles, two whole images."""
    return {
        "model": {"weights": str(imagenet_mobilenet_v2())},
        "loader": {"batch_size": 8, "workers": 0},
        # Tree crowns stand 279 in one photo: AP_most counts as many detections as that takes, AP the usual 100.
        "evaluation": {"most_detections": 600},
        "inference": {"merge": {"max_per_image": 600}},
        "augment": {"horizontal_flip": 0.5, "vertical_flip": 0.5},
        "train": {
            "optimizer": "adamw",
            "learning_rate": 1.5e-3,
            "weight_decay": 0.05,
            "schedule": "cosine",
            "warmup_steps": 20,
            "clip_norm": 5.0,
            "seed": seed,
            "tensorboard": False,
            "checkpoint_every_minutes": None,
            "device": "cpu",
        },
    }


def tables(name: str, root: Path) -> tuple[AnnotationTable, AnnotationTable]:
    """Training and test tables of a data set."""
    if name == "crowns":
        data = demo_data()
        train_table = load_dataset(data.train)
        return train_table, load_dataset(data.heldout, classes=train_table.class_names)
    if name == "cars":
        folder = root / "aerial_cars_kit_ais"
        train_table = load_dataset(folder / "annotations" / "train.json", image_root=folder)
        return train_table, load_dataset(
            folder / "annotations" / "test.json", image_root=folder, classes=train_table.class_names
        )
    train_table = load_dataset(root / "bccd", split="train")
    return train_table, load_dataset(root / "bccd", split="test", classes=train_table.class_names)


def recipe_for(method: str, seed: int, steps: int, overrides: dict[str, Any] | None = None) -> Recipe:
    """The recipe of a cell."""
    settings = base(seed)
    for layer in (METHODS[method], overrides or {}):
        for section, values in layer.items():
            settings[section] = {**settings.get(section, {}), **values}
    settings["train"]["steps"] = steps
    return Recipe.parse(settings, method)


def step_seconds(recipe: Recipe, table: AnnotationTable, warm: int = 4, measured: int = 12) -> float:
    """CPU seconds of one training step: loading, forward, backward, update."""
    from sniper.detectors.sniper import build_sniper

    keep_freed_memory()  # as training does

    recipe, pyramid = resolve_pyramid(recipe, table)
    detector = build_sniper(recipe.model, len(table.class_names)).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-5)
    source = ChipSource(table, pyramid, recipe)
    batches = itertools.chain.from_iterable(source.epoch(epoch, 0, 0, 1) for epoch in itertools.count())
    for batch in itertools.islice(batches, warm):
        _step(detector, optimizer, batch)
    started = time.process_time()
    for batch in itertools.islice(batches, measured):
        _step(detector, optimizer, batch)
    return (time.process_time() - started) / measured


def _step(detector: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    losses: dict[str, torch.Tensor] = detector.losses(batch.to("cpu", channels_last=True))  # type: ignore[operator]
    torch.stack(list(losses.values())).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def run_cell(data: str, method: str, seed: int, root: Path, out: Path, budget: float, path: Path) -> None:
    """Train and test one cell on one thread, and keep it as JSON."""
    torch.set_num_threads(1)
    train_table, test_table = tables(data, root)
    per_step = step_seconds(recipe_for(method, seed, 1), train_table)
    steps = max(20, round(budget / per_step))
    recipe = recipe_for(method, seed, steps)
    resolved, pyramid = resolve_pyramid(recipe, train_table)
    shutil.rmtree(out / "runs" / "train" / f"{data}-{method}-{seed}", ignore_errors=True)  # of a cell that was cut off
    wall, cpu = time.perf_counter(), time.process_time()
    run = train(recipe, table=train_table, name=f"{data}-{method}-{seed}", root=out / "runs")
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    model = load_model(run.checkpoint, device="cpu")
    done = evaluate_table(model.detector, test_table, pyramid, resolved.inference, resolved.evaluation, device="cpu")
    chips = ChipSource(train_table, pyramid, resolved).chips(0)
    canvas = float(chips.size_wh.astype(float).prod(axis=1).mean())
    cell = {
        "data": data,
        "method": method,
        "seed": seed,
        "steps": steps,
        "chips": run.result.chips,
        "train_megapixels": run.result.chips * canvas / 1e6,
        "train_cpu_minutes": cpu / 60,
        "train_wall_minutes": wall / 60,
        "test_megapixels_per_image": done.pixels_per_image / 1e6,
        "test_seconds_per_image": done.seconds / len(test_table),
        "epochs": run.result.epochs,
        "levels": [level.model_dump(mode="json", exclude_none=True) for level in pyramid.levels],
        "metrics": done.result.as_dict(),
        "classes": [score._asdict() for score in done.result.classes],
    }
    path.write_text(json.dumps(cell, indent=1))


def table(out: Path) -> str:
    """What is there, as a Markdown table, one line a cell."""
    columns = ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AP_most", "AP50_most"]
    lines = [
        "| data | method | seed | " + " | ".join(columns) + " | steps | trained on, Mpx | CPU min | test Mpx / image |",
        "|---" * (len(columns) + 7) + "|",
    ]
    for path in sorted(out.glob("*.json")):
        cell = json.loads(path.read_text())
        scores = [f"{100 * cell['metrics'][name]:.1f}" if name in cell["metrics"] else "-" for name in columns]
        cost = f"{cell['steps']} | {cell['train_megapixels']:.0f} | {cell['train_cpu_minutes']:.1f}"
        head = f"| {cell['data']} | {cell['method']} | {cell['seed']} | "
        lines.append(head + " | ".join(scores) + f" | {cost} | {cell['test_megapixels_per_image']:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, then print everything as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, help="folder with aerial_cars_kit_ais and bccd")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/same_time"))
    parser.add_argument("--data", nargs="*", default=["cars", "bccd", "crowns"])
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1])
    parser.add_argument("--minutes", type=float, default=10.0, help="CPU minutes of training a cell")
    parser.add_argument("--table", action="store_true", help="only print what is there, as Markdown")
    args = parser.parse_args()
    if args.table:
        print(table(args.out))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        for data in args.data:
            for method in args.methods:
                path = args.out / f"{data}-{method}-{seed}.json"
                if not path.is_file():
                    # A process of its own: what one cell leaves behind (memory, threads) must not slow the next.
                    cell = multiprocessing.get_context("spawn").Process(
                        target=run_cell, args=(data, method, seed, args.root, args.out, 60 * args.minutes, path)
                    )
                    cell.start()
                    cell.join()
    print(table(args.out))


if __name__ == "__main__":
    main()
