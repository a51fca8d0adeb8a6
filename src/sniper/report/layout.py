"""Pictures of several parts: fitted to a size, with a heading, a legend, side by side."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from sniper.report.marks import Style, Words, draw_boxes, text_width, write
from sniper.report.palette import INK, PAPER, QUIET, Color, Pixels


class Fitted(NamedTuple):
    """A picture for showing, always a fresh copy; ``scale`` is shown px per given px."""

    pixels: Pixels
    scale: float


class Key(NamedTuple):
    """One entry of a legend."""

    color: Color
    text: str
    style: Style = "solid"
    thickness: int = 2
    ground: Color = PAPER  # light marks are shown on a darker ground


def check(pixels: Pixels) -> None:
    """Refuse what is not a picture.

    Raises:
        ValueError: not (H, W, 3) uint8 with at least one pixel.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise ValueError(f"expected (H, W, 3) uint8 RGB pixels, got {pixels.dtype} of shape {pixels.shape}")


def fit(pixels: Pixels, *, at_least: int = 1, at_most: int = 1600) -> Fitted:
    """Resize so that the long side lies between two sizes in px."""
    check(pixels)
    height, width = pixels.shape[:2]
    scale = float(np.clip(1.0, at_least / max(height, width), at_most / max(height, width)))
    if scale == 1:
        return Fitted(pixels.copy(), 1.0)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    shown = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return Fitted(np.asarray(shown, dtype=np.uint8), scale)


def heading(width: int, title: str, text: str, px: int) -> Pixels:
    """A strip of paper with a bold title and one quiet line under it; letters shrink to the width."""
    small = max(9, round(px * 0.82))
    while px > 8 and text_width(title, px, True) > width - px:
        px -= 1
    while small > 7 and text_width(text, small) > width - px:
        small -= 1
    pad = round(px * 0.5)
    strip = np.full((px + (small + pad if text else 0) + 2 * pad, width, 3), PAPER, dtype=np.uint8)
    lines = [Words(0, pad, title, px, INK, True)]
    if text:
        lines.append(Words(0, px + 2 * pad, text, small, QUIET))
    write(strip, lines)
    return strip


def legend(width: int, keys: Sequence[Key], px: int) -> Pixels:
    """A strip of paper with the entries in as many rows as they need."""
    pad, gap = round(px * 0.6), round(px * 1.6)
    swatch_w, swatch_h = round(px * 1.9), round(px * 1.2)
    row_h = swatch_h + pad
    placed: list[tuple[int, int, Key]] = []
    x, row = 0, 0
    for key in keys:
        span = swatch_w + pad + text_width(key.text, px)
        if x and x + span > width:
            x, row = 0, row + 1
        placed.append((x, pad + row * row_h, key))
        x += span + gap
    strip = np.full((pad + (row + 1) * row_h, width, 3), PAPER, dtype=np.uint8)
    words = []
    for x, y, key in placed:
        swatch = strip[y : y + swatch_h, x : x + swatch_w]
        if swatch.size:
            swatch[:] = key.ground
            box = np.asarray([[0, 0, swatch.shape[1], swatch.shape[0]]], dtype=np.float64)
            draw_boxes(swatch, box, key.color, thickness=key.thickness, style=key.style, halo=False, inset=1)
        words.append(Words(x + swatch_w + pad, y + (swatch_h - px) // 2, key.text, px, INK))
    write(strip, words)
    return strip


def _padded(part: Pixels, height: int, width: int) -> Pixels:
    sheet = np.full((height, width, 3), PAPER, dtype=np.uint8)
    sheet[: part.shape[0], : part.shape[1]] = part
    return sheet


def stack(parts: Sequence[Pixels], gap: int = 0) -> Pixels:
    """Parts below each other, left-aligned on paper."""
    width = max(part.shape[1] for part in parts)
    rows = [_padded(part, part.shape[0] + (gap if part is not parts[-1] else 0), width) for part in parts]
    return np.concatenate(rows, axis=0)


def grid(parts: Sequence[Pixels], columns: int, gap: int) -> Pixels:
    """Parts in rows of ``columns`` on paper."""
    rows = []
    width = max(part.shape[1] for part in parts)
    for start in range(0, len(parts), columns):
        row = parts[start : start + columns]
        height = max(part.shape[0] for part in row)
        cells = [_padded(part, height, width + (gap if i < len(row) - 1 else 0)) for i, part in enumerate(row)]
        rows.append(np.concatenate(cells, axis=1))
    return stack(rows, gap)


def framed(picture: Pixels, margin: int) -> Pixels:
    """A rim of paper around a finished picture."""
    height, width = picture.shape[:2]
    sheet = np.full((height + 2 * margin, width + 2 * margin, 3), PAPER, dtype=np.uint8)
    sheet[margin : margin + height, margin : margin + width] = picture
    return sheet
