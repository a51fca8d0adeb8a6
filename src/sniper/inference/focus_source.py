"""Focus maps of networks without a focus branch: where the small regions are that they find.

``docs/method.md``, "AutoFocus".
"""

import logging
import math
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from sniper.focus.cells import painted
from sniper.inference.backend import Backend, Looked
from sniper.pyramid import FOCUS_PX

logger = logging.getLogger("sniper")

FALLBACK_STRIDE = 16  # px per cell of a map made of regions

_told: WeakSet[Backend] = WeakSet()  # a user who asks for image after image is told once


def focus_stride_of(backend: Backend) -> int:
    """Network px per cell of the maps that inference will have; warns once where a network has no focus branch."""
    if backend.focus_source != "branch" and backend not in _told:
        _told.add(backend)
        logger.warning(
            "%s has no focus branch: its small %s say where finer levels are run, everywhere in an image that has "
            "none; small objects away from them are missed",
            backend.name,
            backend.focus_source,
        )
    return FALLBACK_STRIDE if backend.focus_stride is None else backend.focus_stride


def focus_of(looked: Looked, padded_hw: tuple[int, int]) -> NDArray[np.float32]:
    """(B, h, w) the network's own focus maps, or those of its small detections on padded inputs of ``padded_hw``."""
    if looked.focus is not None:
        return looked.focus
    count = len(looked.offsets) - 1
    return np.stack(
        [map_of_small(looked.boxes[r], looked.scores[r], padded_hw) for r in map(looked.rows, range(count))]
    )


def map_of_small(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], padded_hw: tuple[int, int]
) -> NDArray[np.float32]:
    """(h, w) best score of the small regions, (N, 4) network px, in each cell of one padded input."""
    size = np.sqrt(np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1))
    small = (size > FOCUS_PX[0]) & (size < FOCUS_PX[1]) & np.isfinite(scores)
    rows, columns = (math.ceil(side / FALLBACK_STRIDE) for side in padded_hw)
    return painted(np.ascontiguousarray(boxes[small]), scores[small], FALLBACK_STRIDE, rows, columns)
