"""The chip table: every chip of an epoch as flat columns, grouped by image."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class ChipKind(IntEnum):
    """Why a chip was cut."""

    POSITIVE = 0  # covers objects that are valid at its level
    NEGATIVE = 1  # the model's own proposals are wrong there
    BACKGROUND = 2  # a random window of the pyramid
    TILE = 3  # a cell of a uniform tiling, or a whole image: the alternatives that chips are compared with


@dataclass(frozen=True, slots=True)
class ChipTable:
    """K chips, ordered by image. A box of the image has chip coordinates ``box * scale - origin``."""

    image_index: NDArray[np.int32]  # (K,) row of the annotation table, never decreasing
    level: NDArray[np.int16]  # (K,)
    kind: NDArray[np.int8]  # (K,) a ChipKind each
    scale: NDArray[np.float64]  # (K,) network px per original px
    origin_xy: NDArray[np.int32]  # (K, 2) top-left corner in the scaled image, network px
    size_wh: NDArray[np.int32]  # (K, 2) padded input, network px
    valid_wh: NDArray[np.int32]  # (K, 2) part of the padded input that shows the picture; the rest is padding
    range_px: NDArray[np.float32]  # (K, 2) valid range of the level, sqrt(area) in original px, may be inf
    object_offsets: NDArray[np.int64]  # (K + 1,)
    object_rows: NDArray[np.int64]  # (M,) rows of the annotation table that are valid in the chip

    def __len__(self) -> int:
        return len(self.image_index)

    def windows_xyxy(self, rows: "NDArray[np.integer] | slice" = slice(None)) -> NDArray[np.float64]:
        """(K, 4) what chips show of their images, original px; exact to a fraction of a pixel."""
        low, scale = self.origin_xy[rows], self.scale[rows][:, None]
        return np.concatenate([low / scale, (low + self.valid_wh[rows]) / scale], axis=1)
