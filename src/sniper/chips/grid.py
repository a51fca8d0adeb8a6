"""Where chips may lie: the candidate origins along an axis, and which of them hold a box.

Geometry is exact and half-open. An image of ``W x H`` px at scale ``s`` becomes ``ceil(W s) x ceil(H s)``
network px, a box becomes ``box * s`` without rounding, and a chip is a ``C x C`` window with an integer
origin in the scaled image. See ``docs/method.md``, "Chips".

Along an axis of length ``W'`` the origins are ``0, t, 2t, ... < W' - C`` and ``max(W' - C, 0)``; candidates
are all pairs of an x and a y origin. Neighbouring origins are at most ``t`` apart, so every box of extent
``<= C - t`` lies inside some candidate, and where ``W' <= C`` the only origin 0 holds every box. The origins
that hold a box are always neighbours, which makes the set of candidates that hold it a rectangle of the grid.
"""

import math

import numpy as np
from numpy.typing import NDArray

from sniper.compiled import compiled

HOLD_SLACK = 1e-5  # network px that a box may stick out of the window that holds it; exceeds validity.CEIL_SLACK


@compiled
def axis_count(extent: int, window: int, stride: int) -> int:
    """How many origins an axis of ``extent`` network px has."""
    if extent <= window:
        return 1
    return (extent - window + stride - 1) // stride + 1


def axis_counts(extents: NDArray[np.integer], window: int, stride: int) -> NDArray[np.int64]:
    """``axis_count`` of many axes at once, any shape."""
    return 1 + -(-np.maximum(np.asarray(extents, np.int64) - window, 0) // stride)


@compiled
def axis_origin(index: int, extent: int, window: int, stride: int) -> int:
    """The ``index``-th origin of an axis."""
    return min(index * stride, max(extent - window, 0))


@compiled
def axis_first(high: float, extent: int, window: int, stride: int) -> int:
    """The first origin whose window reaches the upper end ``high`` of a box, network px."""
    if extent <= window or high - window <= HOLD_SLACK:
        return 0
    return min(math.ceil((high - window - HOLD_SLACK) / stride), axis_count(extent, window, stride) - 1)


@compiled
def axis_last(low: float, extent: int, window: int, stride: int) -> int:
    """The last origin that does not lie beyond the lower end ``low`` of a box, network px."""
    if low + HOLD_SLACK >= extent - window:
        return axis_count(extent, window, stride) - 1
    return int(max(low + HOLD_SLACK, 0.0) / stride)


def origins(extent: int, window: int, stride: int) -> NDArray[np.int64]:
    """All origins of an axis, ascending."""
    return np.asarray([axis_origin(i, extent, window, stride) for i in range(axis_count(extent, window, stride))])
