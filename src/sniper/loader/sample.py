"""One chip on its way into a batch (NumPy, cheap to move between processes)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True)
class Sample:
    """A chip with what it may teach; the fields of ``sniper.structures.Batch``, unpadded. N objects."""

    pixels: NDArray[np.uint8]  # (3, H, W) RGB
    valid_wh: tuple[int, int]  # part of the padded input that shows the image, network px
    scale: float  # network px per original px
    boxes: NDArray[np.float32]  # (N, 4) xyxy, network px, clipped to the valid region
    labels: NDArray[np.int64]  # (N,) class index from 0
    state: NDArray[np.int64]  # (N,) an ObjectState each
    range_px: tuple[float, float]  # valid range as sqrt(area), network px; the upper end may be inf
    chip: int  # row of the chip table
    outlines: NDArray[np.float32] | None = None  # (N, P) as ``sniper.loader.outlines`` packs them, if asked for
    known_classes: NDArray[np.bool_] | None = None  # (C,) classes that the image was checked for; None: all
