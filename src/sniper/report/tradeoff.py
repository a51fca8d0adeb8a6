"""What accuracy costs: AP against the pixels that the network saw, and against time."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
from matplotlib.ticker import MaxNLocator

from sniper.report.chart import STYLE, new_figure, png, silent
from sniper.report.palette import INK, QUIET, class_color, hexadecimal

_MARKERS = "oDs^vPX*"


class Spent(NamedTuple):
    """One way to run inference on a dataset: what it cost and what it gave."""

    method: str  # points of one name have one colour and form a curve or a set
    note: str  # which of them, for example the threshold; empty where there is one
    megapixels: float  # that the network saw, mean of an image
    ap: float  # in [0, 1]
    seconds: float  # mean of an image


def draw_tradeoff(
    points: Sequence[Spent],
    *,
    title: str = "What AP costs",
    ap_name: str = "AP",
    seconds_name: str = "seconds per image",
) -> bytes:
    """AP over megapixels and over seconds of an image, as the bytes of a PNG.

    The points of the first method, ours, are joined to a curve; the others stand by themselves. Notes name points.
    ``seconds_name`` tells which seconds: of processors, or of a clock.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(10.4, 4.2, 2)
        costs = ("megapixels", "seconds")
        for one, cost, told in zip(axes, costs, ("Mpx per image that the network sees", seconds_name), strict=True):
            _panel(one, points, cost)
            one.set_xlabel(told)
        axes[0].set_title(title)
        axes[0].set_ylabel(ap_name)
        if points:
            handles, names = axes[0].get_legend_handles_labels()
            figure.legend(handles[::-1], names[::-1], loc="outside lower center", ncols=min(6, len(names)))
        return png(figure)


def _panel(axes: Any, points: Sequence[Spent], cost: str) -> None:
    if not points:
        silent(axes, "nothing measured")
        return
    limits = _limits(points, cost)
    methods = list(dict.fromkeys(point.method for point in points))
    for number, method in reversed(list(enumerate(methods))):
        own = sorted((point for point in points if point.method == method), key=lambda point: getattr(point, cost))
        along, aps = [getattr(point, cost) for point in own], [point.ap for point in own]
        axes.plot(
            along, aps, color=hexadecimal(class_color(number)), marker=_MARKERS[number % len(_MARKERS)],
            markersize=6.5, markeredgecolor="white", markeredgewidth=0.8, linewidth=0 if number else 2.4,
            label=method, zorder=3 + (number == 0),
        )  # fmt: skip
        for x, y, note in _notes(own, cost, (limits[0], limits[2] - limits[1])):
            axes.annotate(
                note, (x, y), (4, -11), textcoords="offset points", fontsize=8,
                color=hexadecimal(INK if number == 0 else QUIET),
            )  # fmt: skip
    axes.set_xlim(0, limits[0])
    axes.set_ylim(*limits[1:])
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_locator(MaxNLocator(7))


def _limits(points: Sequence[Spent], cost: str) -> tuple[float, float, float]:
    """Highest cost, lowest and highest AP on the chart."""
    top, low = max(point.ap for point in points), min(point.ap for point in points)
    room = max(top - low, 0.02)
    dearest = max(getattr(point, cost) for point in points)
    return 1.1 * max(dearest, 1e-9), max(0.0, low - 0.15 * room), top + 0.12 * room


def _notes(own: Sequence[Spent], cost: str, size: tuple[float, float]) -> list[tuple[float, float, str]]:
    """Where to write which note; points that lie on each other share one, from the first to the last."""
    groups: list[list[Spent]] = []
    for point in own:
        last = groups[-1][0] if groups else None
        near = last is not None and abs(getattr(point, cost) - getattr(last, cost)) < 0.05 * size[0]
        if last is not None and near and abs(point.ap - last.ap) < 0.04 * size[1]:
            groups[-1].append(point)
        else:
            groups.append([point])
    placed = []
    for group in groups:
        names = sorted({point.note for point in group if point.note})
        if names:
            told = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
            placed.append((getattr(group[0], cost), group[0].ap, told))
    return placed
