"""The alternatives that chips are compared with: uniform tiles, and whole images.

Both come as chip tables, so the same loader and training loop run them. See ``docs/method.md``, "Chips".
"""

import math

import numpy as np
from numpy.typing import NDArray

from sniper.chips.compiled import compiled, read_only
from sniper.chips.grid import axis_count, axis_origin, zoomed_sizes
from sniper.chips.table import ChipKind, ChipTable
from sniper.data.table import AnnotationTable
from sniper.errors import RecipeError
from sniper.scales import Level


@compiled
def _axis_share(low: float, high: float, origin: int, window: int) -> float:
    """Share of ``[low, high)`` inside ``[origin, origin + window)``."""
    return max(min(high, np.float64(origin + window)) - max(low, np.float64(origin)), 0.0) / (high - low)


@compiled
def _tile_objects(
    boxes: NDArray[np.float32],
    crowd: NDArray[np.bool_],
    offsets: NDArray[np.int64],
    sizes: NDArray[np.int32],
    tile_offsets: NDArray[np.int64],
    factor: float,
    tile_px: int,
    stride: int,
    min_visible: float,
    next_slot: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> None:
    """Add one to ``next_slot`` of a tile for each of its objects; where ``rows`` has room, store them there."""
    for image in range(len(sizes)):
        width, height = sizes[image]
        nx, ny = axis_count(width, tile_px, stride), axis_count(height, tile_px, stride)
        for row in range(offsets[image], offsets[image + 1]):
            if crowd[row]:
                continue
            x1, y1 = boxes[row, 0] * factor, boxes[row, 1] * factor
            x2, y2 = boxes[row, 2] * factor, boxes[row, 3] * factor
            for j in range(max(int((y1 - tile_px) / stride), 0), ny):
                top = axis_origin(j, height, tile_px, stride)
                if top >= y2:
                    break
                share_y = _axis_share(y1, y2, top, tile_px)
                for i in range(max(int((x1 - tile_px) / stride), 0), nx):
                    left = axis_origin(i, width, tile_px, stride)
                    if left >= x2:
                        break
                    if share_y * _axis_share(x1, x2, left, tile_px) >= min_visible:
                        tile = tile_offsets[image] + j * nx + i
                        if len(rows):
                            rows[next_slot[tile]] = row
                        next_slot[tile] += 1


def uniform_tiles(
    table: AnnotationTable,
    *,
    factor: float = 1.0,
    tile_px: int = 512,
    overlap: float = 0.2,
    min_visible: float = 0.5,
) -> ChipTable:
    """Every tile of every image, row by row, those without objects included.

    Tiles lie ``int(tile_px * (1 - overlap))`` px apart; the last of an axis ends at the border. An object is valid in
    every tile that shows at least ``min_visible`` of its area, and ignored in the others; crowd regions never are.

    Args:
        factor: zoom before tiling, network px per original px.
        tile_px: side of a tile, network px.
        overlap: share of a tile that it has in common with the next, 0 <= overlap < 1.
        min_visible: share of an object's area, 0 < min_visible <= 1.

    Raises:
        RecipeError: ``overlap`` or ``min_visible`` out of range.
    """
    stride = int(tile_px * (1 - overlap))
    if overlap < 0 or stride < 1:
        raise RecipeError(f"overlap of uniform tiles must be in [0, 1) and leave a step of a pixel, not {overlap}")
    if not 0 < min_visible <= 1:
        raise RecipeError(f"min_visible of uniform tiles must be in (0, 1], not {min_visible}")
    sizes = zoomed_sizes(table.sizes_wh, np.full(len(table), factor))
    columns, lines = (1 + -(-np.maximum(sizes - tile_px, 0) // stride)).astype(np.int64).T
    tiles = columns * lines
    ends = np.cumsum(tiles)
    image = np.repeat(np.arange(len(table), dtype=np.int32), tiles)
    number = np.arange(len(image)) - np.repeat(ends - tiles, tiles)
    index = np.stack([number % columns[image], number // columns[image]], axis=1)
    origin = np.minimum(index * stride, np.maximum(sizes[image] - tile_px, 0)).astype(np.int32)

    layout = (
        read_only(table.boxes_xyxy),
        read_only(table.crowd),
        read_only(table.offsets),
        sizes,
        ends - tiles,
        float(factor),
        tile_px,
        stride,
        min_visible,
    )
    counts = np.zeros(len(image), np.int64)
    _tile_objects(*layout, counts, np.zeros(0, np.int64))
    offsets = np.concatenate(([0], np.cumsum(counts)))
    rows = np.empty(offsets[-1], np.int64)
    if len(rows):
        _tile_objects(*layout, offsets[:-1].copy(), rows)
    return _tiles(
        image,
        np.full(len(image), float(factor)),
        origin,
        np.full((len(image), 2), tile_px, np.int32),
        np.minimum(sizes[image] - origin, tile_px),
        offsets,
        rows,
    )


def whole_images(table: AnnotationTable, *, short_px: int = 800, long_px: int = 1333) -> ChipTable:
    """One canvas per image, resized to ``short_px`` on its short side unless the long one would exceed ``long_px``.

    Every object that is not a crowd region is valid.
    """
    scale = Level.model_validate({"short_px": short_px, "long_px": long_px}).scale(table.sizes_wh)
    sizes = zoomed_sizes(table.sizes_wh, scale)
    rows = np.flatnonzero(~table.crowd)
    return _tiles(
        np.arange(len(table), dtype=np.int32),
        scale,
        np.zeros((len(table), 2), np.int32),
        sizes,
        sizes,
        np.searchsorted(rows, table.offsets).astype(np.int64),
        rows,
    )


def _tiles(
    image_index: NDArray[np.int32],
    scale: NDArray[np.float64],
    origin_xy: NDArray[np.int32],
    size_wh: NDArray[np.int32],
    content_wh: NDArray[np.int32],
    object_offsets: NDArray[np.int64],
    object_rows: NDArray[np.int64],
) -> ChipTable:
    count = len(image_index)
    return ChipTable(
        image_index=image_index,
        level=np.zeros(count, np.int16),
        kind=np.full(count, ChipKind.TILE, np.int8),
        scale=scale,
        origin_xy=origin_xy,
        size_wh=size_wh,
        content_wh=content_wh.astype(np.int32),
        range_px=np.tile(np.asarray([0, math.inf], np.float32), (count, 1)),
        object_offsets=object_offsets,
        object_rows=object_rows,
    )
