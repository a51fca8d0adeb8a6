"""Table and picture of the cells that ``same_budget.py`` keeps."""

import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from sniper.report.chart import STYLE, new_figure, png
from sniper.report.palette import BLUE, GREEN, NEGATIVE, ORANGE, PINK, QUIET, VIOLET, YELLOW, hexadecimal

NAMES = {
    "stress": "scale stress (synthetic)",
    "cars": "aerial cars",
    "bccd": "blood cells",
    "crowns": "tree crowns",
    "people": "people in COCO photos, half without any",
    "coco": "COCO subset, class-agnostic",
}
METHODS = {
    "negatives": ("chips + negatives", ORANGE),
    "chips": ("chips", YELLOW),
    "random": ("chips + random windows", NEGATIVE),
    "pyramid": ("full pyramid", PINK),
    "tiles": ("512 tiles", BLUE),
    "tiles-sahi": ("512 tiles + image, SAHI's merge", VIOLET),
    "whole": ("whole image, 800 x 1333", GREEN),
    "whole-top": ("whole image, enlarged", QUIET),
}
COLUMNS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AP_maxdets")
Cell = dict[str, Any]


def cells(out: Path) -> list[Cell]:
    """All finished cells, in the order of the tables."""
    found = [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]
    order = [(data, method) for data in NAMES for method in METHODS]
    return sorted(found, key=lambda cell: (order.index((cell["data"], cell["method"])), cell["seed"]))


def score(cell: Cell, name: str) -> float:
    """AP x 100; nan where there is none."""
    return 100 * cell["metrics"].get(name, float("nan"))


def table(out: Path) -> str:
    """Means over seeds, every cell, and false positives on background where chips and negatives find the same share."""
    found = cells(out)
    groups = {
        (data, method): [c for c in found if (c["data"], c["method"]) == (data, method)]
        for data in NAMES
        for method in METHODS
    }
    head = (
        "| data | method | seeds | " + " | ".join(COLUMNS) + " | trained on, Mpx | train CPU min | test Mpx / image |"
    )
    lines = [head, "|---" * (len(COLUMNS) + 6) + "|"]
    for (data, method), group in groups.items():
        if group:
            lines.append(_row(NAMES[data], METHODS[method][0], str(len(group)), group))
    lines += ["", head.replace("seeds", "seed"), lines[1]]
    lines += [_row(NAMES[c["data"]], METHODS[c["method"]][0], str(c["seed"]), [c]) for c in found]
    lines += [
        "",
        "| data | seed | recall | background, chips | background, chips + negatives | fewer |",
        "|---" * 6 + "|",
    ]
    for data in NAMES:
        for seed in (0, 1):
            lines += _background(groups[data, "chips"], groups[data, "negatives"], data, seed)
    return "\n".join(lines)


def _row(data: str, method: str, seeds: str, group: list[Cell]) -> str:
    scores = [np.mean([score(cell, name) for cell in group]) for name in COLUMNS]
    costs = [
        np.mean([cell[name] for cell in group])
        for name in ("train_megapixels", "train_cpu_minutes", "test_megapixels_per_image")
    ]
    told = ["-" if np.isnan(number) else f"{number:.1f}" for number in scores]
    return (
        f"| {data} | {method} | {seeds} | "
        + " | ".join(told)
        + f" | {costs[0]:.0f} | {costs[1]:.1f} | {costs[2]:.2f} |"
    )


def _background(chips: list[Cell], negatives: list[Cell], data: str, seed: int) -> list[str]:
    pair = [[cell for cell in group if cell["seed"] == seed and "errors" in cell] for group in (chips, negatives)]
    if not all(pair):
        return []
    first, second = (group[0]["errors"] for group in pair)
    lines = []
    for a, b in zip(first, second, strict=False):
        fewer = f"{100 * (1 - b['background'] / a['background']):.0f} %" if a["background"] else "-"
        recall = a["recall"]
        lines.append(
            f"| {NAMES[data]} | {seed} | {recall:.2f} | {a['background']:.0f} | {b['background']:.0f} | {fewer} |"
        )
    return lines[1::2]


def draw(out: Path) -> bytes:
    """AP of every method on every data set, a dot a seed and a bar for the mean; below, the pixels of a test image."""
    found = cells(out)
    sets = [data for data in NAMES if any(cell["data"] == data for cell in found)]
    methods = [method for method in METHODS if any(cell["method"] == method for cell in found)]
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(10.6, 0.36 * len(methods) * len(sets) + 1.6, 2)
        for axis, told in zip(axes, ("AP x 100", "megapixels that a test image takes"), strict=True):
            axis.set_xlabel(told)
            axis.grid(axis="y", visible=False)
            axis.set_yticks([])
        place, ticks = 0.0, []
        for data in sets:
            axes[0].text(0, place - 0.15, NAMES[data], fontweight="bold", va="bottom")
            axes[1].text(0, place - 0.15, " ", va="bottom")
            for method in methods:
                group = [cell for cell in found if (cell["data"], cell["method"]) == (data, method)]
                if not group:
                    continue
                place += 1
                name, color = METHODS[method]
                # Crowns: 279 stand in one image, more than the 100 detections that AP counts.
                which = "AP_maxdets" if data == "crowns" else "AP"
                scores = [score(cell, which) for cell in group]
                axes[0].barh(place, np.mean(scores), 0.72, color=hexadecimal(color), alpha=0.85)
                axes[0].plot(scores, [place] * len(scores), "o", color="#1f2328", markersize=3.2)
                cost = np.mean([cell["test_megapixels_per_image"] for cell in group])
                axes[1].barh(place, cost, 0.72, color=hexadecimal(color), alpha=0.85)
                axes[1].annotate(
                    f"{cost:.1f}", (cost, place), (4, 0), textcoords="offset points", va="center", fontsize=8
                )
                ticks.append((place, name))
            place += 1.6
        axes[0].set_yticks([at for at, _ in ticks], [name for _, name in ticks], fontsize=8.5)
        for axis in axes:
            axis.set_ylim(place - 0.6, -0.9)
        axes[1].margins(x=0.12)
        axes[0].set_title("The same CPU time for training: accuracy ...")
        axes[1].set_title("... and what a look costs")
        return png(figure)
