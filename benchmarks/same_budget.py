"""Chips, with and without negatives, against whole images and uniform tiles: one detector, one budget of CPU time.

    python benchmarks/same_budget.py DATA_ROOT --stress FOLDER
    python benchmarks/same_budget.py DATA_ROOT --table

A cell is (data set, method, seed). Its number of steps is the budget divided by the CPU seconds of a step of that
method, measured first; so the schedule is complete whatever else the machine does, and every cell costs the same.
What ``negatives`` spends on looking for its false positives is part of its budget. Each cell is tested the way it was
trained; ``tiles-sahi`` is the detector of ``tiles`` in SAHI's sliced prediction, which looks at the whole image too.
Finished cells are kept as JSON and not run again; table and picture are made from what is there.
``FOLDER`` is what ``scale_stress.py`` writes: a synthetic set.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import numpy as np
import torch
from torch import nn

from budget_report import draw, table
from sniper.backends.torch import TorchBackend
from sniper.data.detection_files import save_detections
from sniper.data.detections import DetectionTable
from sniper.data.source import load_dataset
from sniper.data.table import AnnotationTable
from sniper.demo.assets import demo_data, imagenet_mobilenet_v2
from sniper.detectors.sniper.network import build_sniper
from sniper.evaluation.error_types import judge
from sniper.inference.autofocus import CoarseToFine
from sniper.inference.config import AutoFocusConfig, InferenceConfig
from sniper.inference.proposing import propose_images
from sniper.nn.host_memory import keep_freed_memory
from sniper.pipeline.chip_source import ChipSource
from sniper.pipeline.detectors import resolve_pyramid
from sniper.pipeline.evaluate import evaluate_table
from sniper.pipeline.model import load_model
from sniper.pipeline.sources import Skipped, table_images
from sniper.pipeline.train import train
from sniper.pixels.decode import read_image
from sniper.pyramid import Pyramid
from sniper.recipe import Recipe
from sniper.structures import Batch

TOP_PX = 2048  # longest side of a whole image that training has the memory for
LOOK_SHARE = 0.1  # most of the budget that asking a detector for its false positives may take

METHODS: dict[str, dict[str, Any]] = {
    "chips": {  # nothing but positive ones: photos without objects are not seen
        "sampler": {"method": "chips"},
        "pyramid": {"levels": "auto"},
        "chips": {"background_per_image": 0},
    },
    "negatives": {
        "sampler": {"method": "chips"},
        "pyramid": {"levels": "auto"},
        "chips": {"background_per_image": 0},
        "negatives": {"proposals": "self", "per_positive": 0.2, "max_per_positive": 0.25},
    },
    "random": {  # as many negative chips, none of them hard
        "sampler": {"method": "chips"},
        "pyramid": {"levels": "auto"},
        "chips": {"background_per_image": 0, "background_share": 0.25},
    },
    "tiles": {
        "sampler": {"method": "tiles"},
        "pyramid": {"levels": [{"scale": 1.0}], "chip_px": 512},
        "inference": {"window_px": 512, "overlap": 0.2},
    },
    "whole": {
        "sampler": {"method": "whole"},
        "pyramid": {"levels": [{"short_px": 800, "long_px": 1333}], "chip_px": 512},
        "loader": {"batch_size": 2},
    },
    "whole-top": {  # the size of the chips' finest level, as far as memory allows
        "sampler": {"method": "whole"},
        "pyramid": {"levels": [{"long_px": TOP_PX}], "chip_px": 512},
        "loader": {"batch_size": 1},
        "inference": {"window_px": TOP_PX},
    },
    "pyramid": {"sampler": {"method": "tiles"}, "pyramid": {"levels": "auto"}},
}
# The data would suggest a finest zoom of 3.8 on the synthetic padded inputs, of 3.6 for people: too long a test.
OVERRIDES = {name: {"pyramid": {"max_scale": 2.0}} for name in ("stress", "people")}
SEEDS = {name: (0,) if name in ("random", "whole-top", "pyramid") else (0, 1) for name in [*METHODS, "tiles-sahi"]}


def base(seed: int) -> dict[str, Any]:
    """What all methods share. A batch is 2 megapixels for each: eight chips or tiles, two whole images."""
    return {
        "model": {"weights": str(imagenet_mobilenet_v2())},
        "loader": {"batch_size": 8, "workers": 0},
        # Tree crowns stand 279 in one photo: AP_maxdets counts as many detections as that takes, AP the usual 100.
        "evaluation": {"max_detections": 600},
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


def tables(name: str, root: Path, stress: Path) -> tuple[AnnotationTable, AnnotationTable]:
    """Training and test tables of a data set."""
    if name == "crowns":
        data = demo_data()
        return _pair(load_dataset(data.train), data.heldout)
    if name == "stress":
        return _pair(load_dataset(stress / "train.json"), stress / "test.json")
    if name == "cars":
        folder = root / "aerial_cars_kit_ais"
        train_table = load_dataset(folder / "annotations" / "train.json", image_root=folder)
        return _pair(train_table, folder / "annotations" / "test.json", image_root=folder)
    if name == "people":  # half of the photos show none
        folder = root / "coco_subset" / "annotations"
        test = load_dataset(folder / "instances_val2017.json", classes=("person",))
        return load_dataset(folder / "instances_train2017.json", classes=("person",)), test.select(np.arange(100))
    if name == "coco":
        folder = root / "coco_subset" / "annotations"
        first, second = (load_dataset(folder / f"instances_{part}2017.json") for part in ("train", "val"))
        return _of_one_class(first), _of_one_class(second.select(np.arange(60)))
    return _pair(load_dataset(root / "bccd", split="train"), root / "bccd", split="test")


def _of_one_class(table: AnnotationTable) -> AnnotationTable:
    one = {"labels": np.zeros_like(table.labels), "class_names": ("object",), "class_ids": np.ones(1, np.int64)}
    return replace(table, **one)


def _pair(train_table: AnnotationTable, test: Path | str, **kwargs: Any) -> tuple[AnnotationTable, AnnotationTable]:
    return train_table, load_dataset(test, classes=train_table.class_names, missing_classes="allow", **kwargs)


def recipe_for(method: str, seed: int, steps: int, overrides: dict[str, Any] | None = None) -> Recipe:
    """The recipe of a cell."""
    settings = layered(base(seed), METHODS[method], overrides or {})
    settings["train"]["steps"] = steps
    return Recipe.parse(settings, method)


def layered(settings: dict[str, Any], *layers: dict[str, Any]) -> dict[str, Any]:
    """Settings by section, later layers over earlier ones."""
    for layer in layers:
        settings = settings | {section: settings.get(section, {}) | values for section, values in layer.items()}
    return settings


class Plan(NamedTuple):
    """How a cell spends its budget."""

    recipe: Recipe
    step_seconds: float
    look_seconds: float


def plan(data: str, method: str, seed: int, table: AnnotationTable, budget: float, steps_of_chips: int | None) -> Plan:
    """The recipe whose training takes ``budget`` CPU seconds.

    With ``steps_of_chips``, the budget is what as many steps of plain chips take here and now: the CPU seconds of a
    step depend on the machine and on what else it does.
    """

    def measured(method: str) -> tuple[Recipe, nn.Module, float]:
        recipe, pyramid = resolve_pyramid(recipe_for(method, seed, 1, _extra(data, method)), table)
        detector = build_sniper(recipe.model, len(table.class_names)).to(memory_format=torch.channels_last)
        return recipe, detector, step_seconds(detector, ChipSource(table, pyramid, recipe))

    recipe, detector, per_step = measured(method)
    if steps_of_chips is not None:
        budget = steps_of_chips * (per_step if method in ("chips", "negatives", "random") else measured("chips")[-1])
    extra = _extra(data, method)
    if method != "negatives":
        return Plan(recipe_for(method, seed, max(20, round(budget / per_step)), extra), per_step, 0.0)
    full = look_seconds(detector, table, recipe)
    share = min(1.0, LOOK_SHARE * budget / full)
    settings = METHODS[method]["negatives"] | {"extraction": {"window_share": share}}
    steps = round((budget - share * full) / per_step)
    return Plan(recipe_for(method, seed, steps, {"negatives": settings} | extra), per_step, share * full)


def _extra(data: str, method: str) -> dict[str, Any]:
    return OVERRIDES.get(data, {}) if METHODS[method]["pyramid"]["levels"] == "auto" else {}


def step_seconds(detector: nn.Module, source: ChipSource, warm: int = 4, measured: int = 12) -> float:
    """CPU seconds of one training step: loading, forward, backward, update."""
    keep_freed_memory()  # as training does
    detector.train()
    optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-5)
    batches = itertools.chain.from_iterable(source.epoch(epoch, 0, 0, 1) for epoch in itertools.count())
    for batch in itertools.islice(batches, warm):
        _step(detector, optimizer, batch)
    started = time.process_time()
    for batch in itertools.islice(batches, measured):
        _step(detector, optimizer, batch)
    return (time.process_time() - started) / measured


def _step(detector: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    losses: dict[str, torch.Tensor] = detector.losses(batch.to("cpu", channels_last=True))  # type: ignore[operator]
    torch.stack(list(losses.values())).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def look_seconds(detector: nn.Module, table: AnnotationTable, recipe: Recipe, images: int = 12) -> float:
    """CPU seconds of looking at every window of a data set, from those of about 20 megapixels."""
    some = table.select(np.arange(min(images, len(table))))
    levels, chip_px = recipe.pyramid.levels, recipe.pyramid.chip_px
    pyramid = Pyramid(levels=levels, chip_px=chip_px)  # type: ignore[arg-type]
    full = [pixels_full(size, pyramid, recipe.inference) for size in table.sizes_wh.tolist()]
    share = min(1.0, 2e7 / sum(full[: len(some)]))
    config = recipe.negatives.extraction.model_copy(update={"window_share": share})
    backend = TorchBackend(detector)
    for _ in range(2):  # the first time, kernels are compiled
        started = time.process_time()
        found = propose_images(backend, table_images(some, Skipped()), pyramid, recipe.inference, config)
        seen = sum(one.pixels_processed for one in found)
    return (time.process_time() - started) / seen * sum(full)


def pixels_full(size_wh: tuple[int, int], pyramid: Pyramid, inference: InferenceConfig) -> int:
    """Canvas pixels of an image's full pyramid."""
    everything = CoarseToFine(
        [tuple(size_wh)],
        pyramid,
        AutoFocusConfig(),
        stride=16,
        window_px=inference.window_px,
        overlap=inference.overlap,
    )
    return int(everything.full_pixels.sum())


def run_cell(data: str, method: str, seed: int, args: argparse.Namespace, path: Path) -> None:
    """Train and test one cell on one thread, and keep it as JSON."""
    torch.set_num_threads(1)
    train_table, test_table = tables(data, args.root, args.stress)
    chips = [one for one in (args.out / f"{data}-chips-{k}.json" for k in (seed, 0)) if one.is_file()]
    steps_of_chips = json.loads(chips[0].read_text())["steps"] if chips else None
    how = plan(data, method, seed, train_table, 60 * args.minutes, steps_of_chips)
    name = path.stem
    shutil.rmtree(args.runs / "train" / name, ignore_errors=True)  # of a cell that was cut off
    wall, cpu = time.perf_counter(), time.process_time()
    run = train(how.recipe, data=train_table, name=name, root=args.runs)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    cell = {
        "data": data,
        "method": method,
        "seed": seed,
        "steps": run.result.step,
        "chips": run.result.chips,
        "step_seconds": how.step_seconds,
        "look_seconds": how.look_seconds,
        "train_cpu_minutes": cpu / 60,
        "train_wall_minutes": wall / 60,
        "epochs": run.result.epochs,
    }
    path.write_text(json.dumps(cell | tested(run.folder, train_table, test_table, run.result.chips), indent=1))


def sliced(data: str, seed: int, args: argparse.Namespace, path: Path) -> None:
    """Test the detector of ``tiles`` once more, as SAHI's users do, with the better of two thresholds.

    At its usual threshold SAHI merges with GREEDYNMM; at scores below 0.1 it takes NMS by itself.
    """
    from autofocus import Way, measure, sahi  # which needs SAHI

    torch.set_num_threads(1)
    tiles = json.loads((args.out / f"{data}-tiles-{seed}.json").read_text())
    model = load_model(args.runs / "train" / f"{data}-tiles-{seed}", device="cpu")
    table = tables(data, args.root, args.stress)[1]
    images = [read_image(table.image_path(row), size_wh=tuple(table.sizes_wh[row])) for row in range(len(table))]
    found = [measure(Way("", "", sahi(model, lambda _: 1.0, score)), images, table, model) for score in (0.3, 0.01)]
    best = max(found, key=lambda one: one["metrics"]["AP"])
    cell = {
        "method": "tiles-sahi",
        "merge": ("GREEDYNMM, scores from 0.3", "NMS, scores from 0.01")[found.index(best)],
        "other_AP": min(one["metrics"]["AP"] for one in found),
        "metrics": best["metrics"],
        "test_megapixels_per_image": best["megapixels_per_image"],
        "test_cpu_seconds_per_image": best["cpu_seconds_per_image"],
        "errors": [],
    }
    path.write_text(json.dumps(tiles | cell, indent=1))


def tested(folder: Path, train_table: AnnotationTable, test_table: AnnotationTable, chips: int) -> dict[str, Any]:
    """What a trained cell finds on the test images; its detections go into its folder."""
    model = load_model(folder, device="cpu")
    recipe, pyramid = model.recipe, model.pyramid
    cpu = time.process_time()
    done = evaluate_table(model.backend, test_table, pyramid, recipe.inference, recipe.evaluation)
    cpu = time.process_time() - cpu
    save_detections(folder / "detections.safetensors", done.detections, {})
    padded = float(ChipSource(train_table, pyramid, recipe).chips(0).size_wh.astype(float).prod(axis=1).mean())
    return {
        "train_megapixels": chips * padded / 1e6,
        "test_megapixels_per_image": done.pixels_per_image / 1e6,
        "test_cpu_seconds_per_image": cpu / len(test_table),
        "levels": [level.model_dump(mode="json", exclude_none=True) for level in pyramid.levels],
        "metrics": done.result.as_dict(),
        "errors": errors(test_table, done.detections),
        "classes": [score._asdict() for score in done.result.classes],
    }


def errors(table: AnnotationTable, found: DetectionTable) -> list[dict[str, float]]:
    """What is wrong among the fewest best detections that reach a recall, for every recall that is reached."""
    verdicts = judge(table, found)
    reached = verdicts.best(number=len(verdicts.verdict)).recall
    return [verdicts.best(recall=recall).as_dict() for recall in np.arange(0.05, reached, 0.05)]


def _finished(path: Path) -> bool:
    """Whether a cell is there; those of before errors were counted are made again, with as many steps."""
    return path.is_file() and "errors" in json.loads(path.read_text())


def in_own_process(work: Callable[..., None], *what: Any) -> None:
    """Call ``work`` elsewhere: what one cell leaves behind (memory, threads) must not slow the next."""
    cell = multiprocessing.get_context("spawn").Process(target=work, args=what)
    cell.start()
    cell.join()


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder with aerial_cars_kit_ais, bccd and coco_subset")
    parser.add_argument("--stress", type=Path, default=Path("scale-stress"), help="what scale_stress.py has written")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/same_budget"))
    parser.add_argument("--runs", type=Path, default=Path("runs/same_budget"))
    parser.add_argument("--data", nargs="*", default=["stress", "cars", "bccd", "crowns"])
    parser.add_argument("--methods", nargs="*", default=list(SEEDS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1])
    parser.add_argument("--minutes", type=float, default=10.0, help="CPU minutes of training a cell")
    parser.add_argument("--picture", type=Path, default=Path("docs/images/same_budget.png"))
    parser.add_argument("--table", action="store_true", help="only print and draw what is there")
    args = parser.parse_args()
    if args.table:
        print(table(args.out))
        args.picture.write_bytes(draw(args.out))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    for seed, data, method in itertools.product(args.seeds, args.data, args.methods):
        path = args.out / f"{data}-{method}-{seed}.json"
        if seed in SEEDS[method] and not _finished(path):
            work, what = (sliced, (data, seed)) if method == "tiles-sahi" else (run_cell, (data, method, seed))
            in_own_process(work, *what, args, path)
    print(table(args.out))
    args.picture.write_bytes(draw(args.out))


if __name__ == "__main__":
    main()
