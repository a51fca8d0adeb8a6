"""Masks of detections in COCO's compressed run-length form, as columns."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self, TypedDict

import numpy as np
from numpy.typing import NDArray

from sniper.data.columns import PackedStrings


class Rle(TypedDict):
    """One mask as COCO's tools take it: ``size`` is height and width of the image."""

    size: list[int]
    counts: str


@dataclass(frozen=True, slots=True, eq=False)
class RunLengths:
    """N masks, each of the size of its image; no Python object a mask."""

    counts: PackedStrings  # (N,) compressed run lengths, down the columns
    sizes_hw: NDArray[np.int32]  # (N, 2) height and width of the image, original px

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, row: int) -> Rle:
        height, width = self.sizes_hw[row].tolist()
        return {"size": [height, width], "counts": self.counts[row]}

    def __iter__(self) -> Iterator[Rle]:
        return (self[row] for row in range(len(self)))

    def take(self, rows: NDArray[np.int64]) -> Self:
        """The masks of the given rows."""
        return type(self)(self.counts.take(rows), self.sizes_hw[rows])

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """The masks of all parts, one after the other."""
        lengths = [np.diff(part.counts.offsets) for part in parts]
        offsets = np.concatenate([[0], *lengths]).astype(np.int64).cumsum()
        blob = np.concatenate([np.zeros(0, np.uint8), *(part.counts.blob for part in parts)])
        sizes = np.concatenate([np.zeros((0, 2), np.int32), *(part.sizes_hw for part in parts)])
        return cls(PackedStrings(blob, offsets), sizes)
