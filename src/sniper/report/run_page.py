"""The sections of a page about a training: what it learned from, its curves, how well it detects, what goes wrong.

Each function adds one section to a report, from plain columns; ``pipeline.run_page`` and the demo gather them.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.boxes import sqrt_area
from sniper.chips.stats import Coverage
from sniper.data.table import AnnotationTable
from sniper.evaluation.confusion import confusion_matrix
from sniper.evaluation.error_types import Verdict, Verdicts
from sniper.evaluation.protocol import Curve, Score, ScoreTable
from sniper.report.chips import plural
from sniper.report.comparison import Comparison
from sniper.report.html import Bar, Figure, Report
from sniper.report.layout import Key
from sniper.report.metrics import known_points, smoothed
from sniper.report.palette import FALSE_POSITIVE, FOUND, MISSED, QUIET, WHITE, class_color
from sniper.report.vector_charts import Line, line_chart, size_chart

MAX_CLASSES = 20  # in tables and matrices: a page is for reading
MAX_CURVES = 10
MAX_PAIRS = 12

_KINDS = {
    Verdict.BACKGROUND: ("false positives on background", "no object is there"),
    Verdict.LOCALISATION: ("localisation errors", "on an object, but the box does not fit"),
    Verdict.WRONG_CLASS: ("of the wrong class", "on an object of another class"),
    Verdict.DUPLICATE: ("duplicates", "on an object that a better detection has found"),
}


def data_section(
    report: Report, train: AnnotationTable, evaluate: AnnotationTable | None, coverage: Coverage | None
) -> Report:
    """Classes and sizes of the objects, the levels that learn them, and what an epoch costs."""
    report.heading("What it learned from")
    empty = int((np.diff(train.offsets) == 0).sum())
    sizes = sqrt_area(train.boxes_xyxy[~train.ignored])
    text = f"{plural(len(train), 'image')} with {plural(len(sizes), 'object')}"
    text += f"; {empty:,} without objects." if empty else "."
    if evaluate is not None:
        objects = int((~evaluate.ignored).sum())
        text += f" Measured on {plural(len(evaluate), 'image')} with {plural(objects, 'object')}."
    report.paragraph(text)
    _class_table(report, train, evaluate)
    levels = [] if coverage is None else [(f"scale {one.scale}", *one.range_px) for one in coverage.levels]
    caption = "Sizes of the objects" + (", and the levels that learn them." if levels else ".")
    report.figures([Figure("sizes.svg", size_chart(sizes, levels, alt=caption), caption)])
    if coverage is not None:
        report.paragraph("Pixels that the network sees in an epoch, against other ways to train on these images:")
        report.bars(_pixel_bars(coverage.pixels))
    return report


def _class_table(report: Report, train: AnnotationTable, evaluate: AnnotationTable | None) -> None:
    classes = len(train.class_names)
    counts = np.bincount(train.labels[~train.ignored], minlength=classes)
    columns = ["class", "training", "median px"]
    if evaluate is not None:
        columns.append("evaluation")
        others = np.bincount(evaluate.labels[~evaluate.ignored], minlength=classes)
    rows = []
    sizes = sqrt_area(train.boxes_xyxy)
    for label in np.argsort(-counts, kind="stable")[:MAX_CLASSES].tolist():
        own = sizes[(train.labels == label) & ~train.ignored]
        row = [train.class_names[label], f"{counts[label]:,}", f"{np.median(own):.0f}" if len(own) else ""]
        rows.append([*row, f"{others[label]:,}"] if evaluate is not None else row)
    few = f"the {MAX_CLASSES} most frequent of {classes} classes" if classes > len(rows) else "each class"
    report.table(columns, rows, caption=f"Objects of {few}, and their median size (square root of the box area)")


def _pixel_bars(pixels: Mapping[str, float]) -> list[Bar]:
    own = max(pixels.get("chips", 0.0), 1.0)
    return [
        Bar(way, count, f"{count / 1e6:,.1f} Mpx" + ("" if way == "chips" else f", {count / own:.2g} times"))
        for way, count in pixels.items()
    ]


def training_section(report: Report, metrics: dict[str, NDArray[np.float64]]) -> Report:
    """Losses, what the detector reports of itself, and scores of the evaluations, over the steps."""
    report.heading("Training")
    figures, last = [], float(metrics["step"].max()) if len(metrics.get("step", ())) else 1.0
    step, loss = known_points(metrics, "loss")
    if len(loss):
        named = [(name.removeprefix("loss/"), name) for name in sorted(metrics) if name.startswith("loss/")]
        lines = [Line("", step, loss, QUIET, faint=True), Line("total", step, smoothed(loss), QUIET)]
        for i, (name, column) in enumerate(named):
            at, values = known_points(metrics, column)
            lines.append(Line(name, at, smoothed(values), class_color(i)))
        # The first steps of a new head are off the chart of everything after.
        top = 1.05 * float(np.quantile(loss, 0.98)) or 1.0
        figures.append(_over_steps("Loss", lines, last, top))
    for prefix, title in (("metric/", "What the detector reports"), ("eval/", "Evaluation")):
        names = [name for name in metrics if name.startswith(prefix)]
        names = [name for name in names if name in ("eval/AP", "eval/AP50", "eval/AP75")] or names[:4]
        lines = [
            Line(name.removeprefix(prefix), *known_points(metrics, name), class_color(i))
            for i, name in enumerate(names)
        ]
        if lines:
            top = max((float(line.y.max()) for line in lines if len(line.y)), default=1.0)
            figures.append(_over_steps(title, lines, last, max(0.1, 1.1 * top)))
    if not figures:
        return report.paragraph("No step was logged.")
    return report.figures(figures, wide=len(figures) > 1)


def _over_steps(title: str, lines: Sequence[Line], last: float, top: float) -> Figure:
    chart = line_chart(
        lines, x_label="step", y_label="", x_limits=(0, last), y_limits=(0, top), alt=f"{title} over the steps"
    )
    return Figure("", chart, heading=title, keys=_names_of(lines))


def _names_of(lines: Sequence[Line]) -> list[Key]:
    return [Key(line.color, line.name) for line in lines if line.name]


def score_section(report: Report, scores: Sequence[Score], best_f1: ScoreTable) -> Report:
    """Tables and curves of every protocol, and from which score on detections are drawn."""
    report.heading("How well it detects")
    for score in scores:
        for title, columns, rows in score.tables:
            more = len(rows) - MAX_CLASSES
            title = f"{title}, the first {MAX_CLASSES} of {len(rows)}" if more > 0 else title
            report.table(columns, rows[:MAX_CLASSES], caption=title)
        curves = [("all classes", score.curves)]
        curves += [("each class at IoU 0.5", score.class_curves)] if len(score.class_curves) > 1 else []
        report.figures([_precision_recall(title, drawn) for title, drawn in curves if drawn], wide=len(curves) > 1)
    title, columns, rows = best_f1
    report.paragraph(
        "Detections are drawn from the score of their class on that has the best F1 here: it weighs a false positive "
        "like a missed object. The checkpoint keeps these scores."
    )
    return report.table(columns, rows[:MAX_CLASSES])


def _precision_recall(title: str, curves: Mapping[str, Curve]) -> Figure:
    lines = []
    for i, (name, (recall, precision)) in enumerate(list(curves.items())[:MAX_CURVES]):
        # Evaluators fill up with zeros behind the highest recall reached, and with -1 where nothing can be told.
        known = np.asarray(precision) > 0
        lines.append(Line(name, np.asarray(recall)[known], np.asarray(precision)[known], class_color(i)))
    chart = line_chart(
        lines, x_label="recall", y_label="precision", x_limits=(0, 1), y_limits=(0, 1), alt="Precision over recall"
    )
    return Figure("", chart, heading=f"Precision and recall: {title}", keys=_names_of(lines))


def error_section(report: Report, verdicts: Verdicts, class_names: Sequence[str]) -> Report:
    """Kinds of errors and confused classes among the detections that are drawn."""
    report.heading("What goes wrong")
    counts = np.bincount(verdicts.verdict, minlength=len(Verdict))
    found, objects = int(counts[Verdict.TRUE_POSITIVE]), verdicts.objects
    report.paragraph(
        f"Of {objects:,} objects {found:,} are found and {objects - found:,} are missed by the detections that are "
        "drawn. A detection is right if it overlaps an object of its class by an IoU of 0.5."
    )
    bars = [Bar("true positives", found, f"{found:,}")]
    bars += [Bar(_KINDS[kind][0], counts[kind], f"{counts[kind]:,}", _KINDS[kind][1]) for kind in _KINDS]
    bars.append(Bar("missed objects", objects - found, f"{objects - found:,}"))
    report.bars(bars)
    if len(class_names) > 1:
        _confusion(report, confusion_matrix(verdicts, len(class_names)), class_names)
    return report


def _confusion(report: Report, counts: NDArray[np.int64], class_names: Sequence[str]) -> None:
    rows, columns = np.asarray([*class_names, "background"]), np.asarray([*class_names, "missed"])
    used = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
    if len(used) <= MAX_CLASSES:
        report.paragraph("Rows are what an object is, columns what it is taken for:")
        used = np.union1d(used, [len(class_names)])
        report.matrix(rows[used].tolist(), columns[used].tolist(), counts[np.ix_(used, used)], corner="is / taken for")
        return
    wrong = counts[:-1, :-1].copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:MAX_PAIRS]
    pairs = [(*np.unravel_index(place, wrong.shape), int(wrong.flat[place])) for place in order.tolist()]
    told = [[rows[is_], columns[taken], str(count)] for is_, taken, count in pairs if count]
    report.table(["is", "taken for", "times"], told, caption="Most confused classes")


class Example(NamedTuple):
    """An image with the truth and what is drawn of the detections."""

    name: str  # of the image
    drawn: Comparison


def example_section(report: Report, worst: Sequence[Example], best: Sequence[Example]) -> Report:
    """The truth beside the detections, of a few images."""
    report.heading("Detections beside the truth")
    report.legend(
        [
            Key(FOUND, "found, true positive"),
            Key(MISSED, "missed", "dashed"),
            Key(FALSE_POSITIVE, "false positive"),
            Key(WHITE, "ignored", "hatched"),
        ]
    )
    for title, examples in (("The worst images", worst), ("The best images", best)):
        if not examples:
            continue
        report.paragraph(f"{title}, by F1:" if best else "All images, the lowest F1 first:")
        for number, (name, drawn) in enumerate(examples, start=1):
            stem = f"{title.split()[1]}-{number}"
            objects = drawn.found + drawn.missed
            truth = f"{name}: {plural(objects, 'object')}, {drawn.missed:,} missed"
            told = f"{plural(drawn.found, 'true positive')}, {plural(drawn.false_positives, 'false positive')}"
            pictures = [
                Figure(f"{stem}-truth.jpg", drawn.truth, heading=truth),
                Figure(f"{stem}-detections.jpg", drawn.detections, heading=told),
            ]
            height, width = drawn.truth.shape[:2]
            report.figures(pictures, wide=True, stacked=width > 1.8 * height)
    return report


def choose_examples(verdicts: Verdicts, count: int) -> tuple[list[int], list[int]]:
    """Rows of the images looked at: up to ``count`` of the lowest F1, and as many others of the highest.

    Of images of equal F1 the one with more errors is worse, and the one with more objects found better. Images without
    objects and detections are not among them.
    """
    images = len(verdicts.offsets) - 1
    image = np.repeat(np.arange(images), np.diff(verdicts.offsets))
    right = np.bincount(image[verdicts.verdict == Verdict.TRUE_POSITIVE], minlength=images)
    wrong_ones = (verdicts.verdict != Verdict.TRUE_POSITIVE) & (verdicts.verdict != Verdict.IGNORED)
    wrong = np.bincount(image[wrong_ones], minlength=images)
    holder = np.repeat(np.arange(images), np.diff(verdicts.object_offsets))
    missed = np.bincount(holder[~verdicts.object_ignored], minlength=images) - right
    something = np.flatnonzero(right + wrong + missed)
    f1 = 2 * right / np.maximum(2 * right + wrong + missed, 1)
    worst = something[np.lexsort((-(wrong + missed)[something], f1[something]))][:count]
    others = something[~np.isin(something, worst)]
    best = others[np.lexsort((-right[others], -f1[others]))][:count]
    return worst.tolist(), best.tolist()
