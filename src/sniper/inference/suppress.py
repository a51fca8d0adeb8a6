"""Compiled suppression of overlapping boxes: soft-NMS (arXiv 1704.04503) and hard NMS, exact, many groups at once.

Boxes of a group (one class of one image) are ordered by size and place and cut into blocks of a few boxes that
lie near each other. A pick lowers scores only in the blocks whose bounding box it touches, a whole block at a time
in vector registers, and each block remembers its best score, so the next pick needs one comparison per block.
Picked and dead boxes score -1; each time a third of the boxes has been picked, the rest is packed into fewer blocks.

The kernels release the interpreter lock and share nothing, so groups run on plain threads: any number of threads
gives the same result, and forked loader workers inherit no thread pool. They spell out loops where NumPy's slices and
sorts would do, for those take numba many seconds to compile.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sniper.compiled import compiled, thread_count
from sniper.inference.ordering import by_size_and_place

SOFT_GAUSSIAN, SOFT_LINEAR, HARD = 0, 1, 2

BLOCK = 16  # boxes per block: two AVX registers of float32 per coordinate; 8 is slower, 32 no faster
_SERIAL_ROWS = 2_000  # fewer boxes than this are not worth a thread
_X1, _Y1, _X2, _Y2, _AREA = range(5)
_ZERO, _ONE, _MIN_EXPONENT = np.float32(0), np.float32(1), np.float32(-126)
# 2^x on [-1, 0] to 3e-9, by interpolation at Chebyshev's points
_POWERS = tuple(
    np.float32(c)
    for c in (0.9999999986, 0.6931470452, 0.2402243312, 0.05549093212, 0.009579859973, 0.001275540136, 0.0001093289241)
)


@compiled
def _power_of_two(x):  # type: ignore[no-untyped-def]
    """2^x for x in [-1, 0]."""
    c0, c1, c2, c3, c4, c5, c6 = _POWERS
    return c0 + x * (c1 + x * (c2 + x * (c3 + x * (c4 + x * (c5 + x * c6)))))


@compiled
def _fill_blocks(boxes, scores, placed, n, geometry, values, rows, bounds):  # type: ignore[no-untyped-def]
    """Copy the first ``n`` boxes into blocks; the number of blocks. Empty places touch nothing and are dead."""
    n_blocks = (n + BLOCK - 1) // BLOCK
    for block in range(n_blocks):
        bounds[0, block], bounds[1, block], bounds[2, block], bounds[3, block] = np.inf, np.inf, -np.inf, -np.inf
        for j in range(BLOCK):
            geometry[block, _X1, j], geometry[block, _Y1, j] = np.inf, np.inf
            geometry[block, _X2, j], geometry[block, _Y2, j] = -np.inf, -np.inf
            geometry[block, _AREA, j], values[block, j] = 0, -1
    for i in range(n):
        block, place, row = i // BLOCK, i % BLOCK, placed[i]
        x1, y1, x2, y2 = boxes[row, 0], boxes[row, 1], boxes[row, 2], boxes[row, 3]
        geometry[block, _X1, place], geometry[block, _Y1, place] = x1, y1
        geometry[block, _X2, place], geometry[block, _Y2, place] = x2, y2
        geometry[block, _AREA, place] = max(x2 - x1, 0) * max(y2 - y1, 0)
        values[block, place] = scores[i]
        rows[block, place] = row
        bounds[0, block], bounds[1, block] = min(bounds[0, block], x1), min(bounds[1, block], y1)
        bounds[2, block], bounds[3, block] = max(bounds[2, block], x2), max(bounds[3, block], y2)
    return n_blocks


@compiled
def _overlap(geometry, block, j, pick):  # type: ignore[no-untyped-def]
    """IoU of a pick with one place. Without branches, so that the loops below run in vector registers."""
    x1, y1, x2, y2, own, zero, tiny = pick
    left, right = max(geometry[block, _X1, j], x1), min(geometry[block, _X2, j], x2)
    top, bottom = max(geometry[block, _Y1, j], y1), min(geometry[block, _Y2, j], y2)
    shared = max(right - left, zero) * max(bottom - top, zero)
    return np.float32(shared / max(geometry[block, _AREA, j] + own - shared, tiny))


@compiled
def _lower_gaussian(geometry, scores, block, pick, rate, threshold):  # type: ignore[no-untyped-def]
    """Scores of a block times 2^(rate * IoU^2); below the threshold they become -1."""
    for j in range(BLOCK):
        overlap = _overlap(geometry, block, j, pick)
        exponent = max(rate * overlap * overlap, _MIN_EXPONENT)
        whole = np.int32(exponent)
        scale = np.int32((whole + 127) << 23).view(np.float32)  # 2^whole, by the bits of a float32
        score = scores[block, j] * (scale * _power_of_two(exponent - np.float32(whole)))
        scores[block, j] = -_ONE if (score < threshold) & (overlap > _ZERO) else score


@compiled
def _lower_linear(geometry, scores, block, pick, limit, threshold):  # type: ignore[no-untyped-def]
    """Scores of a block times (1 - IoU) where IoU > limit; below the threshold they become -1."""
    for j in range(BLOCK):
        overlap = _overlap(geometry, block, j, pick)
        score = scores[block, j] * (_ONE - overlap if overlap > limit else _ONE)
        scores[block, j] = -_ONE if (score < threshold) & (overlap > _ZERO) else score


@compiled
def _drop_hard(geometry, scores, block, pick, limit, threshold):  # type: ignore[no-untyped-def]
    """Scores of a block become -1 where IoU > limit, and where any overlap meets a score below the threshold."""
    for j in range(BLOCK):
        overlap = _overlap(geometry, block, j, pick)
        score = scores[block, j]
        dies = (overlap > limit) | ((score < threshold) & (overlap > _ZERO))
        scores[block, j] = -_ONE if dies else score


@compiled
def _best_bits(bits, block):  # type: ignore[no-untyped-def]
    """The bits of a block's best score. Bits of floats >= 0 order like the floats; those of dead boxes are negative."""
    best = np.int32(-1)
    for j in range(BLOCK):
        best = max(best, bits[block, j])
    return best


@compiled
def _place_of(bits, rows, block, score_bits):  # type: ignore[no-untyped-def]
    """The place of a block with that score; of several, the one with the lowest row."""
    place = -1
    for j in range(BLOCK):
        if bits[block, j] == score_bits and (place < 0 or rows[block, j] < rows[block, place]):
            place = j
    return place


@compiled
def _best_block(best_of, n_blocks, bits, rows):  # type: ignore[no-untyped-def]
    """The block with the best score; of several, the one with the lowest row. -1 if all are dead."""
    best = np.int32(-1)
    for block in range(n_blocks):
        best = max(best, best_of[block])
    chosen = -1
    if best >= 0:
        for block in range(n_blocks):
            if best_of[block] == best and (
                chosen < 0
                or rows[block, _place_of(bits, rows, block, best)] < rows[chosen, _place_of(bits, rows, chosen, best)]
            ):
                chosen = block
    return chosen


@compiled
def _alive(values, bits, rows, n_blocks, placed, scores):  # type: ignore[no-untyped-def]
    """Rows and scores of the boxes still in the running, as ``_fill_blocks`` takes them; how many."""
    n = 0
    for block in range(n_blocks):
        for j in range(BLOCK):
            if bits[block, j] >= 0:
                placed[n], scores[n] = rows[block, j], values[block, j]
                n += 1
    return n


@compiled
def _suppress_group(  # type: ignore[no-untyped-def]
    boxes, all_scores, group_rows, rule, sigma, iou_threshold, score_threshold, max_count, out_rows, out_scores
):
    """Write the picks of one group, best first, at the head of the two outputs."""
    max_count = min(max_count, len(group_rows))
    capacity = (len(group_rows) + BLOCK - 1) // BLOCK
    geometry = np.empty((capacity, 5, BLOCK), boxes.dtype)
    values = np.empty((capacity, BLOCK), np.float32)
    bits = values.view(np.int32)
    rows = np.empty((capacity, BLOCK), np.int64)
    bounds = np.empty((4, capacity), boxes.dtype)
    best_of = np.empty(capacity, np.int32)
    touched = np.empty(capacity, np.int64)
    placed = by_size_and_place(boxes, group_rows)
    scores = np.empty(len(placed), np.float32)
    for i in range(len(placed)):
        scores[i] = all_scores[placed[i]] + _ZERO  # -0.0 becomes 0.0
    zero, tiny = boxes.dtype.type(0), boxes.dtype.type(1e-30)
    rate, limit = np.float32(max(-1.4426950408889634 / sigma, -1e30)), np.float32(iou_threshold)
    threshold = np.float32(score_threshold)
    alive = len(placed)
    picks = 0
    while picks < max_count and alive > 0:
        n_blocks = _fill_blocks(boxes, scores, placed, alive, geometry, values, rows, bounds)
        for block in range(n_blocks):
            best_of[block] = _best_bits(bits, block)
        until = min(max_count, picks + max(alive // 3, BLOCK))
        while picks < until:
            best = _best_block(best_of, n_blocks, bits, rows)
            if best < 0:
                return
            place = _place_of(bits, rows, best, best_of[best])
            out_rows[picks], out_scores[picks] = rows[best, place], values[best, place]
            picks += 1
            values[best, place] = -1
            x1, y1 = geometry[best, _X1, place], geometry[best, _Y1, place]
            x2, y2 = geometry[best, _X2, place], geometry[best, _Y2, place]
            pick = (x1, y1, x2, y2, geometry[best, _AREA, place], zero, tiny)
            n_touched = 0
            for block in range(n_blocks):
                near = (
                    (bounds[0, block] < x2)
                    & (bounds[2, block] > x1)
                    & (bounds[1, block] < y2)
                    & (bounds[3, block] > y1)
                )
                touched[n_touched] = block
                n_touched += near & (best_of[block] >= 0) | (block == best)
            for i in range(n_touched):
                block = touched[i]
                if rule == SOFT_GAUSSIAN:
                    _lower_gaussian(geometry, values, block, pick, rate, threshold)
                elif rule == SOFT_LINEAR:
                    _lower_linear(geometry, values, block, pick, limit, threshold)
                else:
                    _drop_hard(geometry, values, block, pick, limit, threshold)
                best_of[block] = _best_bits(bits, block)
        alive = _alive(values, bits, rows, n_blocks, placed, scores)


@compiled
def _suppress_run(  # type: ignore[no-untyped-def]
    first,
    last,
    starts,
    order,
    boxes,
    scores,
    rule,
    sigma,
    iou_threshold,
    score_threshold,
    max_count,
    out_rows,
    out_scores,
):
    """Groups ``first`` to ``last`` (exclusive)."""
    for group in range(first, last):
        start, end = starts[group], starts[group + 1]
        _suppress_group(
            boxes, scores, order[start:end], rule, sigma, iou_threshold, score_threshold, max_count,
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
    max_count: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows that survive and their final scores, group after group, best first in each.

    ``order[starts[g]:starts[g + 1]]`` are the rows of group ``g`` (no group is empty); ``max_count`` ends a group
    early, which is exact because picks never rise in score. Scores must be finite and not negative. Of equal scores the
    lower row is picked first.
    """
    out_rows = np.full(len(order), -1, dtype=np.int64)
    out_scores = np.empty(len(order), dtype=np.float32)
    settings = rule, sigma, iou_threshold, score_threshold, max_count
    fixed: tuple[Any, ...] = starts, order, boxes_xyxy, scores, *settings, out_rows, out_scores
    n_groups, n_threads = len(starts) - 1, thread_count()
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
