"""Accuracy of one detector as a function of an object's size on the padded input: what zoom buys.

    python benchmarks/size_response.py CHECKPOINT DATA.json --picture docs/images/size_response.png

CHECKPOINT should have learned its objects at all the sizes that are asked for (``sampler.scale_jitter``). The test
images are looked at whole at each scale, without valid ranges; AP is COCO's, of the objects of one bin of network size
(those of other sizes are neither to be found nor wrong to find). JSON, then the picture.
"""

import argparse
import itertools
import json
import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sniper.backends.torch import TorchBackend
from sniper.data.source import load_dataset
from sniper.data.table import AnnotationTable
from sniper.evaluation.coco import evaluate_coco
from sniper.evaluation.config import CocoEvalConfig
from sniper.pipeline.checkpoint_model import pick_device
from sniper.pipeline.evaluate import evaluate_table
from sniper.pipeline.model import Model, load_model
from sniper.pyramid import Level, Pyramid

EDGES_PX = tuple(float(edge) for edge in np.geomspace(8, 256, 11).round(1))  # half an octave each


class Bin(NamedTuple):
    """Objects of one network size at one scale."""

    scale: float
    low_px: float  # network px
    high_px: float
    objects: int
    ap: float


def response(model: Model, table: AnnotationTable, scale: float, min_objects: int) -> list[Bin]:
    """AP by bins of network size, images looked at whole at one scale."""
    pyramid = Pyramid(levels=(Level(scale=scale),))
    inference = model.recipe.inference.model_copy(update={"window_px": 4096})
    assert model.detector is not None
    backend = TorchBackend(model.detector, device=pick_device())  # in single precision, whatever it was trained in
    found = evaluate_table(backend, table, pyramid, inference, model.recipe.evaluation).detections
    sizes = np.sqrt(table.areas[~table.ignored])
    bins = []
    for low, high in itertools.pairwise(EDGES_PX):
        objects = int(((sizes >= low / scale) & (sizes < high / scale)).sum())
        if objects < min_objects:
            continue
        between = CocoEvalConfig(small_px=low / scale, large_px=high / scale, class_agnostic=True)
        bins.append(Bin(scale, low, high, objects, round(evaluate_coco(table, found, between).ap_medium, 4)))
    return bins


def draw(bins: list[Bin], path: Path) -> None:
    """One line a scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for scale in sorted({one.scale for one in bins}):
        own = [one for one in bins if one.scale == scale]
        middle = [np.sqrt(one.low_px * one.high_px) for one in own]
        axes.plot(middle, [100 * one.ap for one in own], marker="o", label=f"{scale:g} x")
    axes.set_xscale("log", base=2)
    axes.set_xticks([8, 16, 32, 64, 128, 256], labels=["8", "16", "32", "64", "128", "256"])
    axes.set(xlabel="size of the object on the padded input, sqrt(area) in px", ylabel="AP of the objects of that size")
    axes.grid(alpha=0.3)
    axes.legend(title="scale of the image", frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure all scales."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--scales", nargs="+", type=float, default=[1.0, 1.4, 2.0, 2.8, 4.0])
    parser.add_argument("--images", type=int, default=10**6, help="the first so many")
    parser.add_argument("--min-objects", type=int, default=20, help="bins with fewer are left out")
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    model = load_model(args.checkpoint)
    table = load_dataset(args.data, classes=model.class_names, missing_classes="allow")
    table = table.select(np.arange(min(args.images, len(table))))
    bins = []
    for scale in args.scales:
        own = response(model, table, scale, args.min_objects)
        bins += own
        print(json.dumps([one._asdict() for one in own]), flush=True)
    if args.picture is not None:
        draw(bins, args.picture)


if __name__ == "__main__":
    main()
