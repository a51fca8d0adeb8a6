"""``sniper demo``: the whole of it on packaged aerial photos, offline, in a few minutes, with a page as the result."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.torch import load_file
from torch import nn

from sniper.chips.stats import Coverage, coverage
from sniper.data.source import load_dataset
from sniper.data.table import AnnotationTable
from sniper.demo.assets import CREDIT, demo_data, trained_crowns
from sniper.errors import StoppedError, StorageError
from sniper.pipeline.chip_source import ChipSource
from sniper.pipeline.detectors import build_detector, resolve_pyramid
from sniper.pipeline.evaluate import Evaluation, evaluate
from sniper.pipeline.run_page import verdict_sections
from sniper.pipeline.train import TrainedRun, train
from sniper.pixels.decode import read_image
from sniper.recipe import Recipe
from sniper.report.chips import draw_chips, draw_levels
from sniper.report.html import Number, Report
from sniper.report.metrics import read_metrics
from sniper.report.run_page import data_section, score_section, training_section
from sniper.training.checkpoint import load_into

Log = Callable[[str], None]


class _Told(NamedTuple):
    """What the page tells."""

    table: AnnotationTable
    heldout: AnnotationTable
    source: ChipSource
    stats: Coverage
    run: TrainedRun
    evaluation: Evaluation
    minutes: float


def run_demo(output: Path | str, *, minutes: float = 2.0, log: Log = print) -> Path:
    """Mine, train, evaluate and detect on the packaged tree crowns; the page written.

    Args:
        output: folder for ``index.html`` and everything behind it; must not hold an earlier demo's run.
        minutes: of training.
        log: gets one line per stage.

    Raises:
        StorageError: ``output`` holds something already, or cannot be written.
        StoppedError: a signal ended the training.
    """
    folder = Path(output)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StorageError(f"{folder} exists and is not empty; choose another folder with --output, or remove it")
    started = time.perf_counter()
    data = demo_data()
    table = load_dataset(data.train)
    heldout = load_dataset(data.heldout, classes=table.class_names)
    recipe, pyramid = resolve_pyramid(Recipe.load("demo", [f"train.minutes={minutes}"]), table)
    source = ChipSource(table, pyramid, recipe)
    stats = coverage(table, pyramid, recipe.chips, seed=recipe.train.seed)
    chips = sum(stats.chips.values())
    log(f"mined {chips} chips from {len(table)} photos with {stats.objects} tree crowns")

    log(f"training for {minutes:g} more minutes, from weights that saw these photos for ten")
    run = train(recipe, detector=_detector(recipe, len(table.class_names)), data=table, name="trees", root=folder)
    if run.result.signal is not None:
        raise StoppedError(f"the demo was stopped while it trained; remove {folder} and start again", run.result.signal)
    log("evaluating on the held-out photo, 13 km away")
    done = evaluate(
        run.checkpoint, heldout, output=folder / "evaluate", device="cpu" if recipe.train.device == "cpu" else "auto"
    )
    told = _Told(table, heldout, source, stats, run, done, (time.perf_counter() - started) / 60)
    page = _page(told).write(folder)
    result = done.result
    log(f"AP50 {result.ap50_maxdets:.3f}, AP {result.ap_maxdets:.3f} on {result.objects} crowns nobody trained on")
    return page


def _detector(recipe: Recipe, classes: int) -> nn.Module:
    """The detector of the recipe with the packaged weights."""
    detector = build_detector(recipe, classes, pretrained=False)
    path = trained_crowns()
    load_into(detector, {name: t.float() if t.is_floating_point() else t for name, t in load_file(path).items()}, path)
    return detector


def _page(told: _Told) -> Report:
    result, stats = told.evaluation.result, told.stats
    own = stats.pixels["chips"]
    report = Report(
        "Tree crowns, from chips",
        lead="What sniper did on this machine in the last minutes: it chose from aerial photos what to learn "
        "from, trained a detector and tried it on a photo taken 13 km away.",
    )
    report.numbers(
        [
            Number(f"{result.ap50_maxdets:.2f}", "AP50 on the held-out photo", f"AP {result.ap_maxdets:.2f}"),
            Number(
                str(sum(stats.chips.values())), "chips an epoch", f"{stats.objects} crowns in {stats.images} photos"
            ),
            Number(
                f"{stats.pixels['full pyramid'] / own:.1f} x",
                "fewer pixels than the full pyramid",
                "of the same levels",
            ),
            Number(f"{told.minutes:.1f} min", "for everything", f"{told.run.result.minutes:.1f} min of training"),
        ]
    )
    data_section(report, told.table, told.heldout, stats)
    _chips(report, told)
    training_section(report, read_metrics(told.run.folder / "metrics.csv"))
    score_section(report, told.evaluation.scores, told.evaluation.best_f1_table())
    verdict_sections(report, told.evaluation, told.heldout, told.run.recipe)
    return report.paragraph(CREDIT)


def _chips(report: Report, told: _Told) -> None:
    busiest = int(np.argmax(np.diff(told.table.offsets)))
    chips = told.source.chips(0)
    pixels = read_image(told.table.image_path(busiest))
    report.paragraph(
        "Each level scales the photo and learns the crowns that then have a suitable size. Chips cover these crowns "
        "and leave the meadow out; they are drawn anew every epoch."
    )
    report.figure(
        "chips.jpg",
        draw_chips(pixels, told.table, busiest, chips),
        "Chips of one epoch on the largest photo",
        wide=True,
    )
    report.figure(
        "levels.jpg",
        draw_levels(pixels, told.table, busiest, chips),
        "Level by level, learned and ignored crowns",
        wide=True,
    )
