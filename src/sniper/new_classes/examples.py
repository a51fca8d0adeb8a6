"""The regions that new classes are learned from."""

from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

BACKGROUND = -1  # label of a region that shows none of the classes


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """N described regions of P photos. Regions of a photo follow each other."""

    features: NDArray[np.float32]  # (N, D)
    labels: NDArray[np.int32]  # (N,) class, or BACKGROUND
    photos: NDArray[np.int32]  # (N,) number of the photo, rising
    boxes: NDArray[np.float32]  # (N, 4) xyxy, original px of the photo
    scores: NDArray[np.float32]  # (N,) objectness

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Self:
        """Those of some rows."""
        return replace(self, **{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    @classmethod
    def join(cls, parts: "list[Examples]") -> "Examples":
        """Those of all parts, one after the other; photos keep their numbers."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def photo_starts(photos: NDArray[np.integer]) -> NDArray[np.int64]:
    """Rows at which the regions of each photo begin."""
    return np.flatnonzero(np.concatenate([[True], np.diff(photos) != 0]))
