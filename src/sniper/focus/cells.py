"""Focus chips: rectangles around the cells of a focus map that probably show small objects.

AutoFocus (arXiv 1812.01600), section 3.3; ``docs/method.md``, "AutoFocus". A cell is ``stride`` x ``stride`` px of the
input of a detector (its *parent*, ``valid_wh`` network px). Cells above a threshold are dilated, every connected
group is enclosed by a rectangle of at least the minimum size, and rectangles that overlap or touch are merged, until
nothing changes any more. The original stopped when two rounds gave equally many rectangles, and let cells count that
only show padding.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.compiled import compiled

_SLACK = 1e-6  # cells; a side of 512.0000001 px has 32 cells of 16 px


class FocusChips(NamedTuple):
    """Focus chips of one map, by falling density, then from the top, then from the left."""

    boxes_xyxy: NDArray[np.float64]  # (K, 4) px of the parent, disjoint, inside it
    density: NDArray[np.float64]  # (K,) mean focus probability of a chip's cells


def focus_chips(
    probability: NDArray[np.floating],
    valid_wh: tuple[float, float],
    *,
    threshold: float,
    stride: int = 16,
    dilation: int = 3,
    min_cells: int = 16,
) -> FocusChips:
    """The focus chips of one map.

    Args:
        probability: (H, W) focus probability; cells beyond ``ceil(valid_wh / stride)`` show padding and are masked.
        valid_wh: size of the image in the parent, network px.
        threshold: cells with at least this probability are enclosed; at 0 that is the whole image.
        stride: network px per cell.
        dilation: odd; cells within ``dilation // 2`` of one above the threshold count too.
        min_cells: least side of a chip, in cells; where the image is smaller, a chip takes all of its side.
    """
    cells = enclosed_cells(probability, valid_wh, threshold=threshold, stride=stride)
    return chips_of_cells(cells, probability, valid_wh, stride=stride, dilation=dilation, min_cells=min_cells)


def enclosed_cells(
    probability: NDArray[np.floating], valid_wh: tuple[float, float], *, threshold: float, stride: int
) -> NDArray[np.bool_]:
    """(rows, columns) which cells of the image have at least that probability; the padding is cut off."""
    columns, rows = (_cells(side, stride) for side in valid_wh)
    if probability.ndim != 2 or probability.shape[0] < rows or probability.shape[1] < columns:
        raise ValueError(
            f"expected a map of at least {rows} x {columns} cells of {stride} px for an image of "
            f"{valid_wh[0]:g} x {valid_wh[1]:g} px, got {probability.shape}"
        )
    return np.ascontiguousarray(probability[:rows, :columns] >= threshold)


def chips_of_cells(
    cells: NDArray[np.bool_],
    probability: NDArray[np.floating],
    valid_wh: tuple[float, float],
    *,
    stride: int = 16,
    dilation: int = 3,
    min_cells: int = 16,
) -> FocusChips:
    """Focus chips that enclose the cells chosen, (rows, columns) of the image alone.

    Other arguments as in ``focus_chips``.
    """
    if dilation < 1 or dilation % 2 == 0:
        raise ValueError(f"dilation is an odd number of cells, not {dilation}")
    rects = enclosing_rectangles(cells, dilation // 2, max(min_cells, 1))
    if not len(rects):
        return FocusChips(np.zeros((0, 4)), np.zeros(0))
    density = mean_probability(np.ascontiguousarray(probability, dtype=np.float32), rects)
    order = np.lexsort((rects[:, 0], rects[:, 1], -density))
    boxes = _in_px(rects[order], valid_wh, stride, max(min_cells, 1))
    return FocusChips(boxes, density[order])


def _cells(side_px: float, stride: int) -> int:
    return max(math.ceil(side_px / stride - _SLACK), 1)


def _in_px(rects: NDArray[np.int64], valid_wh: tuple[float, float], stride: int, min_cells: int) -> NDArray[np.float64]:
    """Rectangles of cells as px. The last cell may be cut by the border: then the other side keeps the smallest size.

    It ends where the image does, also where that lies a rounding error further out.
    """
    boxes = rects.astype(np.float64) * stride
    for axis, side in enumerate(valid_wh):
        last = rects[:, axis + 2] == _cells(side, stride)
        smallest = np.maximum(np.minimum(boxes[:, axis], side - stride * min_cells), 0)
        boxes[:, axis] = np.where(last, smallest, boxes[:, axis])
        boxes[:, axis + 2] = np.where(last, side, boxes[:, axis + 2])
    return boxes


@compiled
def enclosing_rectangles(cells: NDArray[np.bool_], reach: int, min_count: int) -> NDArray[np.int64]:
    """(K, 4) half-open x1 y1 x2 y2, in cells: disjoint, not even their corners touch, at least ``min_count`` wide and
    high.

    Every cell within ``reach`` of one that is set lies in one of them. They stay on the map, and fill it along an
    axis that is shorter than ``min_count``.
    """
    rows, columns = cells.shape
    rects = _groups(cells, reach)
    before = 0
    # A group lies in its rectangle, so that only the rectangles matter from here on. They grow, or become fewer.
    while len(rects) != before:
        for k in range(len(rects)):
            rects[k, 0], rects[k, 2] = _placed(rects[k, 0], rects[k, 2], columns, min_count)
            rects[k, 1], rects[k, 3] = _placed(rects[k, 1], rects[k, 3], rows, min_count)
        before = len(rects)
        rects = _joined(rects)
    return rects


@compiled
def _placed(low: int, high: int, length: int, min_count: int) -> tuple[int, int]:
    """One side of a rectangle, at least ``min_count`` long around its middle, moved onto the map of ``length``
    cells.
    """
    size = max(high - low, min_count)
    start = low + (high - low) // 2 - size // 2
    start = max(min(start, length - size), 0)
    return start, min(start + size, length)


@compiled
def _root(parents: NDArray[np.int64], label: int) -> int:
    while parents[label] != label:
        parents[label] = parents[parents[label]]
        label = parents[label]
    return label


@compiled
def _join(parents: NDArray[np.int64], rects: NDArray[np.int64], a: int, b: int) -> None:
    """Make the groups of ``a`` and ``b`` one, whose rectangle encloses both."""
    a, b = _root(parents, a), _root(parents, b)
    if a != b:
        low, high = min(a, b), max(a, b)
        parents[high] = low
        rects[low, 0], rects[low, 1] = min(rects[low, 0], rects[high, 0]), min(rects[low, 1], rects[high, 1])
        rects[low, 2], rects[low, 3] = max(rects[low, 2], rects[high, 2]), max(rects[low, 3], rects[high, 3])


@compiled
def _leading(parents: NDArray[np.int64], rects: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The rectangles of the groups."""
    found = 0
    for k in range(count):
        if parents[k] == k:
            for side in range(4):
                rects[found, side] = rects[k, side]
            found += 1
    return rects[:found].copy()


@compiled
def _joined(given: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rectangles around the groups of those that overlap or touch, if only with a corner."""
    rects = given.copy()
    for k in range(1, len(rects)):  # by their tops; they nearly are already
        i = k
        while i > 0 and rects[i - 1, 1] > rects[i, 1]:
            for side in range(4):
                rects[i, side], rects[i - 1, side] = rects[i - 1, side], rects[i, side]
            i -= 1
    around, parents = rects.copy(), np.arange(len(rects))
    for i in range(len(rects)):
        j = i + 1
        while j < len(rects) and rects[j, 1] <= rects[i, 3]:
            if rects[j, 0] <= rects[i, 2] and rects[i, 0] <= rects[j, 2]:
                _join(parents, around, i, j)
            j += 1
    return _leading(parents, around, len(rects))


@compiled
def _groups(cells: NDArray[np.bool_], reach: int) -> NDArray[np.int64]:
    """(K, 4) bounds of the 8-connected groups of cells within ``reach`` of one that is set, along both axes.

    Runs of cells of a row are joined with those of the row above: most cells are visited only once.
    """
    rows, columns = cells.shape
    max_count = (columns + 1) // 2
    runs = np.empty((rows * max_count + 1, 2), np.int64)
    rects, parents = np.empty((rows * max_count + 1, 4), np.int64), np.empty(rows * max_count + 1, np.int64)
    line = np.empty(columns + 1, np.bool_)
    count, above = 0, 0  # runs so far, and those before the row above
    for y in range(rows):
        line[:] = False
        for v in range(max(y - reach, 0), min(y + reach + 1, rows)):
            for x in range(columns):
                line[x] |= cells[v, x]
        first = count
        x = 0
        while x < columns:
            if not line[x]:
                x += 1
                continue
            start = x
            while line[x]:  # ends at the latest at the cell past the end
                x += 1
            start, end = max(start - reach, 0), min(x + reach, columns)
            if count > first and start <= runs[count - 1, 1]:
                runs[count - 1, 1] = end
            else:
                runs[count, 0], runs[count, 1] = start, end
                count += 1
        i = above
        for k in range(first, count):
            rects[k, 0], rects[k, 1], rects[k, 2], rects[k, 3], parents[k] = runs[k, 0], y, runs[k, 1], y + 1, k
            while i < first and runs[i, 1] < runs[k, 0]:
                i += 1
            j = i
            while j < first and runs[j, 0] <= runs[k, 1]:
                _join(parents, rects, j, k)
                j += 1
        above = first
    return _leading(parents, rects, count)


@compiled
def mean_probability(probability: NDArray[np.float32], rects: NDArray[np.int64]) -> NDArray[np.float64]:
    """(K,) mean probability inside each rectangle of cells."""
    out = np.empty(len(rects))
    for k in range(len(rects)):
        total = 0.0
        for y in range(rects[k, 1], rects[k, 3]):
            for x in range(rects[k, 0], rects[k, 2]):
                total += probability[y, x]
        out[k] = total / ((rects[k, 2] - rects[k, 0]) * (rects[k, 3] - rects[k, 1]))
    return out


@compiled
def painted(
    boxes_xyxy: NDArray[np.float32], scores: NDArray[np.float32], stride: int, rows: int, columns: int
) -> NDArray[np.float32]:
    """(rows, columns) the best score of the boxes (N, 4; network px) that reach into each cell; 0 without any."""
    out = np.zeros((rows, columns), np.float32)
    for k in range(len(boxes_xyxy)):
        x1, y1, x2, y2 = boxes_xyxy[k, 0], boxes_xyxy[k, 1], boxes_xyxy[k, 2], boxes_xyxy[k, 3]
        for y in range(max(int(y1 / stride), 0), min(math.ceil(y2 / stride), rows)):
            for x in range(max(int(x1 / stride), 0), min(math.ceil(x2 / stride), columns)):
                out[y, x] = max(out[y, x], scores[k])
    return out
