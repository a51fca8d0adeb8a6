"""AP against training time on one GPU: chips, whole images and tiles, all at once, each with the same share of it.

    python benchmarks/gpu/same_time.py --minutes 3 --out results --cells hit_uav:auto hit_uav:whole stress:auto
    python benchmarks/gpu/same_time.py --minutes 0.3 --cells hit_uav:auto --test-images 8   # a trial on the CPU
    python benchmarks/gpu/same_time.py --recipe transformers/dfine_small --cells hit_uav:auto hit_uav:whole

DATA is a folder with ``train.json`` and ``test.json``. Cells run at the same time in processes of their own, so they
share card and cores evenly whatever each of them does; every one stops after ``--minutes``. A batch is about four
megapixels for all, so all take the same learning rate. Each is tested the way it was trained. JSON, a line a cell;
checkpoints stay in ``--out`` (weights alone, for tests at other scales). With ``--recipe`` the detector and its
optimiser are a shipped recipe's, changed by ``--set``.
"""

import argparse
import json
import logging
import multiprocessing
import os
import shutil
import time
from pathlib import Path
from typing import Any

CHIPS = {"sampler": {"method": "chips"}, "loader": {"batch_size": 16}}


def zoom(scale: float, **more: Any) -> dict[str, Any]:
    """Chips at one scale without ranges."""
    return {
        "sampler": {"method": "chips", **more},
        "loader": {"batch_size": 16},
        "pyramid": {"levels": [{"scale": scale}], "chip_px": 512},
    }


def whole(short_px: int, long_px: int, batch: int, **more: Any) -> dict[str, Any]:
    """Whole images at one size."""
    return {
        "sampler": {"method": "whole", **more},
        "loader": {"batch_size": batch, "shuffle_chips": 32},
        "pyramid": {"levels": [{"short_px": short_px, "long_px": long_px}], "chip_px": 512},
        "inference": {"window_px": long_px},
    }


WAYS: dict[str, dict[str, Any]] = {
    "auto": CHIPS | {"pyramid": {"levels": "auto"}},
    "spread-5": CHIPS | {"pyramid": {"levels": "auto", "max_spread": 5}},  # the default until November 2026
    "spread-12": CHIPS | {"pyramid": {"levels": "auto", "max_spread": 12}},
    "one": CHIPS | {"pyramid": {"levels": "auto", "max_spread": 1000}},
    "one-32": CHIPS | {"pyramid": {"levels": "auto", "max_spread": 1000, "object_px": 32}},
    "auto-2": CHIPS | {"pyramid": {"levels": "auto", "max_scale": 2.0}},
    "auto-jitter": {**CHIPS, "sampler": {"method": "chips", "scale_jitter": 1.4}, "pyramid": {"levels": "auto"}},
    "zoom-1": zoom(1.0),
    "zoom-1.5": zoom(1.5),
    "zoom-2": zoom(2.0),
    "zoom-3": zoom(3.0),
    "zoom-2-jitter": zoom(2.0, scale_jitter=1.4),
    "zoom-2-wide": zoom(2.0, scale_jitter=2.0),  # for the size response: sizes from half to twice
    "whole": whole(800, 1333, 4),
    "whole-jitter": whole(800, 1333, 4, scale_jitter=1.4),
    "whole-large-jitter": whole(1229, 2048, 2, scale_jitter=1.4),
    "tiles": {
        "sampler": {"method": "tiles"},
        "loader": {"batch_size": 16},
        "pyramid": {"levels": [{"scale": 1.0}], "chip_px": 512},
        "inference": {"window_px": 512, "overlap": 0.2},
    },
}


def settings(way: str, args: argparse.Namespace) -> dict[str, Any]:
    """The recipe of a way, with what all share."""
    shared: dict[str, dict[str, Any]] = {
        "model": {"weights": args.weights},
        "loader": {"workers": args.workers},
        "augment": {"horizontal_flip": 0.5, "vertical_flip": 0.5},
        "evaluation": {"max_detections": 600},
        "inference": {"merge": {"max_per_image": 600}, "precision": args.precision, "batch_pixels": 16 * 2**20},
        "train": {
            "optimizer": "adamw", "learning_rate": 1.5e-3, "weight_decay": 0.05, "schedule": "cosine",
            "warmup_steps": 50, "clip_norm": 5.0, "seed": args.seed, "tensorboard": False,
            "checkpoint_every_minutes": None, "precision": args.precision, "minutes": args.minutes,
        },
    }  # fmt: skip
    own = WAYS[way]
    return {section: shared.get(section, {}) | own.get(section, {}) for section in shared | own}


def recipe_of(way: str, args: argparse.Namespace) -> Any:
    """The reference detector with a way's settings, or the recipe that is asked for."""
    from sniper.recipe import Recipe

    given = settings(way, args)
    if args.recipe is None:
        return Recipe.parse(given, way).changed(args.set)
    del given["model"]
    for name in ("optimizer", "learning_rate", "weight_decay", "clip_norm"):
        del given["train"][name]
    changes = [f"{part}.{name}={json.dumps(value)}" for part, own in given.items() for name, value in own.items()]
    return Recipe.load(args.recipe).changed([*changes, *args.set])


def run_way(data: Path, way: str, args: argparse.Namespace, begin: Any) -> None:
    """Train and test one way; its JSON and its weights go into ``args.out``."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import numpy as np
    import torch

    from sniper.backends.torch import TorchBackend
    from sniper.data.source import load_dataset
    from sniper.pipeline.checkpoint_model import pick_device
    from sniper.pipeline.evaluate import evaluate_table
    from sniper.pipeline.model import load_model
    from sniper.pipeline.train import train

    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    table = load_dataset(data / "train.json")
    test = load_dataset(data / "test.json", classes=table.class_names, missing_classes="allow")
    test = test.select(np.arange(min(args.test_images, len(test))))
    recipe = recipe_of(way, args)
    if torch.cuda.is_available():
        torch.zeros(1, device="cuda")
    begin.wait()  # all have imported everything
    run = train(recipe, data=table, name=f"{data.name}-{way}", root=args.out / "runs")
    weights = next(run.folder.glob("**/last.safetensors"))
    shutil.copy(weights, args.out / f"{data.name}-{way}.safetensors")
    model = load_model(run.folder, device=pick_device())
    started = time.perf_counter()
    backend = TorchBackend(model.detector, device=pick_device(), precision=args.precision)
    done = evaluate_table(backend, test, model.pyramid, model.recipe.inference, model.recipe.evaluation)
    numbers = done.result.as_dict()
    result = {
        "data": data.name,
        "way": way,
        "network": run.recipe.model.network,
        "seed": args.seed,
        "minutes": round(run.result.minutes, 2),
        "steps": run.result.step,
        "epochs": round(run.result.epochs, 2),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "levels": [level.model_dump(mode="json", exclude_none=True) for level in model.pyramid.levels],
        **{name: round(100 * numbers[name], 1) for name in ("AP", "AP50", "AP75", "AP_small", "AP_medium")},
        "classes": {score.name: round(100 * score.ap, 1) for score in done.result.classes},
        "loss": losses(run.folder),
        "cpu_seconds": round(time.process_time(), 1),
        "test_megapixels": round(done.pixels_per_image / 1e6, 2),
        "test_seconds": round(time.perf_counter() - started, 1),
    }
    (args.out / f"{data.name}-{way}.json").write_text(json.dumps(result))
    print(json.dumps(result), flush=True)


def losses(folder: Path) -> list[float]:
    """The loss at the beginning and at the end of a run, means of a tenth of its log."""
    import csv

    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        rows = [float(row["loss"]) for row in csv.DictReader(file) if row.get("loss")]
    few = max(1, len(rows) // 10)
    return [round(sum(part) / len(part), 2) for part in (rows[:few], rows[-few:])]


def main() -> None:
    """Start all ways at once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", metavar="DATA:WAY", required=True, help=f"ways: {', '.join(WAYS)}")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--recipe", help="a shipped recipe; none: the reference detector")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--test-images", type=int, default=10**6)
    parser.add_argument("--out", type=Path, default=Path("same-time"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    cells = [cell.rpartition(":") for cell in args.cells]
    begin = context.Barrier(len(cells))
    running = [context.Process(target=run_way, args=(Path(data), way, args, begin)) for data, _, way in cells]
    for process in running:
        process.start()
    for process in running:
        process.join()


if __name__ == "__main__":
    main()
