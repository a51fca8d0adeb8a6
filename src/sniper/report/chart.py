"""What all charts have in common: style, size, and a PNG in the end."""

import io
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import TightLayoutEngine

from sniper.report.palette import INK, QUIET, RULE, hexadecimal

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": hexadecimal(INK),
    "axes.labelcolor": hexadecimal(QUIET),
    "axes.edgecolor": hexadecimal(RULE),
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8ecf0",
    "xtick.color": hexadecimal(QUIET),
    "ytick.color": hexadecimal(QUIET),
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
}
_DPI = 150


def png(figure: Figure) -> bytes:
    """A finished figure as the bytes of a file that depends on nothing but the figure."""
    figure.set_dpi(_DPI)
    canvas = FigureCanvasAgg(figure)
    engine = figure.get_layout_engine()
    if engine is not None:
        # Figure.savefig would lay out and draw everything twice.
        engine.execute(figure)
        figure.set_layout_engine("none")
    buffer = io.BytesIO()
    canvas.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def new_figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Any]]:
    """A figure of so many inches with axes side by side; their type is matplotlib's own affair."""
    figure = Figure(figsize=(width, height), layout=TightLayoutEngine(pad=0.9, w_pad=2.0))
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def silent(axes: Any, text: str) -> None:
    """An empty chart says why it is empty."""
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, text, ha="center", va="center", color=hexadecimal(QUIET), transform=axes.transAxes)
