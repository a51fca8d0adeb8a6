"""Faces with and without masks: SSH, the reference detector and YuNet, on the same test photos and one core.

    python benchmarks/faces.py DATA/mask_faces WEIGHTS train ssh 0      # one training and its test, kept as JSON
    python benchmarks/faces.py DATA/mask_faces WEIGHTS yunet            # OpenCV's, on twice enlarged photos
    python benchmarks/faces.py DATA/mask_faces WEIGHTS speed            # YuNet and SSH of seed 0, photo by photo
    python benchmarks/faces.py DATA/mask_faces WEIGHTS table            # what is there

A training's number of steps is its budget divided by the CPU seconds of a step, measured first; so the schedule is
complete whatever else the machine does. One that was stopped goes on where it was. ``--holdout`` trains on 553 of the
training photos and tests on the other 100, which is how the recipe was chosen. ``WEIGHTS`` is a folder with
``mobilenetv1_x0.25_imagenet.tar`` and ``yunet_n.onnx``.
"""

import argparse
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn

from sniper.data.source import load_dataset
from sniper.data.table import AnnotationTable
from sniper.demo.assets import imagenet_mobilenet_v2
from sniper.nn.host_memory import keep_freed_memory
from sniper.pipeline.chip_source import ChipSource
from sniper.pipeline.detectors import build_detector, resolve_pyramid
from sniper.pipeline.model import Model, load_model
from sniper.pipeline.train import train
from sniper.recipe import Recipe
from sniper.structures import Batch

IOU = 0.4  # the yardstick of the data set
SMALL_PX = 32.0
HELD_OUT = 100
YUNET_SCALE = 2.0
FOCUS = (0.02, 0.05, 0.1, 0.2, 0.4)  # thresholds of AutoFocus


def recipe_of(detector: str, weights: Path, seed: int, steps: int, overrides: list[str]) -> Recipe:
    """The shipped recipe of a detector, less what costs time and says nothing here."""
    name = "faces/small" if detector.startswith("ssh") else "mobilenetv2"
    trunk = weights / "mobilenetv1_x0.25_imagenet.tar"
    own = [f"model.weights={trunk if detector.startswith('ssh') else imagenet_mobilenet_v2()}"]
    own += ["model.focus=true"] if detector.endswith("-focus") else []
    shared = [
        f"train.steps={steps}", f"train.seed={seed}", "train.device=cpu", "train.tensorboard=false",
        "train.checkpoint_every_minutes=5", "train.evaluate_every=null", "loader.workers=0",
    ]  # fmt: skip
    return Recipe.load(name, [*own, *shared, *overrides])


def step_seconds(recipe: Recipe, table: AnnotationTable, warm: int = 3, measured: int = 10) -> float:
    """CPU seconds of one training step: loading, forward, backward, update."""
    keep_freed_memory()  # as training does
    recipe, pyramid = resolve_pyramid(recipe, table)
    source = ChipSource(table, pyramid, recipe)
    detector = build_detector(recipe, 1).to(memory_format=torch.channels_last).train()
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


def run_training(args: argparse.Namespace) -> None:
    """Train one detector, test it, and keep what came out."""
    torch.set_num_threads(1)
    train_table, test_table = tables(args.root, holdout=args.holdout)
    name = f"faces-{args.tag or args.detector}-{args.seed}{'-holdout' if args.holdout else ''}"
    folder, planned = args.runs / "train" / name, args.out / f"{name}.plan.json"
    args.out.mkdir(parents=True, exist_ok=True)
    if not planned.is_file():
        trial = recipe_of(args.detector, args.weights, args.seed, 1, args.set)
        per_step = step_seconds(trial, train_table)
        steps = args.steps or max(20, round(60 * args.minutes / per_step))
        planned.write_text(json.dumps({"step_seconds": per_step, "steps": steps, "cpu_seconds": 0.0}))
    plan = json.loads(planned.read_text())
    recipe = recipe_of(args.detector, args.weights, args.seed, plan["steps"], args.set)
    cpu = time.process_time()
    resume = folder if (folder / "recipe.yaml").is_file() else None
    done = train(recipe, data=train_table, name=None if resume else name, root=args.runs, resume=resume)
    plan["cpu_seconds"] += time.process_time() - cpu
    model = load_model(done.folder, device="cpu")
    result = plan | {"chips": done.result.chips, "epochs": done.result.epochs} | tested(model, test_table)
    result["levels"] = [level.model_dump(mode="json", exclude_none=True) for level in model.pyramid.levels]
    if len(model.pyramid.levels) > 1:
        result["focus"] = {str(one): tested(model.focused(one), test_table) for one in FOCUS}
    (args.out / f"{name}.json").write_text(json.dumps(result, indent=1))
    print(name, json.dumps({key: value for key, value in result.items() if key != "focus"}))


def tables(root: Path, *, holdout: bool) -> tuple[AnnotationTable, AnnotationTable]:
    """Training and test photos."""
    table = load_dataset(root / "train.json")
    if not holdout:
        return table, load_dataset(root / "test.json", classes=table.class_names)
    order = np.random.default_rng(0).permutation(len(table))
    return table.select(np.sort(order[HELD_OUT:])), table.select(np.sort(order[:HELD_OUT]))


def tested(model: Model, table: AnnotationTable) -> dict[str, Any]:
    """Detections in all photos, one after the other: how good they are and what they cost."""
    rows: list[NDArray[np.float64]] = []
    pixels, cpu = 0, time.process_time()
    for row in range(len(table)):
        found = model.detect(str(table.image_path(row)), min_score=0.01)
        pixels += found.pixels_processed
        rows.append(_rows(row, found.boxes_xyxy, found.scores))
    cpu = time.process_time() - cpu
    return measured(table, rows) | {
        "cpu_seconds_per_photo": cpu / len(table), "megapixels_per_photo": pixels / len(table) / 1e6,
    }  # fmt: skip


def _rows(row: int, boxes_xyxy: NDArray[Any], scores: NDArray[Any]) -> NDArray[np.float64]:
    """(N, 7) as COCO's tools take them."""
    wh = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    head, one = np.full((len(scores), 1), row + 1), np.ones((len(scores), 1))
    return np.concatenate([head, boxes_xyxy[:, :2], wh, scores[:, None], one], axis=1)


def measured(table: AnnotationTable, rows: list[NDArray[np.float64]]) -> dict[str, float]:
    """AP at IoU 0.4, of all faces and of those below 32 px, and the share of faces found at all, by COCO's tool."""
    truth = COCO()
    boxes = table.boxes_xyxy.astype(np.float64)
    wh, image = boxes[:, 2:] - boxes[:, :2], table.image_rows_of_objects() + 1
    truth.dataset = {
        "images": [{"id": row + 1} for row in range(len(table))],
        "categories": [{"id": 1}],
        "annotations": [
            {"id": i + 1, "image_id": int(image[i]), "category_id": 1, "iscrowd": 0, "area": float(wh[i].prod()),
             "bbox": [*boxes[i, :2].tolist(), *wh[i].tolist()]}
            for i in range(len(boxes))
        ],
    }  # fmt: skip
    truth.createIndex()
    found = truth.loadRes(np.concatenate(rows))
    scoring = COCOeval(truth, found, "bbox")
    scoring.params.iouThrs = np.array([IOU, 0.5])
    scoring.params.areaRng = [[0, 1e10], [0, SMALL_PX**2], [SMALL_PX**2, 1e10]]
    scoring.params.areaRngLbl = ["all", "small", "large"]
    scoring.params.maxDets = [1, 10, 300]
    scoring.evaluate()
    scoring.accumulate()
    precision, recall = scoring.eval["precision"][..., 0, :, 2], scoring.eval["recall"][:, 0, :, 2]
    return {
        "AP40": precision[0, :, 0].mean(), "AP50": precision[1, :, 0].mean(), "AP40_small": precision[0, :, 1].mean(),
        "recall": recall[0, 0], "recall_small": recall[0, 1], "recall_large": recall[0, 2],
    }  # fmt: skip


def yunet(args: argparse.Namespace) -> dict[str, Any]:
    """YuNet on twice enlarged photos, in the same measure; time with decoding and enlarging, as SSH's."""
    cv2.setNumThreads(1)
    table = tables(args.root, holdout=args.holdout)[1]
    network = cv2.FaceDetectorYN.create(str(args.weights / "yunet_n.onnx"), "", (320, 320), 0.01, 0.3, 5000)
    rows, pixels, cpu = [], 0, time.process_time()
    for row in range(len(table)):
        image = cv2.imread(str(table.image_path(row)))
        image = cv2.resize(image, None, fx=YUNET_SCALE, fy=YUNET_SCALE, interpolation=cv2.INTER_LINEAR)
        network.setInputSize((image.shape[1], image.shape[0]))
        pixels += image.shape[0] * image.shape[1]
        found = network.detect(image)[1]
        found = np.zeros((0, 15)) if found is None else found.astype(np.float64)
        xy, wh = found[:, :2] / YUNET_SCALE, found[:, 2:4] / YUNET_SCALE
        rows.append(_rows(row, np.concatenate([xy, xy + wh], axis=1), found[:, 14]))
    cpu = time.process_time() - cpu
    return measured(table, rows) | {
        "cpu_seconds_per_photo": cpu / len(table), "megapixels_per_photo": pixels / len(table) / 1e6,
    }  # fmt: skip


def speed(args: argparse.Namespace, photos: int = 40) -> dict[str, float]:
    """CPU milliseconds of a photo, decoding included: YuNet and a trained SSH in turn, so that load hits both alike."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    table = tables(args.root, holdout=args.holdout)[1]
    model = load_model(args.runs / "train" / "faces-ssh-0", device="cpu")
    network = cv2.FaceDetectorYN.create(str(args.weights / "yunet_n.onnx"), "", (320, 320), 0.01, 0.3, 5000)
    spent = {"yunet": 0.0, "ssh": 0.0}
    for row in range(-2, photos):  # two to warm up
        path = str(table.image_path(max(row, 0)))
        started = time.process_time()
        image = cv2.resize(cv2.imread(path), None, fx=YUNET_SCALE, fy=YUNET_SCALE)
        network.setInputSize((image.shape[1], image.shape[0]))
        network.detect(image)
        between = time.process_time()
        model.detect(path, min_score=0.01)
        if row >= 0:
            spent["yunet"] += between - started
            spent["ssh"] += time.process_time() - between
    return {name: 1000 * seconds / photos for name, seconds in spent.items()}


def table_of(folder: Path) -> str:
    """The finished trainings as rows of a table, and AutoFocus's thresholds below theirs."""
    numbers = ("AP40", "AP50", "AP40_small", "recall", "recall_small", "megapixels_per_photo", "cpu_seconds_per_photo")
    rows = ["| | steps | CPU min | " + " | ".join(numbers) + " |", "|---" * (len(numbers) + 3) + "|"]
    for path in sorted(folder.glob("*.json")):
        if path.name.endswith(".plan.json"):
            continue
        cell = json.loads(path.read_text())
        first = f"| {path.stem} | {cell['steps']} | {cell['cpu_seconds'] / 60:.1f} |"
        rows.append(" ".join([first, *(f"{cell[name]:.3f} |" for name in numbers)]))
        for threshold, focused in cell.get("focus", {}).items():
            rows.append(" ".join([f"| focus {threshold} | | |", *(f"{focused[name]:.3f} |" for name in numbers)]))
    return "\n".join(rows)


def main() -> None:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder of mask_faces")
    parser.add_argument("weights", type=Path, help="folder with the weight files")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/faces"))
    parser.add_argument("--runs", type=Path, default=Path("runs/faces"))
    parser.add_argument("--holdout", action="store_true", help="leave the test photos alone")
    verbs = parser.add_subparsers(dest="verb", required=True)
    training = verbs.add_parser("train")
    training.add_argument("detector", choices=["ssh", "ssh-focus", "reference", "reference-focus"])
    training.add_argument("seed", type=int)
    training.add_argument("--minutes", type=float, default=20.0, help="CPU minutes of training")
    training.add_argument("--steps", type=int, help="in place of what the minutes buy")
    training.add_argument("--set", nargs="*", default=[], help="settings of the recipe")
    training.add_argument("--tag", help="name of the cell, where settings differ")
    for name in ("yunet", "speed", "table"):
        verbs.add_parser(name)
    args = parser.parse_args()
    if args.verb == "train":
        run_training(args)
    elif args.verb == "table":
        print(table_of(args.out))
    else:
        print(json.dumps({"yunet": yunet, "speed": speed}[args.verb](args)))


if __name__ == "__main__":
    main()
