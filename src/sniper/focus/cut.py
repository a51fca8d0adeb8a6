"""Groups of cells cut into parts that cost the network less than the whole; see ``focus.cover``.

``costs`` (8,) are, of ``LevelCost``, ``min_px``, ``step_px``, ``window_px``, ``overlap_px``, width and height of
``size_wh``, ``whole_pixels`` and ``chip_pixels``. ``labels`` has the number of each cell's group, ``turned`` is the
same map with rows for columns. ``x_px`` and ``y_px`` (2, n + 1) are where a chip begins (row 0) and ends (row 1) at
each edge between cells.
"""

import numpy as np
from numpy.typing import NDArray

from sniper.compiled import compiled

_MAX_NODES = 2048  # rectangles that are tried at most where groups are cut; more would only take time
_ENOUGH = 8  # cutting is tried where it could save an eighth
_FAR, _MAX_COST = 1 << 30, 1 << 62
_TOUCHES, _BEFORE, _AFTER = 2, 3, 7  # columns of ``_lines``


@compiled
def _padded(size: int, axis: int, costs: NDArray[np.int64]) -> int:
    """Padded px, along an axis, of a chip around ``size`` px; a negative number where it takes all of the image."""
    min_count, step, window, overlap, side = costs[0], costs[1], costs[2], costs[3], costs[4 + axis]
    grown = (max(size, min_count) + step - 1) // step * step
    whole = grown >= side
    grown = min(grown, side)
    count = 1
    if grown > window:
        count = (grown - overlap + window - overlap - 1) // (window - overlap)
        grown = window
    padded = count * ((grown + step - 1) // step * step)
    return -padded if whole else padded


@compiled
def cost_of(width: int, height: int, costs: NDArray[np.int64]) -> int:
    """What the network pays for a chip around so many px."""
    across, down = _padded(width, 0, costs), _padded(height, 1, costs)
    return costs[7] + (costs[6] if across < 0 and down < 0 else abs(across * down))


@compiled
def cost_of_cells(
    rects: NDArray[np.int64], k: int, x_px: NDArray[np.int64], y_px: NDArray[np.int64], costs: NDArray[np.int64]
) -> int:
    """What a chip around one of the rectangles of cells costs."""
    width = x_px[1, rects[k, 2]] - x_px[0, rects[k, 0]]
    return cost_of(width, y_px[1, rects[k, 3]] - y_px[0, rects[k, 1]], costs)


@compiled
def parts_of_groups(
    labels: NDArray[np.int32],
    turned: NDArray[np.int32],
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
    max_count = max(_MAX_NODES, 2 * len(groups))
    rects, owner = np.empty((max_count, 4), np.int64), np.empty(max_count, np.int64)
    parts, cost = (
        np.empty(max_count, np.int64),
        np.empty(max_count, np.int64),
    )  # where the two parts of each are; -1: not cut
    wanted = np.zeros(max_count, np.bool_)
    count = len(groups)
    for k in range(count):
        owner[k], wanted[k] = names[k], True
        for side in range(4):
            rects[k, side] = groups[k, side]
    k = 0
    while k < count:
        cost[k], parts[k] = cost_of_cells(rects, k, x_px, y_px, costs), -1
        if count + 2 <= max_count and _best_cut(
            labels, turned, rects, k, owner[k], cost[k], x_px, y_px, costs, shared, count
        ):
            parts[k], owner[count], owner[count + 1] = count, owner[k], owner[k]
            count += 2
        k += 1
    for k in range(count - 1, -1, -1):
        if parts[k] >= 0:
            apart = cost[parts[k]] + cost[parts[k] + 1]
            if apart < cost[k]:
                cost[k] = apart
            else:
                parts[k] = -1
    found = 0
    for k in range(count):
        if wanted[k] and parts[k] >= 0:
            wanted[parts[k]] = wanted[parts[k] + 1] = True
        elif wanted[k]:
            for side in range(4):
                rects[found, side] = rects[k, side]  # what is overwritten has been visited: found <= k
            found += 1
    return rects[:found].copy()


@compiled
def _best_cut(
    labels: NDArray[np.int32],
    turned: NDArray[np.int32],
    rects: NDArray[np.int64],
    which: int,
    name: int,
    own_cost: int,
    x_px: NDArray[np.int64],
    y_px: NDArray[np.int64],
    costs: NDArray[np.int64],
    shared: int,
    place: int,
) -> bool:
    """Writes the two parts of the cheapest cut to ``place`` and after; false where cutting cannot save enough."""
    if own_cost <= 2 * cost_of(1, 1, costs):
        return False
    left, top = rects[which, 0], rects[which, 1]
    width, height = rects[which, 2] - left, rects[which, 3] - top
    across = _lines(labels, left, top, width, height, name)
    filled = _filled(across, labels, left, top, name, x_px, y_px)
    if _ENOUGH * (own_cost - filled - 2 * costs[7]) <= own_cost:
        return False
    down = _lines(turned, top, left, height, width, name)
    best = _MAX_COST
    part = np.empty((2, 4), np.int64)
    for axis in range(2):
        lines, offset, aside = (across, left, top) if axis == 0 else (down, top, left)
        length = len(lines) - 1
        for cut in range(1, length):
            until = cut + shared if lines[cut, _TOUCHES] else cut
            if until >= length:
                break
            for k in range(2):
                row, first = (until, _BEFORE) if k == 0 else (cut, _AFTER)
                part[k, axis], part[k, 1 - axis] = offset + lines[row, first], aside + lines[row, first + 1]
                part[k, axis + 2], part[k, 3 - axis] = offset + lines[row, first + 2], aside + lines[row, first + 3]
            total = cost_of_cells(part, 0, x_px, y_px, costs) + cost_of_cells(part, 1, x_px, y_px, costs)
            if total < best:
                best = total
                for k in range(2):
                    for side in range(4):
                        rects[place + k, side] = part[k, side]
    return best < _MAX_COST


@compiled
def _lines(labels: NDArray[np.int32], left: int, top: int, width: int, height: int, name: int) -> NDArray[np.int64]:
    """(width + 1, 11) of each column: where its cells begin and end, whether it touches the one before, and bounds.

    Bounds, along the axis first, are of all cells in the columns before, and of all in this and those after.
    """
    lines = np.empty((width + 1, 11), np.int64)
    for x in range(width + 1):
        lines[x, 0], lines[x, 1], lines[x, _TOUCHES] = _FAR, -1, 0
        for side in range(2):
            lines[x, _BEFORE + side], lines[x, _AFTER + side] = _FAR, _FAR
            lines[x, _BEFORE + 2 + side], lines[x, _AFTER + 2 + side] = -1, -1
    for y in range(height):
        before = False  # whether one of three cells of the column before is set: above, beside, below
        for x in range(width):
            if labels[top + y, left + x] == name:
                lines[x, 0], lines[x, 1] = min(lines[x, 0], y), y + 1
                if x > 0 and not lines[x, _TOUCHES]:
                    before = labels[top + y, left + x - 1] == name
                    before |= y > 0 and labels[top + y - 1, left + x - 1] == name
                    before |= y < height - 1 and labels[top + y + 1, left + x - 1] == name
                    lines[x, _TOUCHES] = before
    for x in range(width):
        _widen(lines, x, _BEFORE, x + 1, x)
        _widen(lines, width - x, _AFTER, width - x - 1, width - x - 1)
    return lines


@compiled
def _widen(lines: NDArray[np.int64], old: int, first: int, new: int, column: int) -> None:
    """Bounds of line ``new``: those of ``old`` and of the cells of a column."""
    some = lines[column, 1] >= 0
    lines[new, first] = min(lines[old, first], column if some else _FAR)
    lines[new, first + 1] = min(lines[old, first + 1], lines[column, 0])
    lines[new, first + 2] = max(lines[old, first + 2], column + 1 if some else -1)
    lines[new, first + 3] = max(lines[old, first + 3], lines[column, 1])


@compiled
def _filled(
    lines: NDArray[np.int64],
    labels: NDArray[np.int32],
    left: int,
    top: int,
    name: int,
    x_px: NDArray[np.int64],
    y_px: NDArray[np.int64],
) -> int:
    """Network px of the cells themselves: no chips around them have less."""
    total = 0
    for x in range(len(lines) - 1):
        high = 0
        for y in range(lines[x, 0], lines[x, 1]):
            if labels[top + y, left + x] == name:
                high += y_px[0, top + y + 1] - y_px[0, top + y]
        total += high * (x_px[0, left + x + 1] - x_px[0, left + x])
    return total
