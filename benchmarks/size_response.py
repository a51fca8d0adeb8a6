"""Accuracy of one detector as a function of an object's size on the padded input: what zoom buys.

    python benchmarks/size_response.py CHECKPOINT DATA.json --picture docs/images/size_response.png

CHECKPOINT should have learned its objects at all the sizes that are asked for (``sampler.scale_jitter``). The test
images are looked at whole at each scale, without valid ranges; AP is COCO's, of the objects of one bin of size (those
of other sizes are neither to be found nor wrong to find). JSON, then the picture. ``sniper plan --checkpoint`` does
the same at scales that follow from the data.
"""

import argparse
import json
import logging
from pathlib import Path

import numpy as np

from sniper.backends.torch import TorchBackend
from sniper.data.source import load_dataset
from sniper.data.table import AnnotationTable
from sniper.evaluation.size_response import SizeBin, SizeResponse, size_bins, size_edges
from sniper.pipeline.checkpoint_model import pick_device
from sniper.pipeline.evaluate import evaluate_table
from sniper.pipeline.model import Model, load_model
from sniper.pyramid import Level, Pyramid


def response(model: Model, table: AnnotationTable, scale: float, edges: list[float]) -> list[SizeBin]:
    """AP by bins of size, images looked at whole at one scale."""
    inference = model.recipe.inference.model_copy(update={"window_px": 4096})
    assert model.detector is not None
    backend = TorchBackend(model.detector, device=pick_device())  # in single precision, whatever it was trained in
    pyramid = Pyramid(levels=(Level(scale=scale),))
    found = evaluate_table(backend, table, pyramid, inference, model.recipe.evaluation).detections
    return size_bins(table, found, scale, edges)


def draw(bins: list[SizeBin], path: Path) -> None:
    """One line a scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for scale in sorted({one.scale for one in bins}):
        own = [one for one in bins if one.scale == scale]
        axes.plot([one.network_px for one in own], [100 * one.ap for one in own], marker="o", label=f"{scale:g} x")
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
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    model = load_model(args.checkpoint)
    table = load_dataset(args.data, classes=model.class_names, missing_classes="allow")
    table = table.select(np.arange(min(args.images, len(table))))
    bins = []
    for scale in args.scales:
        own = response(model, table, scale, size_edges(table))
        bins += own
        print(json.dumps([one._asdict() for one in own]), flush=True)
    whole = SizeResponse(tuple(bins))
    print(json.dumps({"comfortable_px": whole.comfortable_px, "curve": [one._asdict() for one in whole.curve()]}))
    if args.picture is not None:
        draw(bins, args.picture)


if __name__ == "__main__":
    main()
