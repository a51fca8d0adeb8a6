"""The page of a training: ``index.html`` in its run folder, one file that holds all it shows."""

import logging
from pathlib import Path

import numpy as np

from sniper.chips.stats import Coverage, coverage
from sniper.data.table import AnnotationTable
from sniper.errors import DataError
from sniper.evaluation.best_f1 import drawn_detections
from sniper.evaluation.error_types import Verdict, Verdicts, judge
from sniper.pipeline.chip_source import ChipSource
from sniper.pipeline.evaluate import Evaluation
from sniper.pipeline.previews import image_to_draw_on
from sniper.recipe import Recipe
from sniper.report.comparison import ImageTruth, draw_comparison
from sniper.report.html import Figure, Number, Report
from sniper.report.metrics import known_points, read_metrics
from sniper.report.run_page import (
    Example,
    choose_examples,
    data_section,
    error_section,
    example_section,
    score_section,
    training_section,
)
from sniper.training.loop import TrainResult
from sniper.training.run import RunFolder

logger = logging.getLogger("sniper")

EXAMPLES = 3  # worst images, and as many of the best
MAX_PREVIEWS = 2  # drawings of chips
PAGE = "index.html"


def write_run_page(
    run: RunFolder,
    source: ChipSource,
    result: TrainResult,
    evaluation: Evaluation | None,
    table: AnnotationTable | None,
) -> Path:
    """Write the page of a run, with the latest evaluation on ``table``, if there was one.

    Raises:
        StorageError: the folder cannot be written.
    """
    recipe = source.recipe
    stats = None
    if recipe.sampler.method == "chips":
        stats = coverage(source.table, source.pyramid, recipe.chips, seed=recipe.train.seed)
    metrics = read_metrics(run.metrics) if run.metrics.is_file() else {}
    report = Report(run.path.name, lead=_lead(source, evaluation, table))
    report.numbers(_numbers(result, stats, evaluation))
    data_section(report, source.table, table, stats)
    _previews(report, run.path / "previews")
    training_section(report, metrics)
    if evaluation is not None and table is not None:
        score_section(report, evaluation.scores, evaluation.best_f1_table())
        verdict_sections(report, evaluation, table, recipe)
    report.heading("What it cost")
    report.table(["", ""], _costs(result, metrics, evaluation))
    report.heading("Use it")
    report.code(f"sniper predict {run.path} photo.jpg\nsniper evaluate {run.path} DATA")
    return report.write(run.path, embed=True)


def verdict_sections(report: Report, evaluation: Evaluation, table: AnnotationTable, recipe: Recipe) -> Report:
    """What goes wrong, and the worst and best images, among the detections that are drawn."""
    class_agnostic = recipe.evaluation.class_agnostic
    looked = table.select(np.flatnonzero(np.isin(table.image_ids, evaluation.detections.image_ids)))
    drawn = drawn_detections(evaluation.detections, evaluation.draw_scores)
    verdicts = judge(looked, drawn, class_agnostic=class_agnostic)
    error_section(report, verdicts, () if class_agnostic else table.class_names)
    worst, best = (
        [one for row in rows if (one := _example(looked, verdicts, drawn.boxes_xyxy, row, recipe))]
        for rows in choose_examples(verdicts, EXAMPLES)
    )
    return example_section(report, worst, best)


def _example(
    looked: AnnotationTable, verdicts: Verdicts, boxes_xyxy: np.ndarray, row: int, recipe: Recipe
) -> Example | None:
    """The drawings of an image; none if it can no longer be read: a page must not end a training."""
    try:
        pixels, scale = image_to_draw_on(looked, row, recipe.loader.whole_megapixels, recipe.data.sample_map)
    except DataError as error:
        logger.warning("not on the page: %s", error)
        return None
    objects, own = looked.objects(row), slice(int(verdicts.offsets[row]), int(verdicts.offsets[row + 1]))
    found = np.zeros(looked.num_objects, np.bool_)
    found[verdicts.matched[verdicts.verdict == Verdict.TRUE_POSITIVE]] = True
    truth = ImageTruth(looked.boxes_xyxy[objects], found[objects], looked.ignored[objects])
    drawn = draw_comparison(pixels, truth, boxes_xyxy[own], verdicts.verdict[own], scale=scale)
    return Example(Path(looked.file_name(row)).name, drawn)


def _lead(source: ChipSource, evaluation: Evaluation | None, table: AnnotationTable | None) -> str:
    data = source.recipe.data
    lead = f"{source.recipe.model.network}, trained on {data.train or source.table.root}"
    if table is None:
        return f"{lead}. No evaluation data were given, so this page does not tell how well it detects."
    if evaluation is None:
        return f"{lead}. It was stopped before an evaluation, so this page does not tell how well it detects."
    return f"{lead}, measured on {data.evaluate or table.root}."


def _numbers(result: TrainResult, stats: Coverage | None, evaluation: Evaluation | None) -> list[Number]:
    found = []
    if evaluation is not None:
        notes = {"AP": "mean over IoU 0.5 to 0.95", "AP50": "at IoU 0.5"}
        numbers = evaluation.as_dict()
        shown = [name for name in notes if name in numbers] or list(numbers)[:3]
        found += [Number(f"{numbers[name]:.3f}", name.replace("_", " "), notes.get(name, "")) for name in shown]
    state = "finished" if result.finished else "stopped"
    found.append(Number(f"{result.minutes:.1f} min", f"of training, {state}", f"{result.step:,} steps"))
    if stats is not None:
        chips = sum(stats.chips.values())
        found.append(Number(f"{chips:,}", "chips an epoch", f"of {stats.images:,} images"))
    return found


def _previews(report: Report, folder: Path) -> None:
    """Chips of the first epoch, as the run folder has them already."""
    drawn = sorted(folder.glob("*-chips.jpg"))[:MAX_PREVIEWS] if folder.is_dir() else []
    if drawn:
        report.paragraph(
            "Chips of the first epoch, one colour a level. Solid objects are learned at that level, dashed ones are "
            "ignored: neither object nor background. Darker ground is seen by no chip of the finest level."
        )
        report.figures(
            [Figure(path.name, path.read_bytes(), alt="Chips of the first epoch") for path in drawn],
            wide=True,
            stacked=True,
        )


def _costs(result: TrainResult, metrics: dict[str, np.ndarray], evaluation: Evaluation | None) -> list[tuple[str, str]]:
    rows = [("training", f"{result.minutes:.1f} min"), ("steps", f"{result.step:,}")]
    rows += [("epochs", f"{result.epochs:.2f}"), ("chips seen", f"{result.chips:,}")]
    for column, name in (("chips_per_s", "chips/s"), ("images_per_s", "images decoded/s")):
        values = known_points(metrics, column)[1]
        if (values > 0).any():  # none between the decoding of one epoch and the next
            rows.append((f"{name}, median", f"{np.median(values[values > 0]):.3g}"))
    if evaluation is not None:
        images = max(len(evaluation.detections), 1)
        rows.append(("evaluation, an image", f"{evaluation.seconds / images:.2f} s"))
        rows.append(("pixels that the network sees in an image", f"{evaluation.pixels_per_image / 1e6:.2f} Mpx"))
        if evaluation.pixel_share < 1:
            rows.append(("of the full pyramid's pixels", f"{evaluation.pixel_share:.0%}"))
    return rows
