"""Outlines cut to the rectangle of a chip, as polygons (Sutherland and Hodgman, 1974)."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from sniper.compiled import compiled


def clipped_rings(rings: Iterable[NDArray[np.floating]], size_wh: tuple[float, float]) -> list[NDArray[np.float64]]:
    """What ``clipped_ring`` leaves of the rings of an object, without those of which nothing is left."""
    return [cut for cut in (clipped_ring(ring, size_wh) for ring in rings) if len(cut)]


def clipped_ring(points_xy: NDArray[np.floating], size_wh: tuple[float, float]) -> NDArray[np.float64]:
    """The part of a ring (P, 2) inside ``[0, width] x [0, height]``, (Q, 2); Q is 0 if none is.

    A ring that leaves the rectangle and comes back is joined along its sides: the area is that of the part inside.
    """
    ring = np.ascontiguousarray(points_xy, np.float64)
    for axis, end in enumerate(size_wh):
        ring = _beyond(_beyond(ring, axis, 0.0, 1.0), axis, float(end), -1.0)
    return ring if len(ring) >= 3 else ring[:0]


@compiled
def _beyond(ring: NDArray[np.float64], axis: int, limit: float, side: float) -> NDArray[np.float64]:
    """The part of a ring where ``side * (coordinate - limit) >= 0``."""
    kept = np.empty((2 * len(ring) + 1, 2))
    count = 0
    for i in range(len(ring)):
        before, here = ring[i - 1], ring[i]
        inside_before, inside = side * (before[axis] - limit) >= 0, side * (here[axis] - limit) >= 0
        if inside != inside_before:
            share = (limit - before[axis]) / (here[axis] - before[axis])
            kept[count] = before + share * (here - before)
            kept[count, axis] = limit
            count += 1
        if inside:
            kept[count] = here
            count += 1
    return kept[:count].copy()
