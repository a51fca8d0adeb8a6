"""Focus chips that cost the network little: rectangles that overlap where one around them would cost more.

``docs/method.md``, "AutoFocus". The original (``focus``) makes one rectangle of all that touch, which on a crowded
picture ends as one around everything. Here every connected group of cells is cut, along rows and columns, where its
parts together cost less than itself, and rectangles become one only where that costs no more than both. A chip costs
the pixels of its canvases at the level that looks at it, and a constant.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sniper.chips.compiled import compiled
from sniper.chips.focus import FocusChips, mean_probability

_SLACK = 1e-6  # px; 512.0000001 px are 512
_MOST_NODES = 8192  # rectangles that are tried at most where groups are cut; more would only take time
_FAR, _MOST_COST = 1 << 30, 1 << 62


class Looking(NamedTuple):
    """The level that looks at the chips, and what it pays for them. Network px of that level."""

    cell_px: float  # side of a cell of the map
    margin_px: float  # what a chip shows around its cells
    size_wh: tuple[int, int]  # the picture
    least_px: (
        int  # least side of a chip, rounded up to ``step_px``; where the picture is smaller, a chip takes its side
    )
    step_px: int  # chips grow to multiples of this
    window_px: int  # longer chips are looked at in windows, ...
    overlap_px: int  # ... which have this in common
    whole_pixels: int  # canvas pixels of the picture looked at whole
    chip_pixels: int  # what one more chip costs, whatever its size, in pixels


def covering_chips(
    cells: NDArray[np.bool_],
    probability: NDArray[np.floating],
    looking: Looking,
    *,
    dilation: int = 3,
    shared_cells: int = 5,
) -> FocusChips:
    """Chips, in px of the looking level, that hold all cells chosen and cost little; they may overlap.

    Args:
        cells: (rows, columns) of the picture alone.
        probability: (H, W) focus probability; at least as large.
        looking: the level that looks at the chips.
        dilation: odd; cells within ``dilation // 2`` of a chosen one are held too.
        shared_cells: what both parts of a connected group that is cut have in common: whatever measures no more cells
            along each axis is whole in a chip, with the margin, if all of its cells are chosen.
    """
    if dilation < 1 or dilation % 2 == 0:
        raise ValueError(f"dilation is an odd number of cells, not {dilation}")
    if cells.all():
        whole = np.asarray([[0, 0, *looking.size_wh]], np.float64)
        return FocusChips(whole, np.asarray([probability[: cells.shape[0], : cells.shape[1]].mean(dtype=np.float64)]))
    marked = cells.astype(np.uint8)
    if dilation > 1:
        marked = cv2.dilate(marked, np.ones((dilation, dilation), np.uint8))
    count, labels, bounds, _ = cv2.connectedComponentsWithStats(marked, connectivity=8, ltype=cv2.CV_32S)
    if count == 1:
        return FocusChips(np.zeros((0, 4)), np.zeros(0))
    groups = bounds[1:, [0, 1, 0, 1]].astype(np.int64)
    groups[:, 2:] += bounds[1:, 2:4]
    order = np.lexsort(groups.T)
    costs = np.asarray([*looking[3:7], *looking.size_wh, *looking[7:]], np.int64)
    x_px, y_px = (
        _edges(length, looking, side) for length, side in zip(cells.shape[::-1], looking.size_wh, strict=True)
    )
    rects = _merged(_parts(labels, groups[order], order + 1, x_px, y_px, costs, shared_cells), x_px, y_px, costs)
    density = mean_probability(np.ascontiguousarray(probability, dtype=np.float32), rects)
    rects = rects[np.lexsort((rects[:, 0], rects[:, 1], -density))]
    ends = x_px[0, rects[:, 0]], y_px[0, rects[:, 1]], x_px[1, rects[:, 2]], y_px[1, rects[:, 3]]
    boxes = np.stack(ends, axis=1)
    return FocusChips(_grown(boxes, looking).astype(np.float64), np.sort(density)[::-1])


def _edges(count: int, looking: Looking, side_px: int) -> NDArray[np.int64]:
    """(2, count + 1) whole px of the first and of the last end of chips at each edge between cells of an axis."""
    exact = np.arange(count + 1) * looking.cell_px
    low = np.clip(np.floor(exact - looking.margin_px + _SLACK), 0, side_px - 1)
    high = np.clip(np.ceil(exact + looking.margin_px - _SLACK), 1, side_px)
    return np.stack([low, high]).astype(np.int64)


def _grown(boxes: NDArray[np.int64], looking: Looking) -> NDArray[np.int64]:
    """Boxes that grow around their middle, on the picture, to the canvas they cost anyway."""
    side = np.tile(np.asarray(looking.size_wh), (len(boxes), 1))
    tight = boxes[:, 2:] - boxes[:, :2]
    step = looking.step_px
    size = np.minimum(-(-np.maximum(tight, looking.least_px) // step) * step, side)
    low = np.clip(boxes[:, :2] - (size - tight) // 2, 0, side - size)
    return np.concatenate([low, low + size], axis=1)


@compiled
def _canvas(size: int, axis: int, costs: NDArray[np.int64]) -> int:
    """Canvas px, along an axis, of a chip around ``size`` px; a negative number where it takes all of the picture."""
    least, step, window, overlap, side = costs[0], costs[1], costs[2], costs[3], costs[4 + axis]
    grown = (max(size, least) + step - 1) // step * step
    whole = grown >= side
    grown = min(grown, side)
    count = 1
    if grown > window:
        count = (grown - overlap + window - overlap - 1) // (window - overlap)
        grown = window
    canvas = count * ((grown + step - 1) // step * step)
    return -canvas if whole else canvas


@compiled
def _cost(width: int, height: int, costs: NDArray[np.int64]) -> int:
    """What the network pays for a chip around so many px."""
    across, down = _canvas(width, 0, costs), _canvas(height, 1, costs)
    return costs[7] + (costs[6] if across < 0 and down < 0 else abs(across * down))


@compiled
def _cost_of_cells(
    left: int,
    top: int,
    right: int,
    bottom: int,
    x_px: NDArray[np.int64],
    y_px: NDArray[np.int64],
    costs: NDArray[np.int64],
) -> int:
    return _cost(x_px[1, right] - x_px[0, left], y_px[1, bottom] - y_px[0, top], costs)


@compiled
def _parts(
    labels: NDArray[np.int32],
    groups: NDArray[np.int64],
    names: NDArray[np.int64],
    x_px: NDArray[np.int64],
    y_px: NDArray[np.int64],
    costs: NDArray[np.int64],
    shared: int,
) -> NDArray[np.int64]:
    """(K, 4) rectangles of cells around the groups (G, 4), or around the parts that each is best cut into.

    Every rectangle is cut where its two parts cost least, even if that is more than itself, and so are the parts, down
    to what cannot be saved from; then, from the smallest up, parts stay apart where they cost less than what they were
    cut from. A ring costs more than itself after the first cut, and less after the last.
    """
    most = max(_MOST_NODES, 2 * len(groups))
    rects, owner = np.empty((most, 4), np.int64), np.empty(most, np.int64)
    first, cost = np.full(most, -1), np.empty(most, np.int64)  # first of the two parts; -1: not cut
    count = len(groups)
    for k in range(count):
        rects[k], owner[k] = groups[k], names[k]
    both = np.empty((2, 4), np.int64)
    k = 0
    while k < count:
        cost[k] = _cost_of_cells(rects[k, 0], rects[k, 1], rects[k, 2], rects[k, 3], x_px, y_px, costs)
        if count + 2 <= most and _best_cut(labels, rects[k], owner[k], cost[k], x_px, y_px, costs, shared, both):
            first[k] = count
            for part in range(2):
                rects[count], owner[count] = both[part], owner[k]
                count += 1
        k += 1
    for k in range(count - 1, -1, -1):
        if first[k] >= 0:
            apart = cost[first[k]] + cost[first[k] + 1]
            if apart < cost[k]:
                cost[k] = apart
            else:
                first[k] = -1
    wanted = np.zeros(count, np.bool_)
    wanted[: len(groups)] = True
    found = 0
    for k in range(count):
        if wanted[k] and first[k] >= 0:
            wanted[first[k]] = wanted[first[k] + 1] = True
        elif wanted[k]:
            rects[found] = rects[k]  # what is overwritten has been looked at: found <= k
            found += 1
    return rects[:found].copy()


@compiled
def _best_cut(
    labels: NDArray[np.int32],
    rect: NDArray[np.int64],
    name: int,
    own_cost: int,
    x_px: NDArray[np.int64],
    y_px: NDArray[np.int64],
    costs: NDArray[np.int64],
    shared: int,
    both: NDArray[np.int64],
) -> bool:
    """Writes the two parts of the cheapest cut; false where no cut can save anything."""
    if own_cost <= costs[7] + _cost(1, 1, costs):
        return False
    left, top, right, bottom = rect
    width, height = right - left, bottom - top
    # Along each axis: where the cells of a column (row) begin and end, and whether it touches the one before.
    start, end = np.full((2, max(width, height)), _FAR), np.full((2, max(width, height)), -1)
    touches = np.zeros((2, max(width, height)), np.bool_)
    filled = 0
    for y in range(height):
        for x in range(width):
            if labels[top + y, left + x] != name:
                continue
            filled += (x_px[0, left + x + 1] - x_px[0, left + x]) * (y_px[0, top + y + 1] - y_px[0, top + y])
            start[0, x], end[0, x] = min(start[0, x], y), max(end[0, x], y + 1)
            start[1, y], end[1, y] = min(start[1, y], x), max(end[1, y], x + 1)
            for near in range(-1, 2):
                if x > 0 and 0 <= y + near < height and labels[top + y + near, left + x - 1] == name:
                    touches[0, x] = True
                if y > 0 and 0 <= x + near < width and labels[top + y - 1, left + x + near] == name:
                    touches[1, y] = True
    if filled + 2 * costs[7] >= own_cost:
        return False
    best, trial = _MOST_COST, np.empty((2, 4), np.int64)
    for axis in range(2):
        length = height if axis else width
        before, after = _bounds(start[axis, :length], end[axis, :length])
        for cut in range(1, length):
            until = cut + shared if touches[axis, cut] else cut
            if until >= length:
                break
            for side in range(4):
                place = side if axis == 0 else side ^ 1  # bounds are along, across, along, across
                offset = top if place % 2 else left
                trial[0, place], trial[1, place] = before[until, side] + offset, after[cut, side] + offset
            total = 0
            for k in range(2):
                total += _cost_of_cells(trial[k, 0], trial[k, 1], trial[k, 2], trial[k, 3], x_px, y_px, costs)
            if total < best:
                best = total
                both[:] = trial
    return best < _MOST_COST


@compiled
def _bounds(start: NDArray[np.int64], end: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(n + 1, 4) bounds, along and across an axis, of all cells before, and of all from each place on."""
    n = len(start)
    before, after = np.empty((n + 1, 4), np.int64), np.empty((n + 1, 4), np.int64)
    for bounds in (before, after):
        bounds[:, :2], bounds[:, 2:] = _FAR, -1
    for k in range(n):
        before[k + 1] = before[k]
        _widen(before[k + 1], k, start[k], end[k])
    for k in range(n - 1, -1, -1):
        after[k] = after[k + 1]
        _widen(after[k], k, start[k], end[k])
    return before, after


@compiled
def _widen(bounds: NDArray[np.int64], place: int, start: int, end: int) -> None:
    if end >= 0:
        bounds[0], bounds[1] = min(bounds[0], place), min(bounds[1], start)
        bounds[2], bounds[3] = max(bounds[2], place + 1), max(bounds[3], end)


@compiled
def _saving(a: int, b: int, boxes: NDArray[np.int64], cost: NDArray[np.int64], costs: NDArray[np.int64]) -> int:
    """What one rectangle costs less than two."""
    apart = cost[a] + cost[b]
    width = max(boxes[a, 2], boxes[b, 2]) - min(boxes[a, 0], boxes[b, 0])
    height = max(boxes[a, 3], boxes[b, 3]) - min(boxes[a, 1], boxes[b, 1])
    return -1 if width * height > apart else apart - _cost(width, height, costs)


@compiled
def _merged(
    rects: NDArray[np.int64], x_px: NDArray[np.int64], y_px: NDArray[np.int64], costs: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Rectangles of cells; the two that save most by becoming one do so, as long as any do not cost more."""
    n = len(rects)
    boxes, cost = np.empty((n, 4), np.int64), np.empty(n, np.int64)
    for k in range(n):
        boxes[k, 0], boxes[k, 1] = x_px[0, rects[k, 0]], y_px[0, rects[k, 1]]
        boxes[k, 2], boxes[k, 3] = x_px[1, rects[k, 2]], y_px[1, rects[k, 3]]
        cost[k] = _cost(boxes[k, 2] - boxes[k, 0], boxes[k, 3] - boxes[k, 1], costs)
    saving, partner = np.full(n, -1), np.full(n, -1)  # of each with one after it
    alive = np.ones(n, np.bool_)
    stale = np.ones(n, np.bool_)
    while True:
        for a in range(n):
            if alive[a] and stale[a]:
                saving[a], partner[a] = -1, -1
                for b in range(a + 1, n):
                    if alive[b]:
                        gain = _saving(a, b, boxes, cost, costs)
                        if gain > saving[a]:
                            saving[a], partner[a] = gain, b
                stale[a] = False
        best = -1
        for a in range(n):
            if alive[a] and partner[a] >= 0 and (best < 0 or saving[a] > saving[best]):
                best = a
        if best < 0:
            break
        gone = partner[best]
        for side in range(2):
            rects[best, side] = min(rects[best, side], rects[gone, side])
            rects[best, side + 2] = max(rects[best, side + 2], rects[gone, side + 2])
            boxes[best, side] = min(boxes[best, side], boxes[gone, side])
            boxes[best, side + 2] = max(boxes[best, side + 2], boxes[gone, side + 2])
        cost[best] = _cost(boxes[best, 2] - boxes[best, 0], boxes[best, 3] - boxes[best, 1], costs)
        alive[gone] = False
        stale[best] = True
        for a in range(n):
            if not alive[a]:
                continue
            if partner[a] == gone or partner[a] == best:
                stale[a] = True
            elif a < best:
                gain = _saving(a, best, boxes, cost, costs)
                if gain > saving[a]:
                    saving[a], partner[a] = gain, best
    return rects[alive]
