"""Compiled suppression of overlapping boxes: soft-NMS (arXiv 1704.04503) and hard NMS, exact, many groups at once.

Boxes of a group (one class of one image) are ordered by size and place and cut into blocks of a few boxes that
lie near each other. A pick lowers scores only in the blocks whose bounding box it touches, and each block remembers
its best score, so the next pick needs one look per block. Every picked or dead box leaves its block for good.

The kernels release the interpreter lock and share nothing, so groups run on plain threads: any number of threads
gives the same result, and forked loader workers inherit no thread pool.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from sniper.chips.compiled import compiled

SOFT_GAUSSIAN, SOFT_LINEAR, HARD = 0, 1, 2

BLOCK = 16  # boxes per block: two AVX registers of float32 per coordinate; 8 is slower, 32 no faster
_SERIAL_ROWS = 2_000  # fewer boxes than this are not worth a thread
_X1, _Y1, _X2, _Y2, _AREA, _SCORE, _SHARED = range(7)


@compiled
def counting_order(order: NDArray[np.int64], keys: NDArray[np.integer], n_keys: int) -> NDArray[np.int64]:
    """``order`` sorted by ``keys[order]`` (0 <= key < n_keys), equal keys staying in the order given."""
    starts = np.zeros(n_keys + 1, np.int64)
    for row in order:
        starts[keys[row] + 1] += 1
    for key in range(n_keys):
        starts[key + 1] += starts[key]
    out = np.empty_like(order)
    for row in order:
        out[starts[keys[row]]] = row
        starts[keys[row]] += 1
    return out


@compiled
def _spread(value: np.int64) -> np.int64:
    """The 16 low bits with a zero between each two."""
    value = (value | (value << 8)) & 0x00FF00FF
    value = (value | (value << 4)) & 0x0F0F0F0F
    value = (value | (value << 2)) & 0x33333333
    return (value | (value << 1)) & 0x55555555


@compiled
def _by_size_and_place(boxes: NDArray[np.floating], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """``rows`` such that neighbours are of like size and near each other; inside a block, ascending."""
    n = len(rows)
    low_x, low_y, extent = boxes[rows[0], 0], boxes[rows[0], 1], 1e-6
    for row in rows:
        low_x, low_y = min(low_x, boxes[row, 0]), min(low_y, boxes[row, 1])
    for row in rows:
        extent = max(extent, boxes[row, 2] - low_x, boxes[row, 3] - low_y)
    cells = 16383.0 / extent
    keys = np.empty(n, np.int64)
    for i in range(n):
        row = rows[i]
        x1, y1, x2, y2 = boxes[row, 0], boxes[row, 1], boxes[row, 2], boxes[row, 3]
        octave = np.int64(0)
        side = max(x2 - x1, y2 - y1) * 1024 / extent  # below a thousandth of the extent, size no longer matters
        while side > 1:
            octave += 1
            side *= 0.25
        x = np.int64(max(0.5 * (x1 + x2) - low_x, 0.0) * cells)
        y = np.int64(max(0.5 * (y1 + y2) - low_y, 0.0) * cells)
        keys[i] = (octave << 32) | (_spread(y) << 1) | _spread(x)
    placed = rows[np.argsort(keys)]
    for start in range(0, n, BLOCK):
        placed[start : start + BLOCK].sort()
    return placed


@compiled
def _fill_blocks(boxes, scores, placed, data, rows, counts, bounds):  # type: ignore[no-untyped-def]
    """Copy the boxes into blocks; empty places hold a box that touches nothing."""
    data[:, _X1 : _Y1 + 1] = np.inf
    data[:, _X2 : _Y2 + 1] = -np.inf
    data[:, _AREA:] = 0
    bounds[:, :2] = np.inf
    bounds[:, 2:] = -np.inf
    for i in range(len(placed)):
        block, place, row = i // BLOCK, i % BLOCK, placed[i]
        x1, y1, x2, y2 = boxes[row, 0], boxes[row, 1], boxes[row, 2], boxes[row, 3]
        data[block, _X1, place], data[block, _Y1, place] = x1, y1
        data[block, _X2, place], data[block, _Y2, place] = x2, y2
        data[block, _AREA, place] = max(x2 - x1, 0) * max(y2 - y1, 0)
        data[block, _SCORE, place] = scores[row]
        rows[block, place] = row
        counts[block] = place + 1
        bounds[block, 0], bounds[block, 1] = min(bounds[block, 0], x1), min(bounds[block, 1], y1)
        bounds[block, 2], bounds[block, 3] = max(bounds[block, 2], x2), max(bounds[block, 3], y2)


@compiled
def _decayed(score, shared, union, rule, sigma, iou_threshold, score_threshold):  # type: ignore[no-untyped-def]
    """The score of a box after an overlapping pick; negative once the box is gone."""
    overlap = np.float64(shared) / np.float64(union)
    if rule == 0:
        score = np.float32(score * np.exp(-overlap * overlap / sigma))
    elif overlap > iou_threshold:
        if rule == 2:
            return np.float32(-1)
        score = np.float32(score * (1 - overlap))
    return score if score >= score_threshold else np.float32(-1)


@compiled
def _best_of(block_data, count):  # type: ignore[no-untyped-def]
    """Place of the best score of a block, the first of equals (the lowest row); -1 in an empty block."""
    best, place = np.float32(-1), -1
    for j in range(count):
        if block_data[_SCORE, j] > best:
            best, place = np.float32(block_data[_SCORE, j]), j
    return place


@compiled
def _touch_block(block_data, rows, count, pick, picked_place, rule, sigma, iou_threshold, score_threshold):  # type: ignore[no-untyped-def]
    """Lower the scores that the pick overlaps and take out what is gone; the new count, or -1 for no change."""
    x1, y1, x2, y2, own = pick
    hits = 0
    for j in range(BLOCK):
        left, right = max(block_data[_X1, j], x1), min(block_data[_X2, j], x2)
        top, bottom = max(block_data[_Y1, j], y1), min(block_data[_Y2, j], y2)
        shared = max(right - left, 0) * max(bottom - top, 0)
        block_data[_SHARED, j] = shared
        hits += shared > 0
    if hits == 0 and picked_place < 0:
        return -1
    kept = 0
    for j in range(count):
        score = np.float32(block_data[_SCORE, j])
        shared = block_data[_SHARED, j]
        if j == picked_place:
            continue
        if shared > 0:
            union = block_data[_AREA, j] + own - shared
            score = _decayed(score, shared, union, rule, sigma, iou_threshold, score_threshold)
            if score < 0:
                continue
        if kept != j:
            for column in range(_SCORE):
                block_data[column, kept] = block_data[column, j]
            rows[kept] = rows[j]
        block_data[_SCORE, kept] = score
        kept += 1
    for j in range(kept, count):
        block_data[_X1, j] = np.inf
        block_data[_X2, j] = -np.inf
    return kept


@compiled
def _suppress_group(  # type: ignore[no-untyped-def]
    boxes, scores, group_rows, rule, sigma, iou_threshold, score_threshold, most, out_rows, out_scores
):
    """Write the picks of one group, best first, at the head of the two outputs."""
    n_blocks = (len(group_rows) + BLOCK - 1) // BLOCK
    data = np.empty((n_blocks, 7, BLOCK), boxes.dtype)
    rows = np.empty((n_blocks, BLOCK), np.int64)
    counts = np.zeros(n_blocks, np.int64)
    bounds = np.empty((n_blocks, 4), boxes.dtype)
    _fill_blocks(boxes, scores, _by_size_and_place(boxes, group_rows), data, rows, counts, bounds)
    place_of, score_of = np.empty(n_blocks, np.int64), np.empty(n_blocks, np.float32)
    best = 0
    for block in range(n_blocks):
        place_of[block] = _best_of(data[block], counts[block])
        score_of[block] = data[block, _SCORE, place_of[block]]
        if score_of[block] > score_of[best] or (
            score_of[block] == score_of[best] and rows[block, place_of[block]] < rows[best, place_of[best]]
        ):
            best = block
    for n_picks in range(min(most, len(group_rows))):
        place = place_of[best]
        out_rows[n_picks], out_scores[n_picks] = rows[best, place], score_of[best]
        x1, y1 = data[best, _X1, place], data[best, _Y1, place]
        x2, y2 = data[best, _X2, place], data[best, _Y2, place]
        pick = (x1, y1, x2, y2, data[best, _AREA, place])
        following, following_score = -1, np.float32(-1)
        for block in range(n_blocks):
            mine = block == best
            if mine or (
                bounds[block, 0] < x2 and bounds[block, 2] > x1 and bounds[block, 1] < y2 and bounds[block, 3] > y1
            ):
                count = _touch_block(
                    data[block], rows[block], counts[block], pick, place if mine else -1,
                    rule, sigma, iou_threshold, score_threshold,
                )  # fmt: skip
                if count >= 0:
                    counts[block] = count
                    place_of[block] = _best_of(data[block], count)
                    if count > 0:
                        score_of[block] = data[block, _SCORE, place_of[block]]
                    else:
                        score_of[block] = -1
                        bounds[block, 0] = np.inf
            if score_of[block] > following_score or (
                score_of[block] == following_score
                and following >= 0
                and rows[block, place_of[block]] < rows[following, place_of[following]]
            ):
                following, following_score = block, score_of[block]
        if following < 0:
            return
        best = following


@compiled
def _suppress_run(  # type: ignore[no-untyped-def]
    first, last, starts, order, boxes, scores, rule, sigma, iou_threshold, score_threshold, most, out_rows, out_scores
):
    """Groups ``first`` to ``last`` (exclusive)."""
    for group in range(first, last):
        start, end = starts[group], starts[group + 1]
        _suppress_group(
            boxes, scores, order[start:end], rule, sigma, iou_threshold, score_threshold, most,
            out_rows[start:end], out_scores[start:end],
        )  # fmt: skip


def suppress_groups(
    boxes_xyxy: NDArray[np.floating],
    scores: NDArray[np.float32],
    order: NDArray[np.int64],
    starts: NDArray[np.int64],
    *,
    rule: int,
    sigma: float,
    iou_threshold: float,
    score_threshold: float,
    most: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows that survive and their final scores, group after group, best first in each.

    ``order[starts[g]:starts[g + 1]]`` are the rows of group ``g`` (no group is empty); ``most`` ends a group early,
    which is exact because picks never rise in score. Scores must be finite and not negative. Of equal scores the
    lower row is picked first.
    """
    out_rows = np.full(len(order), -1, dtype=np.int64)
    out_scores = np.empty(len(order), dtype=np.float32)
    fixed: tuple[Any, ...] = (
        starts,
        order,
        boxes_xyxy,
        scores,
        rule,
        sigma,
        iou_threshold,
        score_threshold,
        most,
        out_rows,
        out_scores,
    )
    n_groups, n_threads = len(starts) - 1, numba.get_num_threads()
    if len(order) < _SERIAL_ROWS or n_threads == 1 or n_groups == 1:
        _suppress_run(0, n_groups, *fixed)
    else:
        shares = np.linspace(0, len(order), 4 * n_threads + 1)
        cuts = np.unique(np.searchsorted(starts, shares)).clip(0, n_groups).tolist()
        with ThreadPoolExecutor(n_threads) as pool:
            runs = [pool.submit(_suppress_run, a, b, *fixed) for a, b in pairwise(cuts)]
            for run in runs:
                run.result()
    picked = out_rows >= 0
    return out_rows[picked], out_scores[picked]
