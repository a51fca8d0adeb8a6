"""Compact columns: strings in one blob, and instance masks as flat coordinates behind offsets."""

import json
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self, overload

import numpy as np
from numpy.typing import NDArray


def ragged_rows(offsets: NDArray[np.int64], groups: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the given groups, in their order, and the offsets of the groups among them.

    Group ``g`` holds the rows ``offsets[g]:offsets[g + 1]``; G groups are asked for, and the new offsets are
    ``(G + 1,)``.
    """
    counts = offsets[groups + 1] - offsets[groups]
    new_offsets = np.zeros(len(groups) + 1, np.int64)
    np.cumsum(counts, out=new_offsets[1:])
    rows = np.arange(new_offsets[-1], dtype=np.int64) + np.repeat(offsets[groups] - new_offsets[:-1], counts)
    return rows, new_offsets


@dataclass(frozen=True, slots=True, eq=False)
class PackedStrings(Sequence[str]):
    """A column of K strings in two arrays, so that it can be shared and costs no Python object a row."""

    blob: NDArray[np.uint8]  # UTF-8, one string after the other
    offsets: NDArray[np.int64]  # (K + 1,)

    @classmethod
    def pack(cls, strings: Iterable[str]) -> Self:
        """The strings, in order; a file name with undecodable bytes keeps them."""
        encoded = [text.encode("utf-8", "surrogateescape") for text in strings]
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(text) for text in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        row = index + len(self) if index < 0 else index
        if not 0 <= row < len(self):
            raise IndexError(f"row {index} of a column of {len(self)} strings")
        return self.blob[self.offsets[row] : self.offsets[row + 1]].tobytes().decode("utf-8", "surrogateescape")

    def __repr__(self) -> str:
        return f"PackedStrings({len(self)} strings, {self.blob.nbytes} bytes)"

    def take(self, rows: NDArray[np.int64]) -> Self:
        """The strings of the given rows."""
        places, offsets = ragged_rows(self.offsets, rows)
        return type(self)(self.blob[places], offsets)


@dataclass(frozen=True, slots=True, eq=False)
class Masks:
    """Instance masks of N boxes: polygons of float32 points, and the few run-length masks as their own JSON.

    Box ``n`` has the rings ``ring_offsets[n]:ring_offsets[n + 1]``, ring ``r`` the points
    ``point_offsets[r]:point_offsets[r + 1]``. A box may have neither rings nor runs.
    """

    ring_offsets: NDArray[np.int64]  # (N + 1,)
    point_offsets: NDArray[np.int64]  # (R + 1,)
    points_xy: NDArray[np.float32]  # (P, 2) original px
    run_rows: NDArray[np.int64]  # (K,) boxes with a run-length mask, ascending
    runs: PackedStrings  # (K) {"size": [h, w], "counts": ...}, as the dataset wrote them

    def __len__(self) -> int:
        return len(self.ring_offsets) - 1

    def polygons(self, row: int) -> list[NDArray[np.float32]]:
        """The rings of a box, (points, 2) xy each, original px; views."""
        ends = self.point_offsets[self.ring_offsets[row] : self.ring_offsets[row + 1] + 1]
        return [self.points_xy[start:stop] for start, stop in pairwise(ends)]

    def run_length(self, row: int) -> dict[str, object] | None:
        """The run-length mask of a box as COCO has it (``size`` and ``counts``), or None."""
        place = int(np.searchsorted(self.run_rows, row))
        if place == len(self.run_rows) or self.run_rows[place] != row:
            return None
        decoded: dict[str, object] = json.loads(self.runs[place])
        return decoded

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Masks of the given boxes, which may come in any order."""
        rings, ring_offsets = ragged_rows(self.ring_offsets, rows)
        points, point_offsets = ragged_rows(self.point_offsets, rings)
        place = np.searchsorted(self.run_rows, rows)
        if len(self.run_rows):
            has_run = self.run_rows[np.minimum(place, len(self.run_rows) - 1)] == rows
        else:
            has_run = np.zeros(len(rows), np.bool_)
        return type(self)(
            ring_offsets, point_offsets, self.points_xy[points], np.flatnonzero(has_run), self.runs.take(place[has_run])
        )


class MaskBuilder:
    """Collects masks box by box, at about 8 bytes a point."""

    def __init__(self) -> None:
        self._rings = array("q", [0])
        self._points = array("q", [0])
        self._values = array("f")
        self._run_rows = array("q")
        self._runs: list[bytes] = []
        self.dropped = 0  # rings of fewer than three points, or of numbers that do not pair up

    def add(self, rings: Iterable[Sequence[float]] = (), run_length: bytes | None = None) -> None:
        """The next box: rings as flat ``x, y, x, y, ...``, original px, or a run-length mask as JSON, or nothing."""
        row = len(self._rings) - 1
        for ring in rings:
            if len(ring) < 6 or len(ring) % 2:
                self.dropped += 1
                continue
            self._values.extend(ring)
            self._points.append(len(self._values) // 2)
        self._rings.append(len(self._points) - 1)
        if run_length is not None:
            self._run_rows.append(row)
            self._runs.append(run_length)

    def build(self) -> Masks:
        """Everything added so far; the builder's memory is handed over, not copied."""
        run_offsets = np.zeros(len(self._runs) + 1, np.int64)
        np.cumsum([len(run) for run in self._runs], out=run_offsets[1:])
        return Masks(
            np.frombuffer(self._rings, np.int64),
            np.frombuffer(self._points, np.int64),
            np.frombuffer(self._values, np.float32).reshape(-1, 2),
            np.frombuffer(self._run_rows, np.int64),
            PackedStrings(np.frombuffer(b"".join(self._runs), np.uint8), run_offsets),
        )
