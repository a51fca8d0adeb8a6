"""What AutoFocus did on an image: the focus chips of each level, coarse to fine, and the focus maps."""

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray

from sniper.inference.trace import ImageTrace, LevelTrace
from sniper.report.layout import Key, fit, framed, grid, heading, legend, stack
from sniper.report.marks import Words, draw_boxes, text_px_for, text_width, thickness_for, write
from sniper.report.palette import BLACK, INK, PAPER, QUIET, WHITE, Pixels, level_color
from sniper.report.shade import covered, dim

_VEIL = 0.68  # share of the heat's colour where focus is certain


def draw_focus(pixels: Pixels, trace: ImageTrace, *, panel_px: int = 800) -> Pixels:
    """Everything on one sheet: the chips of all levels, then the focus map of each level that has one.

    ``pixels`` is the whole image, (H, W, 3) uint8 RGB, at any size; ``trace`` tells its true one. The long side of a
    panel is at most ``panel_px``.
    """
    panels = [_chips_panel(pixels, trace, panel_px)]
    panels += [_map_panel(pixels, trace, step, panel_px) for step in trace.levels if step.focus is not None]
    height, width = panels[0].shape[:2]
    columns = 1 if width > 1.6 * height else min(len(panels), 3 if len(panels) != 4 else 2)
    px = text_px_for(panel_px, panel_px)
    return framed(grid(panels, columns=columns, gap=px), px)


def draw_focus_chips(pixels: Pixels, trace: ImageTrace, *, max_px: int = 1600) -> Pixels:
    """The focus chips, outlined in the colour of their level; what no finer level covered is darker.

    Arguments as for ``draw_focus``.
    """
    panel = _chips_panel(pixels, trace, max_px)
    return framed(panel, text_px_for(*panel.shape[:2]))


def draw_focus_map(pixels: Pixels, trace: ImageTrace, level: int, *, max_px: int = 1600) -> Pixels:
    """The focus map that a level predicted, as heat over the image; with the cells that reached the threshold outlined.

    Arguments as for ``draw_focus``.

    Raises:
        ValueError: the level has no map; the finest one never has.
    """
    step = next((one for one in trace.levels if one.level == level), None)
    if step is None or step.focus is None:
        known = [one.level for one in trace.levels if one.focus is not None]
        raise ValueError(f"level {level} has no focus map; those that have one: {known}")
    panel = _map_panel(pixels, trace, step, max_px)
    return framed(panel, text_px_for(*panel.shape[:2]))


def _chips_panel(pixels: Pixels, trace: ImageTrace, max_px: int) -> Pixels:
    shown, scale = _shown(pixels, trace, max_px)
    height, width = shown.shape[:2]
    line, px = thickness_for(height, width) + 1, text_px_for(height, width)
    finest = len(trace.levels) - 1
    # Each level that did not cover a place takes some of its light.
    seen = [covered(step.chips_xyxy * scale, height, width) for step in trace.levels]
    depth = np.sum(seen[1:], axis=0) if finest else np.ones((height, width), int)
    for number in range(finest):
        left_out = (finest - number) / finest
        dim(shown, depth == number, 1 - 0.55 * left_out, 1 - 0.75 * left_out)
    for number, step in enumerate(trace.levels):
        draw_boxes(shown, step.chips_xyxy * scale, level_color(step.level), thickness=line, inset=line * number)
    pixels_seen, pixels_full = (sum(getattr(one, name) for one in trace.levels) for name in ("pixels", "pixels_full"))
    title = f"Focus chips: {trace.share:.0%} of the full pyramid's pixels"
    told = f"{pixels_seen / 1e6:.2f} of {pixels_full / 1e6:.2f} Mpx in {len(trace.levels)} levels"
    keys = [_chips_key(step, whole=not number) for number, step in enumerate(trace.levels)]
    return stack([heading(width, title, told, px), shown, legend(width, keys, px)])


def _chips_key(step: LevelTrace, *, whole: bool) -> Key:
    number = len(step.chips_xyxy)
    chips = "the whole image" if whole else f"{number:,} {'chip' if number == 1 else 'chips'}"
    share = f", {step.pixels / step.pixels_full:.0%} of its pixels" if number and not whole else ""
    return Key(level_color(step.level), f"level {step.level}: scale {step.scale:.2f}, {chips}{share}", thickness=3)


def _map_panel(pixels: Pixels, trace: ImageTrace, step: LevelTrace, max_px: int) -> Pixels:
    assert step.focus is not None
    shown, scale = _shown(pixels, trace, max_px)
    height, width = shown.shape[:2]
    px = text_px_for(height, width)
    dim(shown, np.ones((height, width), bool), 0.62, 0.25)
    where = covered(step.chips_xyxy * scale, height, width)
    dim(shown, ~where, 0.5, 1)
    probability = _stretched(step.focus, step.cell_px * scale, height, width)
    _heat(shown, probability)
    chosen = (probability >= step.threshold).astype(np.uint8)
    outlines, _ = cv2.findContours(chosen, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(shown, outlines, -1, BLACK, thickness_for(height, width) + 1)
    cv2.drawContours(shown, outlines, -1, WHITE, max(1, thickness_for(height, width) - 1))
    cells = int((step.focus >= step.threshold).sum())
    title = f"Focus map of level {step.level}: scale {step.scale:.2f}"
    told = f"{cells:,} of {step.focus.size:,} cells of {step.cell_px:.0f} px are at least {step.threshold:g}"
    return stack([heading(width, title, told, px), shown, _scale_bar(width, step.threshold, px)])


def _stretched(focus: NDArray[np.float32], cell: float, height: int, width: int) -> NDArray[np.float32]:
    """(H, W) the probability of the cell that each pixel of the drawing lies in; ``cell`` is a cell's side, px."""
    rows = np.minimum(((np.arange(height) + 0.5) / cell).astype(int), focus.shape[0] - 1)
    columns = np.minimum(((np.arange(width) + 0.5) / cell).astype(int), focus.shape[1] - 1)
    return np.asarray(focus[np.ix_(rows, columns)])


def _colours(probability: NDArray[np.floating]) -> Pixels:
    """(..., 3) uint8 RGB of probabilities in [0, 1], dark violet to yellow."""
    table = (matplotlib.colormaps["inferno"](np.linspace(0.25, 1, 256))[:, :3] * 255).round().astype(np.uint8)
    return np.asarray(table[np.clip(np.asarray(probability) * 255, 0, 255).astype(np.uint8)])


def _heat(pixels: Pixels, probability: NDArray[np.float32]) -> None:
    """Lay the heat over the image in place; where there is hardly any, the image stays as it is."""
    veil = (_VEIL * np.sqrt(np.clip(probability, 0, 1)))[:, :, None]
    pixels[:] = (pixels * (1 - veil) + _colours(probability) * veil).round().astype(np.uint8)


def _scale_bar(width: int, threshold: float, px: int) -> Pixels:
    """The heat's colours from 0 to 1 with the threshold marked."""
    pad, tall = round(px * 0.6), round(px * 0.9)
    label = "focus probability"
    left = text_width(label, px) + 2 * pad + text_width("0", px)
    right = text_width("1", px) + pad
    long = max(min(width - left - right, 30 * px), 2)
    strip = np.full((3 * pad + tall + px, width, 3), PAPER, dtype=np.uint8)
    bar = np.broadcast_to(_colours(np.linspace(0, 1, long)), (tall, long, 3))
    room = strip[pad : pad + tall, left : left + long]
    room[:] = bar[:, : room.shape[1]]
    words = [Words(0, pad, label, px, INK), Words(left - text_width("0", px) - pad // 2, pad, "0", px, QUIET)]
    words.append(Words(left + long + pad // 2, pad, "1", px, QUIET))
    if threshold <= 1:
        at = left + round(threshold * (long - 1))
        strip[pad - 2 : pad + tall + pad // 2, at : at + 2] = INK
        words.append(Words(at, pad + tall + pad // 2, f"{threshold:g}: threshold of the next finer level", px, INK))
    write(strip, words)
    return strip


def _shown(pixels: Pixels, trace: ImageTrace, max_px: int) -> tuple[Pixels, float]:
    """The image for showing and its px per original px."""
    shown, _ = fit(pixels, at_least=min(640, max_px), at_most=max_px)
    return shown, shown.shape[1] / float(trace.size_wh[0])
