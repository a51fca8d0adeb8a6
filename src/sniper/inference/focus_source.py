"""Where focus maps come from: a detector's focus branch, or else its small proposals or detections.

``docs/method.md``, "AutoFocus".
"""

import logging
import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sniper.detectors.protocol import Detector, FocusDetector, Proposer
from sniper.focus.cells import painted
from sniper.inference.autofocus import SMALL_PX
from sniper.structures import Detections, Images

logger = logging.getLogger("sniper")

LookWithFocus = Callable[[Images], tuple[list[Detections], Tensor]]

FALLBACK_STRIDE = 16  # px per cell of a map made of proposals


def focus_source(detector: Detector) -> tuple[LookWithFocus, int]:
    """How to get detections with (B, H, W) focus probabilities from a detector, and the px per cell of these maps.

    Without a focus branch, small proposals say where to look closer; without proposals, small detections do.
    """
    if isinstance(detector, FocusDetector) and detector.focus_stride is not None:
        return detector.detect_with_focus, detector.focus_stride
    proposes = isinstance(detector, Proposer)
    logger.warning(
        "%s has no focus branch: its small %s say where to look closer",
        type(detector).__name__,
        "proposals" if proposes else "detections",
    )

    def look(images: Images) -> tuple[list[Detections], Tensor]:
        found = detector.detect(images)
        regions = detector.propose(images) if isinstance(detector, Proposer) else found
        return found, torch.from_numpy(np.stack([_of_small(one, images) for one in regions]))

    return look, FALLBACK_STRIDE


def _of_small(regions: Detections, images: Images) -> NDArray[np.float32]:
    """(H, W) best score of the small regions in each cell of a padded input."""
    boxes, scores = regions.boxes.float().cpu().numpy(), regions.scores.float().cpu().numpy()
    size = np.sqrt(np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1))
    small = (size > SMALL_PX[0]) & (size < SMALL_PX[1]) & np.isfinite(scores)
    rows, columns = (math.ceil(side / FALLBACK_STRIDE) for side in images.pixels.shape[2:])
    return painted(np.ascontiguousarray(boxes[small]), scores[small], FALLBACK_STRIDE, rows, columns)
