"""Charts: training, precision against recall, object sizes. Each function returns the bytes of a PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from sniper.report.chart import STYLE, new_figure, png, silent
from sniper.report.metrics import read_metrics, smoothed
from sniper.report.palette import INK, QUIET, RULE, class_color, hexadecimal, level_color


def _curve(axes: Any, metrics: Mapping[str, NDArray[np.float64]], name: str, **style: Any) -> None:
    known = np.isfinite(metrics[name])
    axes.plot(metrics["step"][known], metrics[name][known], **style)


def draw_training_curves(metrics_csv: Path | str) -> bytes:
    """Losses over the steps of a run's metrics.csv; where there are any, a detector's own shares (``metric/...``) too.

    Evaluations (``eval/...``), if any, have the last panel.

    Raises:
        DataError: the file cannot be read as metrics.
    """
    metrics = read_metrics(metrics_csv)
    usual = [name for name in metrics if name in ("eval/AP", "eval/AP50", "eval/AP75")]
    scores = usual or [name for name in metrics if name.startswith("eval/")][:3]
    shares = [name for name in metrics if name.startswith("metric/")]
    panels = 1 + bool(shares) + bool(scores)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(7 if panels == 1 else 5 * panels, 3.6, panels)
        axes[0].set_title("Training loss")
        if "loss" in metrics and np.isfinite(metrics["loss"]).any():
            _loss_panel(axes[0], metrics)
        else:
            silent(axes[0], "no steps yet")
        if shares:
            _shares_panel(axes[1], metrics, shares)
            axes[1].set_title("While it trains")
            axes[1].set_ylim(0, 1.02)
        if scores:
            _shares_panel(axes[-1], metrics, scores)
            axes[-1].set_title("Held-out evaluation")
            axes[-1].set_ylim(0, max(0.1, 1.1 * max(np.nanmax(metrics[name], initial=0) for name in scores)))
        return png(figure)


def _shares_panel(axes: Any, metrics: Mapping[str, NDArray[np.float64]], names: Sequence[str]) -> None:
    """Numbers from 0 to 1 over the steps; few of them as points."""
    for i, name in enumerate(names):
        single = np.isfinite(metrics[name]).sum() <= 12
        label = name.partition("/")[2].replace("_", " ")
        _curve(axes, metrics, name, label=label, color=hexadecimal(class_color(i)), marker="o" if single else "")
    axes.set_xlim(0, metrics["step"].max() * 1.03)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.legend(loc="lower right")


def _loss_panel(axes: Any, metrics: Mapping[str, NDArray[np.float64]]) -> None:
    known = np.isfinite(metrics["loss"])
    step, loss = metrics["step"][known], metrics["loss"][known]
    axes.plot(step, loss, color=hexadecimal(INK), alpha=0.18, linewidth=1)
    axes.plot(step, smoothed(loss), color=hexadecimal(INK), label="total", linewidth=2.2)
    for i, name in enumerate(sorted(n for n in metrics if n.startswith("loss/"))):
        known = np.isfinite(metrics[name])
        values = smoothed(metrics[name][known])
        axes.plot(metrics["step"][known], values, color=hexadecimal(class_color(i)), label=name.removeprefix("loss/"))
    # The first steps of a new head are off the chart of everything after.
    axes.set_ylim(0, 1.05 * float(np.quantile(loss, 0.98)) if loss.max() > 0 else 1)
    axes.set_xlim(0, max(1.0, float(step.max())))
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.legend(ncols=2, loc="upper right")


def draw_pr_curves(
    curves: Mapping[str, tuple[NDArray[np.floating], NDArray[np.floating]]],
    *,
    title: str = "Precision and recall",
    scores: Mapping[str, float] | None = None,
) -> bytes:
    """Precision over recall, one line a name: ``curves[name]`` is recall (R,) and precision (R,), each in [0, 1].

    ``scores`` are shown behind the names. At most ten lines are named and coloured, the rest stay grey.
    """
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = new_figure(5.6, 4.4)
        axes.set_title(title)
        for i, (name, (recall, precision)) in reversed(list(enumerate(curves.items()))):
            # Evaluators fill up with zeros behind the highest recall reached, and with -1 where nothing can be told.
            known = np.asarray(precision) > 0
            score = "" if scores is None or name not in scores else f"  {scores[name]:.3f}"
            color = hexadecimal(class_color(i) if i < 10 else RULE)
            label = f"{name}{score}" if i < 10 else None
            axes.plot(np.asarray(recall)[known], np.asarray(precision)[known], color=color, label=label)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("recall: share of the objects that are found")
        axes.set_ylabel("precision: share of the detections that are true positives")
        if curves:
            handles, labels = axes.get_legend_handles_labels()
            axes.legend(handles[::-1], labels[::-1], loc="lower left")
        else:
            silent(axes, "nothing to evaluate")
        return png(figure)


def draw_size_histogram(
    sizes_px: NDArray[np.floating],
    ranges_px: Sequence[tuple[float, float]] = (),
    *,
    names: Sequence[str] | None = None,
    title: str = "Object sizes and the levels that learn them",
) -> bytes:
    """How many objects have which size, the square root of the area in original px, on a logarithmic axis.

    ``ranges_px`` are the valid ranges of the levels, finest first; each is a bar above the histogram, named by
    ``names``. The upper end may be infinite.
    """
    sizes = np.asarray(sizes_px, dtype=np.float64)
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    low = max(0.5, float(sizes.min()) / 1.4) if len(sizes) else 4.0
    high = max(low * 4, float(sizes.max()) * 1.4) if len(sizes) else 512.0
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = new_figure(8, 3.2 + 0.22 * len(ranges_px))
        axes.set_title(title)
        edges = np.geomspace(low, high, 49)
        counts, _ = np.histogram(sizes, edges)
        axes.bar(edges[:-1], counts, np.diff(edges) * 0.94, align="edge", color="#aeb6bf")
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        top = max(1, int(counts.max()))
        step = 0.11 * top
        for level, (start, end) in enumerate(ranges_px):
            color = hexadecimal(level_color(level))
            left, right = max(start, low), min(end, high)
            y = top * 1.08 + step * (len(ranges_px) - 1 - level)
            if left < right:
                axes.plot([left, right], [y, y], color=color, linewidth=6, solid_capstyle="butt")
                axes.axvspan(left, right, color=color, alpha=0.05, linewidth=0)
                name = f"level {level}" if names is None else names[level]
                axes.annotate(name, (left, y), (3, 4), textcoords="offset points", fontsize=8.5, va="bottom")
        axes.set_ylim(0, top * 1.1 + step * max(len(ranges_px), 0.5))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_yticks([at for at in axes.get_yticks() if 0 <= at <= top * 1.05])
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0), numticks=20))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(axis="x", visible=False)
        axes.set_xlabel("square root of the box area, px of the original image")
        axes.set_ylabel("objects")
        if not len(sizes):
            axes.text(0.5, 0.4, "no objects", ha="center", color=hexadecimal(QUIET), transform=axes.transAxes)
        return png(figure)
