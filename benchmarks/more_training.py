"""What hard negatives bring a detector that has learned its objects: it goes on with or without them, as long.

    python benchmarks/more_training.py DATA_ROOT --start runs/same_budget/train/people-chips-0 --data people

The detector of a ``chips`` cell of ``same_budget.py`` trains on, for equal CPU time: on positive chips as before; on
positive and random chips; or it is first asked what it takes for objects, from a share of the windows, and negative
chips of its false positives are added. Every way is tested alike and kept as JSON; the table counts false positives on
background where both find the same share of the objects.
"""

import argparse
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import matplotlib
import numpy as np
import torch

from same_budget import base, in_own_process, layered, step_seconds, tables, tested
from sniper.detectors.sniper.network import build_sniper
from sniper.inference.config import ProposeConfig
from sniper.pipeline.chip_source import ChipSource
from sniper.pipeline.model import load_model
from sniper.pipeline.propose import propose
from sniper.pipeline.train import train
from sniper.recipe import Recipe
from sniper.report.chart import STYLE, new_figure, png
from sniper.report.palette import NEGATIVE, ORANGE, YELLOW, hexadecimal

NEGATIVES = 0.5  # negative chips, and random ones, for each positive one
WAYS: dict[str, dict[str, Any]] = {
    "chips": {},
    "random": {"chips": {"background_share": NEGATIVES}},
    "negatives": {
        "negatives": {
            "min_proposals": 1,
            "min_proposals_finest": 1,
            "max_per_positive": NEGATIVES,
            "sampling": "score",
        },
    },
}
DRAWN = {
    "negatives": ("with negative chips", ORANGE),
    "random": ("with random chips", NEGATIVE),
    "chips": ("positive chips alone", YELLOW),
}
ASKED = ProposeConfig(boxes="detections", min_score=0.1, nms_iou=0.5, window_share=0.25)


def run_way(way: str, seed: int, args: argparse.Namespace, path: Path) -> None:
    """Train on one way, on one thread, test, and keep what came out."""
    torch.set_num_threads(1)
    train_table, test_table = tables(args.data, args.root, args.stress)
    start = load_model(args.start, device="cpu")
    own = {"pyramid": start.pyramid.model_dump(mode="json"), "chips": {"background_per_image": 0}}
    settings = layered(base(seed), own, WAYS[way]) | {"weights": str(args.start)}
    asked = 0.0
    if way == "negatives":
        file = args.runs / f"{path.stem}.safetensors"
        file.unlink(missing_ok=True)
        began = time.process_time()
        settings["negatives"]["proposals"] = str(file)
        propose(start, train_table, file, config=ASKED, device="cpu")
        asked = time.process_time() - began
    recipe = Recipe.parse(settings, way)
    detector = build_sniper(recipe.model, len(train_table.class_names)).to(memory_format=torch.channels_last)
    per_step = step_seconds(detector, ChipSource(train_table, start.pyramid, recipe))
    settings["train"]["steps"] = max(20, round((60 * args.minutes - asked) / per_step))
    shutil.rmtree(args.runs / "train" / path.stem, ignore_errors=True)  # of one that was cut off
    began = time.process_time()
    run = train(Recipe.parse(settings, way), data=train_table, name=path.stem, root=args.runs)
    cell = {
        "data": args.data,
        "way": way,
        "seed": seed,
        "start": args.start.name,
        "steps": run.result.step,
        "chips": run.result.chips,
        "epochs": run.result.epochs,
        "asked_cpu_seconds": asked,
        "step_seconds": per_step,
        "train_cpu_minutes": (time.process_time() - began) / 60,
    }
    path.write_text(json.dumps(cell | tested(run.folder, train_table, test_table, run.result.chips), indent=1))


def table(out: Path) -> str:
    """AP, and false positives on background at equal recall."""
    cells = [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]
    recalls = (0.2, 0.3, 0.4, 0.5, 0.6)
    head = "| data | seed | way | steps | AP | AP50 | background at recall "
    lines = [head + " | ".join(f"{recall:g}" for recall in recalls) + " |", "|---" * (6 + len(recalls)) + "|"]
    for cell in cells:
        counts = []
        for recall in recalls:
            reached = [error for error in cell["errors"] if error["recall"] >= recall - 1e-9]
            counts.append(f"{reached[0]['background']:.0f}" if reached else "-")
        scores = f"{100 * cell['metrics']['AP']:.1f} | {100 * cell['metrics']['AP50']:.1f}"
        lines.append(
            f"| {cell['data']} | {cell['seed']} | {cell['way']} | {cell['steps']} | {scores} | {' | '.join(counts)} |"
        )
    return "\n".join(lines)


def draw(out: Path) -> bytes:
    """Background found with a share of the objects, a dot a seed and a line for their mean; AP50."""
    cells = [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]
    ways = [way for way in DRAWN if any(cell["way"] == way for cell in cells)]
    with matplotlib.rc_context(STYLE):
        figure, (curve, bars) = new_figure(9.6, 3.6, 2)
        for place, way in enumerate(ways):
            name, color = DRAWN[way][0], hexadecimal(DRAWN[way][1])
            group = [cell for cell in cells if cell["way"] == way]
            max_count = min(len(cell["errors"]) for cell in group)
            counts = np.asarray([[error["background"] for error in cell["errors"][:max_count]] for cell in group])
            recalls = 0.05 * np.arange(1, max_count + 1)
            curve.plot(recalls, counts.T, "o", color=color, markersize=3.2, alpha=0.7)
            curve.plot(recalls, counts.mean(axis=0), color=color, label=name)
            scores = [100 * cell["metrics"]["AP50"] for cell in group]
            bars.barh(place, np.mean(scores), 0.6, color=color)
            bars.plot(scores, [place] * len(scores), "o", color="#1f2328", markersize=3.2)
        curve.set_yscale("log")
        curve.set_ylim(bottom=1)
        curve.set_xlim(left=0.12)
        curve.set_title("False positives on background ...")
        curve.set_xlabel("share of the objects found (recall)")
        curve.set_ylabel("detections on background")
        curve.legend(loc="upper left")
        bars.set_title("... and AP50 x 100, a dot a seed")
        bars.set_yticks(range(len(ways)), [DRAWN[way][0] for way in ways])
        bars.grid(axis="y", visible=False)
        bars.invert_yaxis()
        return png(figure)


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder with the data sets, as for same_budget.py")
    parser.add_argument("--start", type=Path, required=True, help="run folder of a chips cell")
    parser.add_argument("--data", default="people")
    parser.add_argument("--stress", type=Path, default=Path("scale-stress"))
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--minutes", type=float, default=16.0, help="CPU minutes of training a way")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/more_training"))
    parser.add_argument("--runs", type=Path, default=Path("runs/more_training"))
    parser.add_argument("--picture", type=Path, default=Path("docs/images/negatives.png"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    args.runs.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        for way in args.ways:
            path = args.out / f"{args.data}-{way}-{seed}.json"
            if not path.is_file():
                in_own_process(run_way, way, seed, args, path)
    print(table(args.out))
    args.picture.write_bytes(draw(args.out))


if __name__ == "__main__":
    main()
