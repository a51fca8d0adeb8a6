"""The alternatives that chips are compared with: uniform tiles, and whole images, at every level of a pyramid.

Both come as chip tables, so the same loader and training loop run them. See ``docs/method.md``, "Chips".
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.chips.grid import axis_count, axis_counts, axis_origin
from sniper.chips.table import ChipKind, ChipTable
from sniper.compiled import compiled, read_only
from sniper.data.table import AnnotationTable
from sniper.errors import RecipeError
from sniper.validity import ScaledImages, boxes_in_range


@compiled
def _axis_share(low: float, high: float, origin: int, window: int) -> float:
    """Share of ``[low, high)`` inside ``[origin, origin + window)``."""
    return max(min(high, np.float64(origin + window)) - max(low, np.float64(origin)), 0.0) / (high - low)


@compiled
def _tile_objects(
    boxes: NDArray[np.float32],
    usable: NDArray[np.bool_],
    offsets: NDArray[np.int64],
    sizes: NDArray[np.int32],
    tile_offsets: NDArray[np.int64],
    scales: NDArray[np.float64],
    tile_px: int,
    stride: int,
    min_visible: float,
    next_slot: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> None:
    """Add one to ``next_slot`` of a tile for each of its objects; where ``rows`` has room, store them there."""
    for image in range(len(sizes)):
        width, height = sizes[image]
        factor = scales[image]
        nx, ny = axis_count(width, tile_px, stride), axis_count(height, tile_px, stride)
        for row in range(offsets[image], offsets[image + 1]):
            if not usable[row]:
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


class _LevelTiles(NamedTuple):
    """Tiles of one level, ordered by image. K tiles, M objects."""

    image_index: NDArray[np.int32]
    origin_xy: NDArray[np.int32]  # network px
    size_wh: NDArray[np.int32]  # network px
    objects: NDArray[np.int64]  # (K,) number of valid objects
    object_rows: NDArray[np.int64]  # (M,)


def uniform_tiles(
    table: AnnotationTable, scaled_images: ScaledImages, *, overlap: float = 0.2, min_visible: float = 0.5
) -> ChipTable:
    """Every tile of every image at every level, row by row, those without objects included.

    Tiles are as large as chips and lie ``int(chip_px * (1 - overlap))`` px apart; the last of an axis ends at the
    border. An object in the level's training range is valid in every tile that shows at least ``min_visible`` of
    its area, and ignored in the others; crowds and difficult objects never are.

    Args:
        overlap: share of a tile that it has in common with the next, 0 <= overlap < 1.
        min_visible: share of an object's area, 0 < min_visible <= 1.

    Raises:
        RecipeError: ``overlap`` or ``min_visible`` out of range.
    """
    tile_px = scaled_images.chip_px
    stride = int(tile_px * (1 - overlap))
    if overlap < 0 or stride < 1:
        raise RecipeError(f"overlap of uniform tiles must be in [0, 1) and leave a step of a pixel, not {overlap}")
    if not 0 < min_visible <= 1:
        raise RecipeError(f"min_visible of uniform tiles must be in (0, 1], not {min_visible}")
    usable = _in_range(table, scaled_images)
    parts = []
    for level in range(len(scaled_images.ranges_px)):
        sizes = np.ascontiguousarray(scaled_images.sizes_wh[:, level])
        columns, lines = axis_counts(sizes, tile_px, stride).T
        tiles = columns * lines
        starts = np.cumsum(tiles) - tiles
        image = np.repeat(np.arange(len(table), dtype=np.int32), tiles)
        number = np.arange(len(image)) - np.repeat(starts, tiles)
        index = np.stack([number % columns[image], number // columns[image]], axis=1)
        origin = np.minimum(index * stride, np.maximum(sizes[image] - tile_px, 0)).astype(np.int32)
        layout = (
            read_only(table.boxes_xyxy),
            np.ascontiguousarray(usable[:, level]),
            read_only(table.offsets),
            sizes,
            starts,
            np.ascontiguousarray(scaled_images.scales[:, level]),
            tile_px,
            stride,
            min_visible,
        )
        counts = np.zeros(len(image), np.int64)
        _tile_objects(*layout, counts, np.zeros(0, np.int64))
        rows = np.empty(counts.sum(), np.int64)
        if len(rows):
            _tile_objects(*layout, np.cumsum(counts) - counts, rows)
        parts.append(_LevelTiles(image, origin, np.full((len(image), 2), tile_px, np.int32), counts, rows))
    return _join(parts, scaled_images)


def whole_images(table: AnnotationTable, scaled_images: ScaledImages) -> ChipTable:
    """One padded input per image and level, as large as the scaled image.

    Every object in the level's training range that is no crowd or difficult object is valid.
    """
    image = np.arange(len(table), dtype=np.int32)
    parts = []
    for level, usable in enumerate(_in_range(table, scaled_images).T):
        rows = np.flatnonzero(usable)
        counts = np.diff(np.searchsorted(rows, table.offsets)).astype(np.int64)
        parts.append(
            _LevelTiles(image, np.zeros((len(image), 2), np.int32), scaled_images.sizes_wh[:, level], counts, rows)
        )
    return _join(parts, scaled_images)


def _in_range(table: AnnotationTable, scaled_images: ScaledImages) -> NDArray[np.bool_]:
    """(N, L) whether an object is not ignored and in a level's training range."""
    ignored = table.ignored
    usable = np.empty((len(ignored), len(scaled_images.ranges_px)), np.bool_)
    for level, (low, high) in enumerate(scaled_images.ranges_px.tolist()):
        usable[:, level] = boxes_in_range(table.boxes_xyxy, low, high) & ~ignored
    return usable


def _join(parts: list[_LevelTiles], scaled_images: ScaledImages) -> ChipTable:
    """One table, ordered by image and, within an image, by level."""
    counts = [len(part.image_index) for part in parts]
    image = np.concatenate([part.image_index for part in parts])
    order = np.argsort(image, kind="stable")
    level = np.repeat(np.arange(len(parts), dtype=np.int16), counts)[order]
    image = image[order]
    origin = np.concatenate([part.origin_xy for part in parts])[order]
    size = np.concatenate([part.size_wh for part in parts])[order]
    objects = np.concatenate([part.objects for part in parts])
    first = (np.cumsum(objects) - objects)[order]
    objects = objects[order]
    offsets = np.concatenate(([0], np.cumsum(objects))).astype(np.int64)
    rows = np.concatenate([part.object_rows for part in parts])
    return ChipTable(
        image_index=image,
        level=level,
        kind=np.full(len(image), ChipKind.TILE, np.int8),
        scale=scaled_images.scales[image, level],
        origin_xy=origin,
        size_wh=size.astype(np.int32),
        valid_wh=np.minimum(scaled_images.sizes_wh[image, level] - origin, size).astype(np.int32),
        range_px=scaled_images.ranges_px.astype(np.float32)[level],
        object_offsets=offsets,
        object_rows=rows[np.arange(len(rows)) + np.repeat(first - offsets[:-1], objects)].astype(np.int64),
    )
