"""Focus chips that cost the network little: rectangles that overlap where one around them would cost more.

``docs/method.md``, "AutoFocus". The original (``focus``) makes one rectangle of all that touch, which on a crowded
image ends as one around everything. Here every connected group of cells is cut, along rows and columns, where its
parts together cost less than itself, and rectangles become one only where that costs no more than both. A chip costs
the pixels of its padded inputs at the level that is run on it, and a constant.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sniper.compiled import compiled
from sniper.focus.cells import FocusChips, mean_probability
from sniper.focus.cut import cost_of, cost_of_cells, parts_of_groups

_SLACK = 1e-6  # px; 512.0000001 px are 512


class LevelCost(NamedTuple):
    """The level that is run on the chips, and what it pays for them. Network px of that level."""

    cell_px: float  # side of a cell of the map
    margin_px: float  # what a chip shows around its cells
    size_wh: tuple[int, int]  # the image
    min_px: int  # smallest side of a chip, rounded up to ``step_px``; smaller images are taken whole
    step_px: int  # chips grow to multiples of this
    window_px: int  # longer chips are cut into windows, ...
    overlap_px: int  # ... which have this in common
    whole_pixels: int  # padded input pixels of the whole level
    chip_pixels: int  # what one more chip costs, whatever its size, in pixels


def covering_chips(
    cells: NDArray[np.bool_],
    probability: NDArray[np.floating],
    level_cost: LevelCost,
    *,
    dilation: int = 3,
    shared_cells: int = 5,
) -> FocusChips:
    """Chips, in px of the level that is run on them, that hold all cells chosen and cost little; they may overlap.

    Args:
        cells: (rows, columns) of the image alone.
        probability: (H, W) focus probability; at least as large.
        level_cost: the level that is run on the chips.
        dilation: odd; cells within ``dilation // 2`` of a chosen one are held too.
        shared_cells: what both parts of a connected group that is cut have in common: whatever measures no more cells
            along each axis is whole in a chip, with the margin, if all of its cells are chosen.
    """
    if dilation < 1 or dilation % 2 == 0:
        raise ValueError(f"dilation is an odd number of cells, not {dilation}")
    if cells.all():
        whole = np.asarray([[0, 0, *level_cost.size_wh]], np.float64)
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
    costs = np.asarray(
        [level_cost.min_px, level_cost.step_px, level_cost.window_px, level_cost.overlap_px, *level_cost.size_wh,
         level_cost.whole_pixels, level_cost.chip_pixels], np.int64,
    )  # fmt: skip
    x_px, y_px = (
        _edges(length, level_cost, side) for length, side in zip(cells.shape[::-1], level_cost.size_wh, strict=True)
    )
    turned = np.ascontiguousarray(labels.T)
    rects = parts_of_groups(labels, turned, groups[order], order + 1, x_px, y_px, costs, shared_cells)
    rects = _merged(rects, x_px, y_px, costs)
    density = mean_probability(np.ascontiguousarray(probability, dtype=np.float32), rects)
    rects = rects[np.lexsort((rects[:, 0], rects[:, 1], -density))]
    ends = x_px[0, rects[:, 0]], y_px[0, rects[:, 1]], x_px[1, rects[:, 2]], y_px[1, rects[:, 3]]
    boxes = np.stack(ends, axis=1)
    return FocusChips(_grown(boxes, level_cost).astype(np.float64), np.sort(density)[::-1])


def _edges(count: int, level_cost: LevelCost, side_px: int) -> NDArray[np.int64]:
    """(2, count + 1) whole px of the first and of the last end of chips at each edge between cells of an axis."""
    exact = np.arange(count + 1) * level_cost.cell_px
    low = np.clip(np.floor(exact - level_cost.margin_px + _SLACK), 0, side_px - 1)
    high = np.clip(np.ceil(exact + level_cost.margin_px - _SLACK), 1, side_px)
    return np.stack([low, high]).astype(np.int64)


def _grown(boxes: NDArray[np.int64], level_cost: LevelCost) -> NDArray[np.int64]:
    """Boxes that grow around their middle, on the image, to the padded input they cost anyway."""
    side = np.tile(np.asarray(level_cost.size_wh), (len(boxes), 1))
    tight = boxes[:, 2:] - boxes[:, :2]
    step = level_cost.step_px
    size = np.minimum(-(-np.maximum(tight, level_cost.min_px) // step) * step, side)
    low = np.clip(boxes[:, :2] - (size - tight) // 2, 0, side - size)
    return np.concatenate([low, low + size], axis=1)


@compiled
def _saving(a: int, b: int, boxes: NDArray[np.int64], cost: NDArray[np.int64], costs: NDArray[np.int64]) -> int:
    """What one rectangle costs less than two."""
    apart = cost[a] + cost[b]
    width = max(boxes[a, 2], boxes[b, 2]) - min(boxes[a, 0], boxes[b, 0])
    height = max(boxes[a, 3], boxes[b, 3]) - min(boxes[a, 1], boxes[b, 1])
    return -1 if width * height > apart else apart - cost_of(width, height, costs)


@compiled
def _merged(
    rects: NDArray[np.int64], x_px: NDArray[np.int64], y_px: NDArray[np.int64], costs: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Rectangles of cells; the two that save most by becoming one do so, as long as any do not cost more."""
    n = len(rects)
    boxes, cost = np.empty((n, 4), np.int64), np.empty(n, np.int64)
    saving, partner = np.empty(n, np.int64), np.empty(n, np.int64)  # of each with one after it
    alive, stale = np.ones(n, np.bool_), np.ones(n, np.bool_)
    for k in range(n):
        boxes[k, 0], boxes[k, 1] = x_px[0, rects[k, 0]], y_px[0, rects[k, 1]]
        boxes[k, 2], boxes[k, 3] = x_px[1, rects[k, 2]], y_px[1, rects[k, 3]]
        cost[k] = cost_of_cells(rects, k, x_px, y_px, costs)
    while True:
        best = -1
        for a in range(n):
            if alive[a] and stale[a]:
                saving[a], partner[a], stale[a] = -1, -1, False
                for b in range(a + 1, n):
                    gain = _saving(a, b, boxes, cost, costs) if alive[b] else -1
                    if gain > saving[a]:
                        saving[a], partner[a] = gain, b
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
        cost[best] = cost_of_cells(rects, best, x_px, y_px, costs)
        alive[gone], stale[best] = False, True
        for a in range(n):
            if alive[a] and (partner[a] == gone or partner[a] == best):
                stale[a] = True
            elif alive[a] and a < best:
                gain = _saving(a, best, boxes, cost, costs)
                if gain > saving[a]:
                    saving[a], partner[a] = gain, best
    found = 0
    for k in range(n):
        if alive[k]:
            for side in range(4):
                rects[found, side] = rects[k, side]
            found += 1
    return rects[:found].copy()
