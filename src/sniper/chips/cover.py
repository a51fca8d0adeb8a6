"""Exact greedy cover: the fewest windows that hold all boxes, as far as a greedy choice finds them.

The candidates of an image form a grid of ``ny`` rows and ``nx`` columns, and the candidates that hold a box are
a rectangle of that grid (its *span*, see ``grid.py``). Greedy: take the candidate that holds the most boxes
not yet covered, ties broken uniformly at random over all candidates; drop its boxes; repeat. SNIPER (arXiv
1805.09300, section 3.1); ``docs/method.md``, "Chips".

Two kernels make the same choice. ``cover_few`` keeps boxes as bits of a word and merges neighbouring columns
and rows that hold the same boxes, so its cost does not depend on the size of the grid; ``cover_many`` keeps
the number of boxes of every candidate.
"""

import numpy as np
from numpy.typing import NDArray

from sniper.chips.seeding import draw_below
from sniper.compiled import compiled

FEW = 64  # boxes that fit in a word

_ONE = np.uint64(1)
_NONE = np.uint64(0)
_P1 = np.uint64(0x5555555555555555)
_P2 = np.uint64(0x3333333333333333)
_P4 = np.uint64(0x0F0F0F0F0F0F0F0F)
_PSUM = np.uint64(0x0101010101010101)
_S1, _S2, _S4, _S56 = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(56)


@compiled
def _bit_count(x: np.uint64) -> int:
    """How many bits are set; the compiler knows this pattern as one instruction."""
    x = x - ((x >> _S1) & _P1)
    x = (x & _P2) + ((x >> _S2) & _P2)
    x = (x + (x >> _S4)) & _P4
    return np.int64((x * _PSUM) >> _S56)  # type: ignore[return-value]


@compiled
def _list_bits(bits: np.uint64, order: NDArray[np.int32], done: int) -> int:
    """Write the numbers of the set bits to ``order`` from ``done`` on; returns where they end."""
    while bits != _NONE:
        lowest = bits & (~bits + _ONE)
        order[done] = _bit_count(lowest - _ONE)
        done += 1
        bits ^= lowest
    return done


@compiled
def _runs(
    spans: NDArray[np.int32],
    n: int,
    events: NDArray[np.uint64],
    masks: NDArray[np.uint64],
    starts: NDArray[np.int64],
) -> int:
    """Neighbouring lines of the grid that hold the same boxes: their boxes and where they start.

    ``events`` is all zero before and after. A run without boxes is kept, with mask 0, so run ``r`` ends where
    run ``r + 1`` starts; ``starts`` has one entry more than there are runs, which is what is returned.
    """
    low, high = spans[0, 0], spans[0, 1]
    for b in range(n):
        first, last = spans[b, 0], spans[b, 1]
        bit = _ONE << np.uint64(b)
        events[first] ^= bit
        events[last + 1] ^= bit
        low, high = min(low, first), max(high, last)
    now, runs = _NONE, 0
    for line in range(low, high + 2):
        if events[line] != _NONE:
            now ^= events[line]
            events[line] = _NONE
            masks[runs] = now
            starts[runs] = line
            runs += 1
    return runs - 1


@compiled
def _pick_inside(key: np.uint64, number: int, x: int, y: int, nx: int, ny: int, cell: NDArray[np.int32]) -> None:
    """A random candidate among ``nx`` columns from ``x`` and ``ny`` rows from ``y``."""
    pick = draw_below(key, number, nx * ny)
    cell[0], cell[1] = x + pick % nx, y + pick // nx


@compiled
def _cover_together(spans: NDArray[np.int32], n: int, key: np.uint64, cell: NDArray[np.int32]) -> bool:
    """Whether one window holds all boxes; if so, a random one that does."""
    x1, x2, y1, y2 = spans[0, 0, 0], spans[0, 0, 1], spans[1, 0, 0], spans[1, 0, 1]
    for b in range(1, n):
        x1, x2 = max(x1, spans[0, b, 0]), min(x2, spans[0, b, 1])
        y1, y2 = max(y1, spans[1, b, 0]), min(y2, spans[1, b, 1])
    if x1 > x2 or y1 > y2:
        return False
    _pick_inside(key, 0, x1, y1, x2 - x1 + 1, y2 - y1 + 1, cell)
    return True


@compiled
def _most(
    masks: NDArray[np.uint64], starts: NDArray[np.int64], columns: int, rows: int, left: np.uint64
) -> tuple[int, int]:
    """The most uncovered boxes that a candidate holds, and how many candidates hold as many."""
    best, ties = 0, 0
    for j in range(rows):
        line = masks[1, j] & left
        if _bit_count(line) >= max(best, 1):
            height = starts[1, j + 1] - starts[1, j]
            for i in range(columns):
                count = _bit_count(masks[0, i] & line)
                if count > best:
                    best, ties = count, 0
                if count == best:
                    ties += height * (starts[0, i + 1] - starts[0, i])
    return best, ties


@compiled
def _take(
    masks: NDArray[np.uint64],
    starts: NDArray[np.int64],
    columns: int,
    rows: int,
    left: np.uint64,
    best: int,
    pick: int,
    cell: NDArray[np.int32],
) -> np.uint64:
    """The ``pick``-th candidate that holds ``best`` uncovered boxes; returns those boxes."""
    for j in range(rows):
        line = masks[1, j] & left
        if _bit_count(line) >= best:
            height = starts[1, j + 1] - starts[1, j]
            for i in range(columns):
                held = masks[0, i] & line
                if _bit_count(held) == best:
                    width = starts[0, i + 1] - starts[0, i]
                    if pick < width * height:
                        cell[0], cell[1] = starts[0, i] + pick % width, starts[1, j] + pick // width
                        return held
                    pick -= width * height
    return _NONE


@compiled
def cover_few(
    spans: NDArray[np.int32],
    n: int,
    key: np.uint64,
    events: NDArray[np.uint64],
    masks: NDArray[np.uint64],
    starts: NDArray[np.int64],
    cells: NDArray[np.int32],
    order: NDArray[np.int32],
    covered: NDArray[np.int32],
) -> int:
    """Cover 1 to ``FEW`` boxes; returns the number of windows K.

    Once no candidate holds two of the boxes left, each of them has its window to itself, wherever the others lie; these
    are drawn box by box.

    Args:
        spans: (2, >= n, 2) first and last column, then first and last row, that hold each box; none empty.
        n: number of boxes.
        key: stream of random draws.
        events: scratch, longer than each axis, all zero (and left so).
        masks, starts: scratch, (2, 2 * FEW + 1).
        cells: out, (>= K, 2) column and row of each window.
        order: out, (>= n,) the boxes, grouped by the window that covers them, ascending within it.
        covered: out, (>= K,) how many boxes each window covers that no earlier window did.
    """
    if _cover_together(spans, n, key, cells[0]):
        covered[0] = n
        for b in range(n):
            order[b] = b
        return 1
    left = ~_NONE >> np.uint64(FEW - n)
    chips, done = 0, 0
    if n > 2:
        columns = _runs(spans[0], n, events, masks[0], starts[0])
        rows = _runs(spans[1], n, events, masks[1], starts[1])
        while left != _NONE:
            best, ties = _most(masks, starts, columns, rows, left)
            if best == 1:
                break
            found = _take(masks, starts, columns, rows, left, best, draw_below(key, chips, ties), cells[chips])
            left ^= found
            covered[chips] = best
            chips += 1
            done = _list_bits(found, order, done)
    singles = _list_bits(left, order, done)
    for k in range(done, singles):
        x, y = spans[0, order[k]], spans[1, order[k]]
        _pick_inside(key, chips, x[0], y[0], x[1] - x[0] + 1, y[1] - y[0] + 1, cells[chips])
        covered[chips] = 1
        chips += 1
    return chips


@compiled
def _add(counts: NDArray[np.int32], spans: NDArray[np.int32], box: int, amount: int) -> None:
    """Add to all candidates that hold a box."""
    for row in range(spans[1, box, 0], spans[1, box, 1] + 1):
        for column in range(spans[0, box, 0], spans[0, box, 1] + 1):
            counts[row, column] += amount


@compiled
def _count_row(counts: NDArray[np.int32], best: NDArray[np.int32], ties: NDArray[np.int32], row: int) -> None:
    """The largest count of a row and how often it occurs."""
    largest = counts[row, 0]
    for i in range(1, counts.shape[1]):
        largest = max(largest, counts[row, i])
    times = 0
    for i in range(counts.shape[1]):
        times += counts[row, i] == largest
    best[row], ties[row] = largest, times


@compiled
def _pick(
    counts: NDArray[np.int32],
    best: NDArray[np.int32],
    ties: NDArray[np.int32],
    key: np.uint64,
    chip: int,
    min_count: int,
) -> int:
    """A random one of the candidates with the largest count, row by row; -1 where that is below ``min_count``."""
    largest, among = best[0], 0
    for row in range(len(best)):
        if best[row] > largest:
            largest, among = best[row], 0
        if best[row] == largest:
            among += ties[row]
    if largest < min_count:
        return -1
    pick = draw_below(key, chip, among)
    row = 0
    while best[row] != largest or pick >= ties[row]:
        pick -= ties[row] if best[row] == largest else 0
        row += 1
    column = -1
    while pick >= 0:
        column += 1
        pick -= counts[row, column] == largest
    return int(row * counts.shape[1] + column)


@compiled
def cover_many(
    spans: NDArray[np.int32],
    n: int,
    key: np.uint64,
    counts: NDArray[np.int32],
    cells: NDArray[np.int32],
    order: NDArray[np.int32],
    covered: NDArray[np.int32],
    min_count: int = 1,
) -> int:
    """Cover any number of boxes; returns the number of windows K.

    Args:
        spans, n, key, cells, order, covered: as in ``cover_few``; a box with an empty span (last < first) is left out.
        counts: scratch, (ny, nx), zero (and left so); a candidate with a large negative number is never taken.
        least: stop where no candidate holds so many uncovered boxes. Counts never rise, so the windows are those of the
            whole cover that hold as many; boxes left over remain in ``counts``.
    """
    width = counts.shape[1]
    best, ties = np.empty(counts.shape[0], np.int32), np.empty(counts.shape[0], np.int32)
    waiting = np.arange(n)
    for b in range(n):
        _add(counts, spans, b, 1)
    for row in range(counts.shape[0]):
        _count_row(counts, best, ties, row)
    chips, done = 0, 0
    while True:
        cell = _pick(counts, best, ties, key, chips, min_count)
        if cell < 0:
            return chips
        row, column = cell // width, cell % width
        before, kept, low, high = done, 0, row, row
        for k in range(n - done):
            b = waiting[k]
            x, y = spans[0, b], spans[1, b]
            if x[0] <= column <= x[1] and y[0] <= row <= y[1]:
                _add(counts, spans, b, -1)
                low, high = min(low, y[0]), max(high, y[1])
                order[done] = b
                done += 1
            else:
                waiting[kept] = b
                kept += 1
        for r in range(low, high + 1):
            _count_row(counts, best, ties, r)
        cells[chips, 0], cells[chips, 1] = column, row
        covered[chips] = done - before
        chips += 1
