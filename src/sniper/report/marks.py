"""Marks on pictures: outlines, dashes, hatching, words. All draw in place on (H, W, 3) uint8 RGB.

Boxes are half-open xyxy in pixels of the picture drawn on; the line lies on the outermost pixels inside.
"""

import math
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sniper.report.palette import BLACK, Color, Pixels, ink_on

Style: TypeAlias = Literal["solid", "dashed", "hatched"]


def thickness_for(height: int, width: int) -> int:
    """Width of a box line in a picture of this size, px."""
    return max(2, round(math.sqrt(height * width) / 430)) if max(height, width) >= 400 else 1


def text_px_for(height: int, width: int) -> int:
    """Size of the letters in a picture of this size, px."""
    return min(30, max(11, round(math.sqrt(height * width) / 55)))


def _corners(boxes_xyxy: NDArray[np.floating], height: int, width: int, inset: float = 0) -> NDArray[np.int32]:
    """(N, 4) first and last pixel of each box, both included; boxes not finite or not in sight are left out."""
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    boxes = boxes[np.isfinite(boxes).all(axis=1)]
    seen = (boxes[:, 0] < width) & (boxes[:, 1] < height) & (boxes[:, 2] > 0) & (boxes[:, 3] > 0)
    boxes = np.clip(boxes[seen], 0, [width, height, width, height])
    low = np.round(boxes[:, :2] + inset)
    high = np.maximum(np.round(boxes[:, 2:] - inset) - 1, low)
    limit = [width - 1, height - 1]
    return np.concatenate([np.minimum(low, limit), np.minimum(high, limit)], axis=1).astype(np.int32)


def _edges(corners: NDArray[np.int32], inset: int) -> NDArray[np.int32]:
    """(4N, 2, 2) end points of the four edges of each box, moved inwards by so many px (outwards if negative)."""
    low, high = corners[:, :2] + inset, corners[:, 2:] - inset
    inner = np.concatenate([np.minimum(low, high), np.maximum(low, high)], axis=1)
    inner = inner[(low <= high).all(axis=1)]
    ring = inner[:, [0, 1, 2, 1, 2, 3, 0, 3, 0, 1]].reshape(-1, 5, 2)
    return np.stack([ring[:, :-1], ring[:, 1:]], axis=2).reshape(-1, 2, 2)


def _dashes(edges: NDArray[np.int32], dash: float) -> NDArray[np.int32]:
    """Cut edges into dashes with gaps of the same length; each edge begins and ends with a dash."""
    start, end = edges[:, 0].astype(np.float64), edges[:, 1].astype(np.float64)
    length = np.abs(end - start).sum(axis=1)
    count = np.maximum(1, np.round((length / dash + 1) / 2)).astype(np.int64)
    edge = np.repeat(np.arange(len(edges)), count)
    number = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    unit = 1 / (2 * count[edge] - 1)
    step = (end - start)[edge]
    first = start[edge] + step * (2 * number * unit)[:, None]
    return np.round(np.stack([first, first + step * unit[:, None]], axis=1)).astype(np.int32)


def _hatch(corners: NDArray[np.int32], spacing: int) -> NDArray[np.int32]:
    """(M, 2, 2) diagonal strokes inside the boxes, on one grid for the whole picture."""
    x1, y1, x2, y2 = corners.T.astype(np.int64)
    first = -(-(x1 + y1 + 1) // spacing)
    count = np.maximum(0, (x2 + y2 - 1) // spacing - first + 1)
    box = np.repeat(np.arange(len(corners)), count)
    number = np.arange(len(box)) - np.repeat(np.cumsum(count) - count, count)
    diagonal = (first[box] + number) * spacing
    low = np.maximum(x1[box], diagonal - y2[box])
    high = np.minimum(x2[box], diagonal - y1[box])
    return np.stack([low, diagonal - low, high, diagonal - high], axis=1).reshape(-1, 2, 2).astype(np.int32)


def _stroke(pixels: Pixels, lines: NDArray[np.int32], color: Color, line_type: int = cv2.LINE_8) -> None:
    if len(lines):
        cv2.polylines(pixels, list(lines), False, color, 1, line_type)


def draw_boxes(
    pixels: Pixels,
    boxes_xyxy: NDArray[np.floating],
    color: Color,
    *,
    thickness: int = 2,
    style: Style = "solid",
    halo: bool = True,
    inset: float = 0,
) -> None:
    """Outline (N, 4) boxes in one colour, all in one stroke.

    ``halo`` puts a soft dark rim around the lines, so that they stand out from any photo. ``hatched`` is solid with
    diagonal strokes inside; ``inset`` moves the lines inwards by so many px.
    """
    height, width = pixels.shape[:2]
    corners = _corners(boxes_xyxy, height, width, inset)
    if not len(corners):
        return
    dash = max(3.0, 3.5 * thickness)
    # Lines of one pixel inside each other: square corners, and never wider than asked for.
    rings = [_edges(corners, i) for i in range(-1, thickness + 1)]
    if style == "dashed":
        rings = [_dashes(ring, dash) for ring in rings]
    if halo:
        rim = pixels.copy()
        _stroke(rim, np.concatenate([rings[0], rings[-1]]), BLACK)
        cv2.addWeighted(rim, 0.4, pixels, 0.6, 0, dst=pixels)
    if style == "hatched":
        _stroke(pixels, _hatch(corners, 5 + 3 * thickness), color, cv2.LINE_AA)
    _stroke(pixels, np.concatenate(rings[1:-1]), color)


@lru_cache(maxsize=32)
def font(px: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and knows Latin, Greek, Cyrillic and more."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), px)


def text_width(text: str, px: int, bold: bool = False) -> int:
    """Advance of one line, px."""
    return int(np.ceil(font(px, bold).getlength(text)))


class Words(NamedTuple):
    """One line of text at a place. With a ``plate``, on a filled rectangle."""

    x: int
    y: int  # top of the line
    text: str
    px: int
    color: Color
    bold: bool = False
    plate: Color | None = None


def plate_size(text: str, px: int, bold: bool = False) -> tuple[int, int]:
    """Width and height of the plate under a line, px."""
    return text_width(text, px, bold) + 2 * plate_pad(px), px + 2 * plate_pad(px)


def plate_pad(px: int) -> int:
    """Room between letters and the rim of their plate, px."""
    return max(2, round(px * 0.22))


def plated(x: int, y: int, text: str, px: int, color: Color, bold: bool = False) -> Words:
    """A line on a plate of ``color`` whose top-left corner is at ``x, y``."""
    return Words(x, y, text, px, ink_on(color), bold, color)


def write(pixels: Pixels, lines: list[Words]) -> None:
    """Write lines of text; what does not fit the picture is cut off."""
    if not lines:
        return
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    for line in lines:
        x, y = line.x, line.y
        if line.plate is not None:
            width, height = plate_size(line.text, line.px, line.bold)
            draw.rectangle((x, y, x + width - 1, y + height - 1), fill=line.plate)
            x, y = x + plate_pad(line.px), y + plate_pad(line.px)
        # Anchored at the middle, letters sit well on their plate whatever their descenders.
        draw.text((x, y + line.px / 2), line.text, font=font(line.px, line.bold), fill=line.color, anchor="lm")
    pixels[:] = np.asarray(image)
