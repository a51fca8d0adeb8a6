"""Negative chips of a block of images, compiled: see ``negative``, which calls it."""

import numpy as np
from numpy.typing import NDArray

from sniper.chips.cover import cover_many
from sniper.chips.grid import HOLD_SLACK, axis_count, axis_first, axis_last, axis_origin
from sniper.chips.seeding import draw, draw_unit
from sniper.compiled import compiled
from sniper.validity import fit_limit, is_valid


@compiled
def _is_covered(
    x1: float,
    y1: float,
    x2: float,
    y2: float,
    origins: NDArray[np.int32],
    first: int,
    last: int,
    chip_px: int,
    overlap: bool,
    limit: float,
    min_shown_side: float,
    min_shown_area: float,
) -> bool:
    """Whether positive chips ``first <= k < last`` show enough of a box, all in network px of one level.

    With ``overlap``, the chip that shows most of it must show ``min_shown_side`` and ``min_shown_area``; else some
    chip must show the share ``limit``.
    """
    area = (x2 - x1) * (y2 - y1)
    max_count, enough = 0.0, False
    for k in range(first, last):
        w = min(x2, origins[k, 0] + chip_px) - max(x1, origins[k, 0])
        h = min(y2, origins[k, 1] + chip_px) - max(y1, origins[k, 1])
        if w > 0 and h > 0 and w * h > max_count:
            max_count = w * h
            enough = min(w, h) >= min_shown_side and max_count >= min_shown_area
            if not overlap and max_count >= limit * area - HOLD_SLACK:
                return True
    return overlap and enough


@compiled
def _uncovered_spans(
    boxes: NDArray[np.float32],
    image_wh: NDArray[np.int32],
    scale: float,
    width: int,
    height: int,
    range_px: NDArray[np.float64],
    is_last: bool,
    chip_px: int,
    min_side: float,
    stride_max: int,
    stride: int,
    origins: NDArray[np.int32],
    first: int,
    last: int,
    overlap: bool,
    share: float,
    found: NDArray[np.int64],
    spans: NDArray[np.int32],
) -> int:
    """Write the index of each valid, uncovered proposal of an image, and the candidates that hold it; how many."""
    limit_w = fit_limit(width, scale, chip_px, stride_max)
    limit_h = fit_limit(height, scale, chip_px, stride_max)
    # The original asks, at the coarsest level only, that what a chip shows be as large as the level's objects.
    min_shown_area = (range_px[0] * scale) ** 2 if is_last else 0.0
    n = 0
    for b in range(len(boxes)):
        x1, y1 = max(np.float64(boxes[b, 0]), 0.0), max(np.float64(boxes[b, 1]), 0.0)
        x2, y2 = min(np.float64(boxes[b, 2]), image_wh[0]), min(np.float64(boxes[b, 3]), image_wh[1])
        w, h = x2 - x1, y2 - y1
        if not (w > 0 and h > 0 and is_valid(w, h, range_px[0], range_px[1], min_side, limit_w, limit_h)):
            continue
        x1, y1, x2, y2 = x1 * scale, y1 * scale, x2 * scale, y2 * scale
        if _is_covered(x1, y1, x2, y2, origins, first, last, chip_px, overlap, share, scale, min_shown_area):
            continue
        spans[0, n, 0] = axis_first(x2, width, chip_px, stride)
        spans[0, n, 1] = axis_last(x1, width, chip_px, stride)
        spans[1, n, 0] = axis_first(y2, height, chip_px, stride)
        spans[1, n, 1] = axis_last(y1, height, chip_px, stride)
        found[n] = b
        n += 1
    return n


@compiled
def draw_time(key: np.uint64, number: int, weight: float) -> float:
    """When a candidate of that weight comes up; the first K to come are a draw without replacement."""
    return -np.log(draw_unit(key, number)) / max(weight, 1e-12)  # type: ignore[no-any-return]


@compiled
def _choose(weights: NDArray[np.float64], n: int, max_count: int, key: np.uint64, chosen: NDArray[np.bool_]) -> None:
    """Mark ``max_count`` of ``n`` candidates, drawn without replacement by weight (Efraimidis and Spirakis 2006)."""
    times = np.empty(n, np.float64)
    for k in range(n):
        times[k] = draw_time(key, k, weights[k])
        chosen[k] = n <= max_count
    if n <= max_count:
        return
    for _ in range(max_count):
        best = -1
        for k in range(n):
            if not chosen[k] and (best < 0 or times[k] < times[best]):
                best = k
        chosen[best] = True


@compiled
def _list_inside(
    boxes: NDArray[np.float32],
    ignored: NDArray[np.bool_],
    first: int,
    last: int,
    scale: float,
    width: int,
    height: int,
    range_px: NDArray[np.float64],
    chip_px: int,
    min_side: float,
    stride_max: int,
    x: int,
    y: int,
    rows: NDArray[np.int64],
    done: int,
) -> int:
    """Write the rows of the valid objects wholly inside the chip at (x, y) from ``done`` on; where they end."""
    limit_w = fit_limit(width, scale, chip_px, stride_max)
    limit_h = fit_limit(height, scale, chip_px, stride_max)
    for row in range(first, last):
        x1, y1 = np.float64(boxes[row, 0]), np.float64(boxes[row, 1])
        x2, y2 = np.float64(boxes[row, 2]), np.float64(boxes[row, 3])
        inside = (
            x1 * scale >= x - HOLD_SLACK
            and y1 * scale >= y - HOLD_SLACK
            and x2 * scale <= x + chip_px + HOLD_SLACK
            and y2 * scale <= y + chip_px + HOLD_SLACK
        )
        if (
            inside
            and not ignored[row]
            and is_valid(x2 - x1, y2 - y1, range_px[0], range_px[1], min_side, limit_w, limit_h)
        ):
            rows[done] = row
            done += 1
    return done


@compiled
def negatives_block(
    start: int,
    stop: int,
    offsets: NDArray[np.int64],
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    object_offsets: NDArray[np.int64],
    objects: NDArray[np.float32],
    ignored: NDArray[np.bool_],
    images_wh: NDArray[np.int32],
    scales: NDArray[np.float64],
    sizes: NDArray[np.int32],
    ranges: NDArray[np.float64],
    chip_px: int,
    min_side: float,
    stride_max: int,
    stride: int,
    keys: NDArray[np.uint64],
    chip_offsets: NDArray[np.int64],
    chip_level: NDArray[np.int16],
    chip_origin: NDArray[np.int32],
    per_image: NDArray[np.int64],
    min_count: NDArray[np.int64],
    overlap: bool,
    share: float,
    by_score: bool,
) -> tuple[
    NDArray[np.int32], NDArray[np.int16], NDArray[np.int32], NDArray[np.int32], NDArray[np.int64], NDArray[np.int32],
    NDArray[np.float64],
]:  # fmt: skip
    """The columns of ``negative.Negatives`` for images ``start`` to ``stop``."""
    levels = len(ranges)
    max_boxes, max_chips, max_rows = 1, 0, 0
    for image in range(start, stop):
        own = offsets[image + 1] - offsets[image]
        max_boxes = max(max_boxes, own)
        here = min(per_image[image], own * levels)
        max_chips += here
        max_rows += here * (object_offsets[image + 1] - object_offsets[image])
    out_image, out_level = np.empty(max_chips, np.int32), np.empty(max_chips, np.int16)
    out_origin, out_objects = np.empty((max_chips, 2), np.int32), np.empty(max_chips, np.int32)
    out_rows, out_proposals = np.empty(max_rows, np.int64), np.empty(max_chips, np.int32)
    out_weight = np.empty(max_chips, np.float64)
    found, spans = np.empty(max_boxes, np.int64), np.empty((2, max_boxes, 2), np.int32)
    cells = np.empty((max_boxes, 2), np.int32)
    order, covered = np.empty(max_boxes, np.int32), np.empty(max_boxes, np.int32)
    # Candidates of an image, all levels: level, origin, proposals, weight.
    max_candidates = max_boxes * levels
    c_level, c_origin = np.empty(max_candidates, np.int16), np.empty((max_candidates, 2), np.int32)
    c_count, c_weight = np.empty(max_candidates, np.int32), np.empty(max_candidates, np.float64)
    chosen = np.empty(max_candidates, np.bool_)
    chips, done = 0, 0
    for image in range(start, stop):
        own = slice(offsets[image], offsets[image + 1])
        first = chip_offsets[image]
        candidates = 0
        for level in range(levels):
            last = first
            while last < chip_offsets[image + 1] and chip_level[last] == level:
                last += 1
            scale, width, height = scales[image, level], sizes[image, level, 0], sizes[image, level, 1]
            n = 0
            if offsets[image + 1] - offsets[image] >= min_count[level]:
                n = _uncovered_spans(
                    boxes[own], images_wh[image], scale, width, height, ranges[level], level == levels - 1, chip_px,
                    min_side, stride_max, stride, chip_origin, first, last, overlap, share, found, spans,
                )  # fmt: skip
            first = last
            if n < min_count[level]:
                continue
            nx, ny = axis_count(width, chip_px, stride), axis_count(height, chip_px, stride)
            key = draw(keys[image], level)
            k = cover_many(spans, n, key, np.zeros((ny, nx), np.int32), cells, order, covered, min_count[level])
            held = 0
            for c in range(k):
                weight = 0.0
                for b in range(held, held + covered[c]):
                    weight += scores[offsets[image] + found[order[b]]]
                held += covered[c]
                c_level[candidates], c_count[candidates] = level, covered[c]
                c_origin[candidates, 0] = axis_origin(cells[c, 0], width, chip_px, stride)
                c_origin[candidates, 1] = axis_origin(cells[c, 1], height, chip_px, stride)
                c_weight[candidates] = weight if by_score else 1.0
                candidates += 1
        if candidates == 0:
            continue
        _choose(c_weight, candidates, per_image[image], draw(keys[image], levels), chosen)
        for c in range(candidates):
            if not chosen[c]:
                continue
            level = c_level[c]
            before = done
            done = _list_inside(
                objects, ignored, object_offsets[image], object_offsets[image + 1], scales[image, level],
                sizes[image, level, 0], sizes[image, level, 1], ranges[level], chip_px, min_side, stride_max,
                c_origin[c, 0], c_origin[c, 1], out_rows, done,
            )  # fmt: skip
            out_image[chips], out_level[chips] = image, level
            out_origin[chips, 0], out_origin[chips, 1] = c_origin[c, 0], c_origin[c, 1]
            out_objects[chips], out_proposals[chips], out_weight[chips] = done - before, c_count[c], c_weight[c]
            chips += 1
    return (
        out_image[:chips], out_level[:chips], out_origin[:chips], out_objects[:chips], out_rows[:done],
        out_proposals[:chips], out_weight[:chips],
    )  # fmt: skip
