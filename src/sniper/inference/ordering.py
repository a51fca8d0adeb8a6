"""Compiled orders of rows: by a small integer key, and so that boxes near each other come together."""

import numpy as np
from numpy.typing import NDArray

from sniper.compiled import compiled


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
def _sort(keys: NDArray[np.int64]) -> None:
    """Shell's sort, in place; numba takes many seconds to compile NumPy's."""
    gap = 1
    while gap < len(keys):
        gap = gap * 9 // 4 + 1
    while gap > 1:
        gap = max(gap * 4 // 9, 1)
        for i in range(gap, len(keys)):
            key, j = keys[i], i
            while j >= gap and keys[j - gap] > key:
                keys[j] = keys[j - gap]
                j -= gap
            keys[j] = key


@compiled
def by_size_and_place(boxes: NDArray[np.floating], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """``rows`` such that neighbours are of like size and near each other: by size, then along a Z-shaped curve."""
    n = len(rows)
    low_x, low_y, extent = boxes[rows[0], 0], boxes[rows[0], 1], 1e-6
    for row in rows:
        low_x, low_y = min(low_x, boxes[row, 0]), min(low_y, boxes[row, 1])
    for row in rows:
        extent = max(extent, boxes[row, 2] - low_x, boxes[row, 3] - low_y)
    cells = 16383.0 / extent  # 14 bits a side
    keys = np.empty(n, np.int64)  # from the top: size, curve (28 bits), position (31 bits)
    for i in range(n):
        row = rows[i]
        x1, y1, x2, y2 = boxes[row, 0], boxes[row, 1], boxes[row, 2], boxes[row, 3]
        size = np.int64(0)
        side = max(x2 - x1, y2 - y1) * 1024 / extent  # below a thousandth of the extent, size no longer matters
        while side > 1:
            size += 1
            side *= 0.25
        x = np.int64(max(0.5 * (x1 + x2) - low_x, 0.0) * cells)
        y = np.int64(max(0.5 * (y1 + y2) - low_y, 0.0) * cells)
        keys[i] = (size << 59) | (_spread(y) << 32) | (_spread(x) << 31) | i
    _sort(keys)
    placed = np.empty(n, np.int64)
    for i in range(n):
        placed[i] = rows[keys[i] & 0x7FFFFFFF]
    return placed
