"""Outlines of a chip's objects on their way to the mask branch: all points moved at once, then packed into rows.

The rows are those of ``sniper.nn.mask_targets``: ``label, k, k lengths, k rings of x, y, x, y, ..., -1, ...`` in
network px; as wide as the longest object needs.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sniper.data.columns import Masks, ragged_rows

HEAD = 2  # label and number of rings


@dataclass(frozen=True, slots=True)
class Outlines:
    """Rings of N objects: object ``n`` has the rings ``rings[n]:rings[n + 1]``, ring ``r`` ``ends[r]:ends[r + 1]``."""

    rings: NDArray[np.int64]  # (N + 1,)
    ends: NDArray[np.int64]  # (R + 1,)
    points_xy: NDArray[np.float32]  # (P, 2) network px, not clipped

    def rows(self, labels: NDArray[np.integer]) -> NDArray[np.float32]:
        """(N, W) rows for the classes ``labels`` (N,); an object without rings has ``k = 0``."""
        counts = np.diff(self.rings)
        owner = np.repeat(np.arange(len(counts)), counts)  # of each ring
        points = np.diff(self.ends[self.rings])  # of each object
        rows = np.full((len(counts), int((HEAD + counts + 2 * points).max(initial=HEAD))), -1, np.float32)
        rows[:, 0], rows[:, 1] = labels, counts
        rows[owner, HEAD + np.arange(len(owner)) - self.rings[owner]] = 2 * np.diff(self.ends)
        objects = np.repeat(np.arange(len(counts)), points)  # of each point
        first = (HEAD + counts)[objects] + 2 * (np.arange(len(objects)) - self.ends[self.rings[objects]])
        rows[objects, first], rows[objects, first + 1] = self.points_xy.T
        return rows


def outlines_in_chip(
    masks: Masks, rows: NDArray[np.int64], crowd: NDArray[np.bool_], origin_xy: NDArray[np.integer], scale: float
) -> Outlines:
    """The outlines of the table's objects ``rows`` (N,) in a chip; crowds and run-length masks have none."""
    outlined = np.flatnonzero(~crowd)
    places, owned = ragged_rows(masks.ring_offsets, rows[outlined])
    counts = np.zeros(len(rows), np.int64)
    counts[outlined] = np.diff(owned)
    points, ends = ragged_rows(masks.point_offsets, places)
    points_xy = masks.points_xy[points] * np.float64(scale) - origin_xy
    return Outlines(np.concatenate([[0], np.cumsum(counts)]), ends, points_xy.astype(np.float32))


def rings_of(rows: NDArray[np.float32]) -> list[list[NDArray[np.float32]]]:
    """The rings of each of N rows, (P, 2) xy in network px; an object without any has none."""
    objects = []
    for row in rows:
        count = int(row[1])
        ends = HEAD + count + np.cumsum([0, *row[HEAD : HEAD + count].astype(np.int64).tolist()])
        objects.append([row[start:end].reshape(-1, 2) for start, end in pairwise(ends.tolist())])
    return objects
