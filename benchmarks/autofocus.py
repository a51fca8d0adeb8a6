"""What looking closer only where it pays gives and costs: AutoFocus, the full pyramid, SAHI's slices, one level alone.

    python benchmarks/autofocus.py RUN DATA --name cars
    python benchmarks/autofocus.py RUN crowns --images 1
    python benchmarks/autofocus.py --table

One run, one checkpoint, the same images for all, decoded before the clock starts. RUN is a checkpoint or run folder
of a detector with a focus branch (``--set model.focus=true``) and several levels; without a branch its small
detections say where to look. DATA is anything ``sniper`` reads, or ``crowns``, the packaged tree crowns. SAHI gets
slices of 512 network px with 20 % overlap and its standard prediction of the whole image, both at original pixels
(zoom 1) and at the zoom of the checkpoint's finest level. With scores from 0.3 on, its default, it merges with
GREEDYNMM; with those below 0.1, which AP asks for, it takes NMS by itself. Both are measured. AP is COCO's; with
``max_detections`` above 100 in the recipe, AP and AP50 count that many.
"""

import argparse
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from sahi.predict import get_sliced_prediction

from sniper.data.detections import DetectionTable
from sniper.data.source import DataSource
from sniper.data.table import AnnotationTable
from sniper.demo.assets import demo_data
from sniper.evaluation.coco import evaluate_coco
from sniper.inference.config import InferenceConfig
from sniper.inference.detect import detect_images
from sniper.inference.images import ImageInput
from sniper.integrations.sahi import SniperDetectionModel
from sniper.pipeline.model import Model, load_model
from sniper.pipeline.tables import table_for
from sniper.pixels.decode import read_image
from sniper.pyramid import Pyramid
from sniper.report.tradeoff import Spent, draw_tradeoff

SLICE_PX = 512
OVERLAP = 0.2
SLICES_AT_ONCE = 8


class Looked(NamedTuple):
    """Detections of some images, and the pixels of the network that they took."""

    columns: list[tuple[NDArray, NDArray, NDArray]]  # of each image: (N, 4) boxes, (N,) scores, (N,) labels
    pixels: int


class Way(NamedTuple):
    """One way to look at images."""

    method: str
    note: str
    look: Callable[[list[NDArray[np.uint8]]], Looked]


def ours(model: Model, pyramid: Pyramid, config: InferenceConfig) -> Callable[[list[NDArray[np.uint8]]], Looked]:
    """Our inference over the levels of a pyramid."""

    def look(images: list[NDArray[np.uint8]]) -> Looked:
        pictures = (ImageInput(key, image) for key, image in enumerate(images))
        found = list(detect_images(model.backend, pictures, pyramid, config))
        columns = [(one.boxes_xyxy, one.scores, one.labels) for one in found]
        return Looked(columns, sum(one.pixels_processed for one in found))

    return look


def sahi(model: Model, zoom_of: Callable[[tuple[int, int]], float], score: float) -> Callable[[list], Looked]:
    """SAHI's sliced prediction: slices of ``SLICE_PX`` network px, which are smaller by the zoom in the image."""
    row_of = {number: row for row, number in enumerate(model.class_ids)}

    def look(images: list[NDArray[np.uint8]]) -> Looked:
        theirs = SniperDetectionModel(
            model=model, device=model.backend.device.type, image_size=SLICE_PX, confidence_threshold=score
        )
        columns = []
        for image in images:
            side = max(round(SLICE_PX / zoom_of((image.shape[1], image.shape[0]))), 1)
            found = get_sliced_prediction(
                image, theirs, slice_height=side, slice_width=side, overlap_height_ratio=OVERLAP,
                overlap_width_ratio=OVERLAP, batch_size=SLICES_AT_ONCE, verbose=0,
            ).object_prediction_list  # fmt: skip
            boxes = np.asarray([one.bbox.to_xyxy() for one in found], np.float32).reshape(-1, 4)
            scores = np.asarray([one.score.value for one in found], np.float32)
            order = np.argsort(-scores, kind="stable")
            labels = np.asarray([row_of[one.category.id] for one in found], np.int32)
            columns.append((boxes[order], scores[order], labels[order]))
        return Looked(columns, theirs.pixels_processed)

    return look


def ways(model: Model, thresholds: Iterable[float], scores: Iterable[float]) -> list[Way]:
    """Everything that is compared."""
    pyramid, plain = model.pyramid, model.recipe.inference.model_copy(update={"focus": None})
    focused = [(t, model.focused(t, None).recipe.inference) for t in thresholds]
    every = [Way("AutoFocus", f"{t:g}", ours(model, pyramid, config)) for t, config in focused]
    every.append(Way("full pyramid", "", ours(model, pyramid, plain)))

    def finest(size_wh: tuple[int, int]) -> float:
        return float(pyramid.scales(np.asarray([size_wh]))[0, 0])

    for score in scores:
        merge = "GREEDYNMM" if score >= 0.1 else "NMS"
        every.append(Way("SAHI, zoom 1", f"{merge}, scores from {score:g}", sahi(model, lambda _: 1.0, score)))
        every.append(Way("SAHI, finest zoom", f"{merge}, scores from {score:g}", sahi(model, finest, score)))
    for level in sorted({0, len(pyramid.levels) // 2}):
        one = pyramid.levels[level].model_copy(update={"infer_range_px": (0.0, None)})
        alone = Pyramid(levels=(one,), chip_px=pyramid.chip_px)
        every.append(Way("one level alone", f"level {level}", ours(model, alone, plain)))
    return every


def measure(way: Way, images: list[NDArray[np.uint8]], table: AnnotationTable, model: Model) -> dict[str, Any]:
    """Scores and costs of one way, the first image having been looked at once before."""
    way.look(images[:1])
    wall, cpu = time.perf_counter(), time.process_time()
    found = way.look(images)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    counts = [len(scores) for _, scores, _ in found.columns]
    boxes, scores, labels = (np.concatenate(column) for column in zip(*found.columns, strict=True))
    rows = np.repeat(np.arange(len(images)), counts)
    detections = DetectionTable.from_arrays(rows, boxes, scores, labels, None, table.image_ids)
    result = evaluate_coco(table, detections, model.recipe.evaluation)
    return {
        "method": way.method,
        "note": way.note,
        "metrics": result.as_dict(),
        "detections_per_image": sum(counts) / len(images),
        "megapixels_per_image": found.pixels / 1e6 / len(images),
        "cpu_seconds_per_image": cpu / len(images),
        "wall_seconds_per_image": wall / len(images),
    }


def run(args: argparse.Namespace) -> None:
    """Measure everything, and keep it as JSON and as a picture."""
    logging.getLogger("sahi").setLevel(logging.ERROR)  # it tells of its merge at every image
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    model = load_model(args.checkpoint, device=args.device)
    if len(model.pyramid.levels) == 1:
        raise SystemExit(f"{args.checkpoint} has one level, so nothing can be looked at closer; train it with several")
    data = demo_data().heldout if args.data == "crowns" else args.data
    table = table_for(model.class_names, DataSource(data, args.split, images=args.image_root))
    table = table.select(np.arange(min(args.images or len(table), len(table))))
    images = [read_image(table.image_path(row), size_wh=tuple(table.sizes_wh[row])) for row in range(len(table))]
    name = args.name or f"{Path(args.data).stem}-{Path(args.checkpoint).stem}"
    report = {
        "name": name,
        "images": len(images),
        "objects": table.num_objects,
        "device": str(model.backend.device),
        "threads": args.threads,
        "focus_branch": model.backend.focus_source == "branch",
        "levels": [level.model_dump(mode="json", exclude_none=True) for level in model.pyramid.levels],
        "seconds": "processor" if model.backend.device.type == "cpu" else "clock",
        "ways": [],
    }
    for way in ways(model, args.thresholds, args.sahi_scores):
        report["ways"].append(measure(way, images, table, model))
        report["load"] = os.getloadavg()[0]
        print(line(report["ways"][-1]), flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"{name}.json").write_text(json.dumps(report, indent=1))
    (args.out / f"{name}.png").write_bytes(picture(report))


def picture(report: dict[str, Any]) -> bytes:
    """AP over pixels and over seconds."""
    seconds = "cpu_seconds_per_image" if report["seconds"] == "processor" else "wall_seconds_per_image"
    points = [
        Spent(one["method"], one["note"].split(",")[0], one["megapixels_per_image"], score(one, "AP"), one[seconds])
        for one in report["ways"]
    ]
    title = f"{report['name']}: {report['images']} images"
    return draw_tradeoff(points, title=title, seconds_name=f"{report['seconds']} seconds per image")


def score(one: dict[str, Any], name: str) -> float:
    """A metric; AP and AP50 with as many detections as the recipe asks for."""
    metrics: dict[str, float] = one["metrics"]
    return metrics.get(f"{name}_most", metrics.get(name, math.nan))


COLUMNS = ["way", "AP", "AP50", "AP small", "Mpx / image", "CPU s / image", "wall s / image"]


def line(one: dict[str, Any]) -> str:
    """One row of the table."""
    cells = [one["method"] + (f", {one['note']}" if one["note"] else "")]
    cells += [f"{100 * score(one, name):.1f}" for name in ("AP", "AP50", "AP_small")]
    cells += [f"{one[f'{name}_per_image']:.2f}" for name in ("megapixels", "cpu_seconds", "wall_seconds")]
    return "| " + " | ".join(cells) + " |"


def markdown(report: dict[str, Any]) -> str:
    """A run as a Markdown table."""
    head = f"{report['name']}: {report['images']} images, {report['objects']} objects, {report['device']}, "
    head += f"{report['threads']} thread{'s' * (report['threads'] > 1)}"
    rows = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|", *map(line, report["ways"])]
    return "\n".join([head, "", *rows, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", help="checkpoint or run folder")
    parser.add_argument("data", nargs="?", help="dataset, or crowns")
    parser.add_argument("--split", help="split of the dataset, where it holds several")
    parser.add_argument("--image-root", help="folder of the images, if not the usual one")
    parser.add_argument("--name", help="of the results; otherwise made of both")
    parser.add_argument("--images", type=int, help="only so many")
    parser.add_argument("--thresholds", nargs="*", type=float, default=[0.02, 0.05, 0.1, 0.2, 0.4])
    parser.add_argument("--sahi-scores", nargs="*", type=float, default=[0.3, 0.01])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/autofocus"))
    parser.add_argument("--table", action="store_true", help="only print what is there, as Markdown, and draw it anew")
    args = parser.parse_args()
    if not args.table:
        if not args.checkpoint or not args.data:
            parser.error("give a checkpoint and a dataset")
        run(args)
    for path in sorted(args.out.glob("*.json")):
        report = json.loads(path.read_text())
        path.with_suffix(".png").write_bytes(picture(report))
        print(markdown(report))


if __name__ == "__main__":
    main()
