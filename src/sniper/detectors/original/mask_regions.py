"""Which regions train the mask branch of the 2018 detectors."""

from typing import NamedTuple

import torch
from torch import Tensor

from sniper.detectors.original.proposals import OriginalRegionTargets


class MaskRegions(NamedTuple):
    """K regions that train the mask branch."""

    image: Tensor  # (K,) int64 row of the batch
    boxes: Tensor  # (K, 4) inclusive xyxy, network px
    labels: Tensor  # (K,) int64 class index + 1
    objects: Tensor  # (K,) int64 index of the object in its chip


def mask_regions(targets: OriginalRegionTargets, max_count: int = 50) -> MaskRegions:
    """The first ``max_count`` per chip of the regions with an object, counted over the batch, as the original takes
    them.
    """
    image, slot = torch.where(targets.labels > 0)
    image, slot = image[: max_count * len(targets.labels)], slot[: max_count * len(targets.labels)]
    return MaskRegions(image, targets.boxes[image, slot], targets.labels[image, slot], targets.objects[image, slot])
