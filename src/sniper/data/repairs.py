"""What reading a dataset changed or left out, so that a check can name it."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sniper.errors import DataError


class Repair(IntEnum):
    """Why a box is not in the table as it was written."""

    CLIPPED = 0  # it reaches over the image by more than a rounding error; the part inside is kept
    NOT_FINITE = 1  # dropped, as those that follow
    INVERTED = 2
    EMPTY = 3
    OUTSIDE = 4


@dataclass(frozen=True, slots=True, eq=False)
class Repairs:
    """R boxes that were clipped or dropped, in the order of the files, and images that were left out."""

    reasons: NDArray[np.uint8]  # (R,) values of Repair
    image_rows: NDArray[np.int64]  # (R,)
    boxes_xyxy: NDArray[np.float64]  # (R, 4) as written, original px; NaN where they were not finite
    labels: NDArray[np.int32]  # (R,)
    annotation_ids: NDArray[np.int64]  # (R,)
    unreadable: tuple[DataError, ...] = ()  # images whose size must be read from files that cannot be

    def __len__(self) -> int:
        return len(self.reasons)

    def relabelled(self, new_label: NDArray[np.int32]) -> Self:
        """Those whose class has a new label of 0 or more, (C,) by old label."""
        rows = np.flatnonzero(new_label[self.labels] >= 0)
        return type(self)(
            self.reasons[rows],
            self.image_rows[rows],
            self.boxes_xyxy[rows],
            new_label[self.labels[rows]],
            self.annotation_ids[rows],
            self.unreadable,
        )
