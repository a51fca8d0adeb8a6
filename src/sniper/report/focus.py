"""Where AutoFocus looked: focus maps over the image, and the focus chips of each level, coarse to fine."""

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


def draw_focus(pixels: Pixels, looked: ImageTrace, *, panel_px: int = 800) -> Pixels:
    """Everything on one sheet: the chips of all levels, then the focus map of each level that has one.

    ``pixels`` is the whole image, (H, W, 3) uint8 RGB, at any size; ``looked`` tells its true one. The long side of a
    panel is at most ``panel_px``.
    """
    panels = [_chips_panel(pixels, looked, panel_px)]
    panels += [_map_panel(pixels, looked, look, panel_px) for look in looked.levels if look.focus is not None]
    height, width = panels[0].shape[:2]
    columns = 1 if width > 1.6 * height else min(len(panels), 3 if len(panels) != 4 else 2)
    px = text_px_for(panel_px, panel_px)
    return framed(grid(panels, columns=columns, gap=px), px)


def draw_focus_chips(pixels: Pixels, looked: ImageTrace, *, max_px: int = 1600) -> Pixels:
    """The chips that were looked at, outlined in the colour of their level; what was not looked at closer is darker.

    Arguments as for ``draw_focus``.
    """
    panel = _chips_panel(pixels, looked, max_px)
    return framed(panel, text_px_for(*panel.shape[:2]))


def draw_focus_map(pixels: Pixels, looked: ImageTrace, level: int, *, max_px: int = 1600) -> Pixels:
    """The focus map that a level predicted, as heat over the image; outlined is what is looked at one level finer.

    Arguments as for ``draw_focus``.

    Raises:
        ValueError: the level has no map; the finest one never has.
    """
    look = next((one for one in looked.levels if one.level == level), None)
    if look is None or look.focus is None:
        known = [one.level for one in looked.levels if one.focus is not None]
        raise ValueError(f"level {level} has no focus map; those that have one: {known}")
    panel = _map_panel(pixels, looked, look, max_px)
    return framed(panel, text_px_for(*panel.shape[:2]))


def _chips_panel(pixels: Pixels, looked: ImageTrace, max_px: int) -> Pixels:
    shown, scale = _shown(pixels, looked, max_px)
    height, width = shown.shape[:2]
    line, px = thickness_for(height, width) + 1, text_px_for(height, width)
    finest = len(looked.levels) - 1
    # Each level that did not look at a place takes some of its light.
    seen = [covered(look.chips_xyxy * scale, height, width) for look in looked.levels]
    depth = np.sum(seen[1:], axis=0) if finest else np.ones((height, width), int)
    for number in range(finest):
        left_out = (finest - number) / finest
        dim(shown, depth == number, 1 - 0.55 * left_out, 1 - 0.75 * left_out)
    for number, look in enumerate(looked.levels):
        draw_boxes(shown, look.chips_xyxy * scale, level_color(look.level), thickness=line, inset=line * number)
    pixels_seen, pixels_full = (sum(getattr(one, name) for one in looked.levels) for name in ("pixels", "pixels_full"))
    title = f"Looked at: {looked.share:.0%} of the full pyramid's pixels"
    told = f"{pixels_seen / 1e6:.2f} of {pixels_full / 1e6:.2f} Mpx in {len(looked.levels)} levels"
    keys = [_chips_key(look, whole=not number) for number, look in enumerate(looked.levels)]
    return stack([heading(width, title, told, px), shown, legend(width, keys, px)])


def _chips_key(look: LevelTrace, *, whole: bool) -> Key:
    number = len(look.chips_xyxy)
    chips = "the whole image" if whole else f"{number:,} {'chip' if number == 1 else 'chips'}"
    share = f", {look.pixels / look.pixels_full:.0%} of its pixels" if number and not whole else ""
    return Key(level_color(look.level), f"level {look.level}: zoom {look.scale:.2f}, {chips}{share}", thickness=3)


def _map_panel(pixels: Pixels, looked: ImageTrace, look: LevelTrace, max_px: int) -> Pixels:
    assert look.focus is not None
    shown, scale = _shown(pixels, looked, max_px)
    height, width = shown.shape[:2]
    px = text_px_for(height, width)
    dim(shown, np.ones((height, width), bool), 0.62, 0.25)
    where = covered(look.chips_xyxy * scale, height, width)
    dim(shown, ~where, 0.5, 1)
    probability = _stretched(look.focus, look.cell_px * scale, height, width)
    _heat(shown, probability)
    chosen = (probability >= look.threshold).astype(np.uint8)
    outlines, _ = cv2.findContours(chosen, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(shown, outlines, -1, BLACK, thickness_for(height, width) + 1)
    cv2.drawContours(shown, outlines, -1, WHITE, max(1, thickness_for(height, width) - 1))
    cells = int((look.focus >= look.threshold).sum())
    title = f"Focus map of level {look.level}: zoom {look.scale:.2f}"
    told = f"{cells:,} of {look.focus.size:,} cells of {look.cell_px:.0f} px are at least {look.threshold:g}"
    return stack([heading(width, title, told, px), shown, _scale_bar(width, look.threshold, px)])


def _stretched(focus: NDArray[np.float32], cell: float, height: int, width: int) -> NDArray[np.float32]:
    """(H, W) the probability of the cell that each pixel of the picture lies in; ``cell`` is a cell's side, px."""
    rows = np.minimum(((np.arange(height) + 0.5) / cell).astype(int), focus.shape[0] - 1)
    columns = np.minimum(((np.arange(width) + 0.5) / cell).astype(int), focus.shape[1] - 1)
    return np.asarray(focus[np.ix_(rows, columns)])


def _colours(probability: NDArray[np.floating]) -> Pixels:
    """(..., 3) uint8 RGB of probabilities in [0, 1], dark violet to yellow."""
    table = (matplotlib.colormaps["inferno"](np.linspace(0.25, 1, 256))[:, :3] * 255).round().astype(np.uint8)
    return np.asarray(table[np.clip(np.asarray(probability) * 255, 0, 255).astype(np.uint8)])


def _heat(pixels: Pixels, probability: NDArray[np.float32]) -> None:
    """Lay the heat over the picture in place; where there is hardly any, the picture stays as it is."""
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
        words.append(Words(at, pad + tall + pad // 2, f"{threshold:g}: looked at closer from here on", px, INK))
    write(strip, words)
    return strip


def _shown(pixels: Pixels, looked: ImageTrace, max_px: int) -> tuple[Pixels, float]:
    """The picture for showing and its px per original px."""
    shown, _ = fit(pixels, at_least=min(640, max_px), at_most=max_px)
    return shown, shown.shape[1] / float(looked.size_wh[0])
