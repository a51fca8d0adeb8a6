"""A contact sheet: each photo that a class was learned from, with the region that taught it."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.report.layout import fit, framed, grid, heading, stack
from sniper.report.marks import Style, draw_boxes, thickness_for
from sniper.report.palette import FALSE_POSITIVE, FOUND, PAPER, Pixels

TILE_PX = 220
_COLUMNS = 8
_GAP = 10


class LearnedTile(NamedTuple):
    """One photo of the sheet."""

    class_name: str
    pixels: Pixels  # (H, W, 3) the photo, maybe smaller
    boxes_xyxy: NDArray[np.floating]  # (K, 4) regions that taught the class, px of ``pixels``
    caption: str  # one line under the photo
    is_odd: bool  # looks like no other photo of its class: drawn in the colour of what is wrong


def draw_learned(title: str, text: str, tiles: Iterable[LearnedTile]) -> Pixels:
    """Photos class by class, in rows; ``tiles`` of a class follow each other and are drawn one by one."""
    parts = [heading(_COLUMNS * (TILE_PX + _GAP), title, text, 20)]
    for name, own in groupby(tiles, lambda tile: tile.class_name):
        drawn = [*_tiles(own)]
        plural = "s" if len(drawn) > 1 else ""
        parts.append(heading(_COLUMNS * (TILE_PX + _GAP), f"{name} ({len(drawn)} photo{plural})", "", 15))
        parts.append(grid(drawn, _COLUMNS, _GAP))
    return framed(stack(parts), _GAP)


def _tiles(own: Iterable[LearnedTile]) -> Iterator[Pixels]:
    for tile in own:
        shown, scale = fit(tile.pixels, at_least=TILE_PX, at_most=TILE_PX)
        height, width = shown.shape[:2]
        color = FALSE_POSITIVE if tile.is_odd else FOUND
        style: Style = "dashed" if tile.is_odd else "solid"
        draw_boxes(shown, tile.boxes_xyxy * scale, color, thickness=thickness_for(height, width) + 1, style=style)
        sheet = np.full((TILE_PX, TILE_PX, 3), PAPER, np.uint8)
        top, left = (TILE_PX - height) // 2, (TILE_PX - width) // 2
        sheet[top : top + height, left : left + width] = shown
        yield stack([sheet, heading(TILE_PX, tile.caption, "", 11)])
