"""Positive chips: windows that together hold every object of normal size at a level.

An object is *valid* at a level if its size lies in the level's valid range, neither side is tiny, it is not ignored
(a crowd, a difficult object), and it fits: along each axis its scaled extent is at most ``C - t_max`` (so that some
candidate holds it whatever stride the epoch draws), or the scaled image itself is no longer than a chip. Each valid
object belongs to the one chip of its level that covered it first; it lies fully inside. ``docs/method.md``, "Chips".
"""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.chips.config import SizeRule
from sniper.chips.cover import FEW, cover_few, cover_many
from sniper.chips.grid import axis_count, axis_first, axis_last, axis_origin
from sniper.chips.seeding import draw
from sniper.compiled import compiled, read_only, thread_count
from sniper.data.table import AnnotationTable
from sniper.validity import ScaledImages, fit_limit, is_valid

BLOCK_IMAGES = 4096  # images that one task covers


class Cover(NamedTuple):
    """Positive chips of a block of images. K chips, M objects."""

    image_index: NDArray[np.int32]  # (K,) never decreasing
    level: NDArray[np.int16]  # (K,)
    origin_xy: NDArray[np.int32]  # (K, 2) network px
    objects: NDArray[np.int32]  # (K,) number of valid objects
    object_rows: NDArray[np.int64]  # (M,) rows of the annotation table, grouped by chip


@compiled
def _valid_rows(
    boxes: NDArray[np.float32],
    ignored: NDArray[np.bool_],
    offsets: NDArray[np.int64],
    scales: NDArray[np.float64],
    sizes: NDArray[np.int32],
    ranges: NDArray[np.float64],
    chip_px: int,
    min_side: float,
    stride_max: int,
) -> NDArray[np.bool_]:
    valid = np.zeros((len(boxes), len(ranges)), np.bool_)
    for image in range(len(scales)):
        for level in range(len(ranges)):
            limit_w = fit_limit(sizes[image, level, 0], scales[image, level], chip_px, stride_max)
            limit_h = fit_limit(sizes[image, level, 1], scales[image, level], chip_px, stride_max)
            for row in range(offsets[image], offsets[image + 1]):
                x1, y1, x2, y2 = boxes[row]
                w, h = np.float64(x2) - np.float64(x1), np.float64(y2) - np.float64(y1)
                valid[row, level] = not ignored[row] and is_valid(
                    w, h, ranges[level, 0], ranges[level, 1], min_side, limit_w, limit_h
                )
    return valid


def valid_objects(table: AnnotationTable, scaled_images: ScaledImages, rule: SizeRule) -> NDArray[np.bool_]:
    """(N, L) whether each object is valid at each level. Every True is in exactly one positive chip."""
    return _valid_rows(
        read_only(table.boxes_xyxy),
        read_only(table.ignored),
        read_only(table.offsets),
        scaled_images.scales,
        scaled_images.sizes_wh,
        scaled_images.ranges_px,
        scaled_images.chip_px,
        float(rule.min_side_px),
        rule.stride_max,
    )


@compiled
def _valid_spans(
    boxes: NDArray[np.float32],
    ignored: NDArray[np.bool_],
    scale: float,
    width: int,
    height: int,
    range_px: NDArray[np.float64],
    chip_px: int,
    min_side: float,
    stride_max: int,
    stride: int,
    found: NDArray[np.int64],
    spans: NDArray[np.int32],
) -> int:
    """Write the index of each valid object of an image and the candidates that hold it; returns how many there are."""
    limit_w = fit_limit(width, scale, chip_px, stride_max)
    limit_h = fit_limit(height, scale, chip_px, stride_max)
    n = 0
    for b in range(len(boxes)):
        x1, y1 = np.float64(boxes[b, 0]), np.float64(boxes[b, 1])
        x2, y2 = np.float64(boxes[b, 2]), np.float64(boxes[b, 3])
        if is_valid(x2 - x1, y2 - y1, range_px[0], range_px[1], min_side, limit_w, limit_h) and not ignored[b]:
            spans[0, n, 0] = axis_first(x2 * scale, width, chip_px, stride)
            spans[0, n, 1] = axis_last(x1 * scale, width, chip_px, stride)
            spans[1, n, 0] = axis_first(y2 * scale, height, chip_px, stride)
            spans[1, n, 1] = axis_last(y1 * scale, height, chip_px, stride)
            found[n] = b
            n += 1
    return n


@compiled
def _cover_block(
    start: int,
    stop: int,
    boxes: NDArray[np.float32],
    ignored: NDArray[np.bool_],
    offsets: NDArray[np.int64],
    scales: NDArray[np.float64],
    sizes: NDArray[np.int32],
    ranges: NDArray[np.float64],
    chip_px: int,
    min_side: float,
    stride_max: int,
    stride: int,
    keys: NDArray[np.uint64],
) -> tuple[NDArray[np.int32], NDArray[np.int16], NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
    """The columns of ``Cover`` for images ``start`` to ``stop``."""
    levels = len(ranges)
    max_count = (offsets[stop] - offsets[start]) * levels
    chip_image, chip_level = np.empty(max_count, np.int32), np.empty(max_count, np.int16)
    origin, objects = np.empty((max_count, 2), np.int32), np.empty(max_count, np.int32)
    rows = np.empty(max_count, np.int64)
    max_boxes, longest = 1, 1
    for image in range(start, stop):
        max_boxes = max(max_boxes, offsets[image + 1] - offsets[image])
        for level in range(levels):
            for axis in range(2):
                longest = max(longest, axis_count(sizes[image, level, axis], chip_px, stride))
    found, spans = np.empty(max_boxes, np.int64), np.empty((2, max_boxes, 2), np.int32)
    cells, order, covered = (
        np.empty((max_boxes, 2), np.int32),
        np.empty(max_boxes, np.int32),
        np.empty(max_boxes, np.int32),
    )
    events, masks = np.zeros(longest + 1, np.uint64), np.empty((2, 2 * FEW + 1), np.uint64)
    starts = np.empty((2, 2 * FEW + 1), np.int64)
    chips, done = 0, 0
    for image in range(start, stop):
        for level in range(levels):
            scale = scales[image, level]
            width, height = sizes[image, level, 0], sizes[image, level, 1]
            local = slice(offsets[image], offsets[image + 1])
            n = _valid_spans(
                boxes[local], ignored[local], scale, width, height, ranges[level], chip_px, min_side, stride_max,
                stride, found, spans,
            )  # fmt: skip
            if n == 0:
                continue
            key = draw(keys[image], level)
            if n <= FEW:
                k = cover_few(spans, n, key, events, masks, starts, cells, order, covered)
            else:
                nx, ny = axis_count(width, chip_px, stride), axis_count(height, chip_px, stride)
                k = cover_many(spans, n, key, np.zeros((ny, nx), np.int32), cells, order, covered)
            for c in range(k):
                chip_image[chips], chip_level[chips] = image, level
                origin[chips, 0] = axis_origin(cells[c, 0], width, chip_px, stride)
                origin[chips, 1] = axis_origin(cells[c, 1], height, chip_px, stride)
                objects[chips] = covered[c]
                chips += 1
            for b in range(n):
                rows[done + b] = offsets[image] + found[order[b]]
            done += n
    return chip_image[:chips], chip_level[:chips], origin[:chips], objects[:chips], rows[:done]


def cover_images(
    table: AnnotationTable, scaled_images: ScaledImages, rule: SizeRule, stride: int, keys: NDArray[np.uint64]
) -> Cover:
    """Positive chips of all images, by image, level (finest first) and order of the greedy choice.

    Blocks of images run on as many threads as numba may use (``numba.config.NUMBA_NUM_THREADS``); the result does
    not depend on how many.

    Args:
        scaled_images: those of ``table``.
        rule: which objects are valid.
        stride: spacing of the candidates in network px, at most ``rule.stride_max``.
        keys: (I,) stream of random draws of each image.
    """

    ignored = read_only(table.ignored)

    def block(start: int) -> Cover:
        return Cover(
            *_cover_block(
                start,
                min(start + BLOCK_IMAGES, len(table)),
                read_only(table.boxes_xyxy),
                ignored,
                read_only(table.offsets),
                scaled_images.scales,
                scaled_images.sizes_wh,
                scaled_images.ranges_px,
                scaled_images.chip_px,
                float(rule.min_side_px),
                rule.stride_max,
                stride,
                keys,
            )
        )

    starts = range(0, max(len(table), 1), BLOCK_IMAGES)
    if len(starts) == 1:
        return block(0)
    with ThreadPoolExecutor(thread_count()) as threads:
        blocks = list(threads.map(block, starts))
    return Cover(*(np.concatenate(columns) for columns in zip(*blocks, strict=True)))
