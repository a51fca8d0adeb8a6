"""Charts as SVG inside a page: small, sharp at any width, in the colours of the page, light or dark.

A chart is 400 wide in its own units and a phone shows it at about its own size, so 12 is a readable letter.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.report.palette import Color, hexadecimal, level_color

_WIDTH, _HEIGHT = 400, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 8, 40
_PLOT_W, _PLOT_H = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
_MAX_POINTS = 400  # of a line; a screen shows no more


class Line(NamedTuple):
    """Points (K,) by rising x."""

    name: str
    x: NDArray[np.floating]
    y: NDArray[np.floating]
    color: Color
    faint: bool = False


def line_chart(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    x_limits: tuple[float, float],
    y_limits: tuple[float, float],
    alt: str,
) -> str:
    """Lines over two linear axes; few points are marked. What leaves the limits is cut off at the border."""
    parts = [_axes(x_label, y_label, x_limits, y_limits)]
    for line in lines:
        every = max(1, -(-len(line.x) // _MAX_POINTS))
        x = _placed(line.x[::every], x_limits, _LEFT, _PLOT_W)
        y = _TOP + _PLOT_H - (_placed(line.y[::every], y_limits, 0, _PLOT_H))
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        style = f'stroke="{hexadecimal(line.color)}" stroke-width="{1 if line.faint else 2}"'
        style += ' stroke-opacity="0.3"' if line.faint else ""
        parts.append(f'<polyline points="{points}" fill="none" {style} stroke-linejoin="round"/>')
        if len(x) <= 12 and not line.faint:
            dots = zip(x, y, strict=True)
            parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{hexadecimal(line.color)}"/>' for a, b in dots]
    return _svg(_HEIGHT, parts, alt)


def size_chart(sizes_px: NDArray[np.floating], levels: Sequence[tuple[str, float, float]], *, alt: str) -> str:
    """How many objects have which size, on a logarithmic axis; above, the range of each level (name, low, high).

    Sizes are square roots of box areas in px of the original image; the upper end of a range may be infinite.
    """
    sizes = np.asarray(sizes_px, np.float64)
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    low = max(0.5, float(sizes.min()) / 1.4) if len(sizes) else 4.0
    high = max(low * 4, float(sizes.max()) * 1.4) if len(sizes) else 512.0
    counts, edges = np.histogram(sizes, np.geomspace(low, high, 41))
    limits = math.log(low), math.log(high)
    band = 22 * len(levels)
    x, top = _placed(np.log(edges), limits, _LEFT, _PLOT_W), max(1, int(counts.max()))
    parts = [
        _axes("square root of the box area, px", "objects", None, (0, top), top=_TOP + band),
        *(_tick_x(value, _placed(np.log([value]), limits, _LEFT, _PLOT_W)[0], band) for value in _steps(low, high)),
    ]
    for count, left, right in zip(counts, x[:-1], x[1:], strict=True):
        height = _PLOT_H * count / top
        if count:
            bottom = _TOP + band + _PLOT_H - height
            parts.append(
                f'<rect x="{left:.1f}" y="{bottom:.1f}" width="{right - left - 0.6:.1f}" height="{height:.1f}" '
                'fill="var(--quiet)" fill-opacity="0.55"/>'
            )
    for number, (name, start, end) in enumerate(levels):
        left, right = _placed(np.log(np.clip([start, end], low, high)), limits, _LEFT, _PLOT_W)
        y = _TOP + 22 * number
        parts.append(_words(left, y + 9, name, "start" if left < _WIDTH / 2 else "end", right))
        parts.append(
            f'<rect x="{left:.1f}" y="{y + 13}" width="{max(right - left, 2):.1f}" height="5" '
            f'fill="{hexadecimal(level_color(number))}"/>'
        )
    return _svg(_HEIGHT + band, parts, alt)


def _svg(height: int, parts: Sequence[str], alt: str) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(alt, quote=True)}">'
        f"{''.join(parts)}</svg>"
    )


def _placed(values: NDArray | Sequence[float], limits: tuple[float, float], start: float, length: float) -> NDArray:
    span = limits[1] - limits[0] or 1.0
    return start + np.clip((np.asarray(values, np.float64) - limits[0]) / span, 0, 1) * length


def _axes(
    x_label: str,
    y_label: str,
    x_limits: tuple[float, float] | None,
    y_limits: tuple[float, float],
    *,
    top: int = _TOP,
) -> str:
    """Grid, ticks and the names of the axes; ticks of x are the caller's if it gives no limits."""
    parts, bottom = [], top + _PLOT_H
    for value in _ticks(*y_limits):
        y = bottom - _placed([value], y_limits, 0, _PLOT_H)[0]
        parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}" stroke="var(--rule)"/>')
        parts.append(_text(_LEFT - 6, y + 4, _number(value), "end"))
    if x_limits is not None:
        ticks = _ticks(*x_limits)
        parts += [_tick_x(value, _placed([value], x_limits, _LEFT, _PLOT_W)[0], top - _TOP) for value in ticks]
    parts.append(_text(_LEFT + _PLOT_W / 2, bottom + 34, x_label, "middle"))
    middle = top + _PLOT_H / 2
    parts.append(f'<g transform="rotate(-90 11 {middle})">{_text(11, middle, y_label, "middle")}</g>')
    return "".join(parts)


def _tick_x(value: float, x: float, band: int) -> str:
    return _text(min(x, _WIDTH - _RIGHT - 4), _TOP + band + _PLOT_H + 16, _number(value), "middle")


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="var(--quiet)">{escape(text)}</text>'


def _words(left: float, y: float, text: str, anchor: str, right: float) -> str:
    return _text(left if anchor == "start" else right, y, text, anchor)


def _ticks(low: float, high: float) -> list[float]:
    """Four or five round numbers between two."""
    span = high - low
    if span <= 0 or not math.isfinite(span):
        return [low]
    rough = span / 4.5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * times for times in (1, 2, 2.5, 5, 10) if unit * times >= rough)
    first = math.ceil(low / step - 1e-9)
    return [step * number for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _steps(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between two; the powers alone where there would be many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    times = (1, 2, 5) if math.log10(high / low) < 2.5 else (1,)
    return [value for decade in decades for time in times if low <= (value := time * 10.0**decade) <= high]


def _number(value: float) -> str:
    if value >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.6g}"
