"""The second stage: what a region holds, and its exact box."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sniper.nn import box_deltas
from sniper.nn.initial import initialise
from sniper.nn.pooling import roi_align
from sniper.nn.roi import RegionTargets
from sniper.nn.unlabelled import without_unknown


class RegionOutput(NamedTuple):
    """What the head says about K regions; float32 whatever the precision around."""

    logits: Tensor  # (K, C + 1), background first
    deltas: Tensor  # (K, 4) codes with REGION_WEIGHTS, the same for all classes


class RegionHead(nn.Module):
    """1x1 convolution and ReLU, RoIAlign, two fully connected layers, then classes and one box.

    The 1x1 convolution runs once per image before the regions are cut out: that is what keeps the head cheap.
    """

    def __init__(
        self, in_channels: int, stride: int, num_classes: int, *, channels: int, width: int, pooled: int = 7
    ) -> None:
        super().__init__()
        self.stride, self.pooled = stride, pooled
        self.reduce = nn.Conv2d(in_channels, channels, 1)
        fan_in = channels * pooled * pooled
        self.first, self.second = nn.Linear(fan_in, width), nn.Linear(width, width)
        self.classes, self.deltas = nn.Linear(width, num_classes + 1), nn.Linear(width, 4)
        initialise(self.reduce, std=(2 / in_channels) ** 0.5)
        initialise(self.first, std=(2 / fan_in) ** 0.5)
        initialise(self.second, std=(2 / width) ** 0.5)
        initialise(self.classes, std=0.01)
        initialise(self.deltas, std=0.001)

    def forward(self, features: Tensor, image: Tensor, boxes: Tensor) -> RegionOutput:
        """Classes and deltas of (K, 4) ``boxes``, network px of the images ``image`` (K,) of ``features``."""
        reduced = functional.relu(self.reduce(features), inplace=True).float()
        pooled = roi_align(reduced, image, boxes.to(reduced.dtype), stride=self.stride, cells=self.pooled)
        hidden = functional.relu(self.first(pooled.flatten(1)), inplace=True)
        hidden = functional.relu(self.second(hidden), inplace=True)
        return RegionOutput(self.classes(hidden).float(), self.deltas(hidden).float())


def region_losses(output: RegionOutput, targets: RegionTargets) -> dict[str, Tensor]:
    """``class``: mean cross-entropy; ``box``: smooth L1 of the regions that hold an object, per region.

    Empty places count for nothing. No regions give zeros that still reach the parameters. With ``targets.weight`` the
    sum of cross-entropies is weighted, and the divisor stays the number of regions.
    """
    count = (targets.labels >= 0).sum().clamp(min=1)
    target_deltas = box_deltas.encode(targets.boxes, targets.objects, box_deltas.REGION_WEIGHTS)
    holds = (targets.labels > 0).unsqueeze(-1)
    distance = functional.smooth_l1_loss(
        output.deltas, torch.where(holds, target_deltas, output.deltas.detach()), reduction="sum"
    )
    return {"class": _entropy(output.logits, targets) / count, "box": distance / count}


def _entropy(logits: Tensor, targets: RegionTargets) -> Tensor:
    """Sum of the cross-entropies of all regions that train."""
    if targets.known is not None:
        logits = without_unknown(logits, targets.labels, targets.known[targets.image])
    if targets.weight is None:
        return functional.cross_entropy(logits, targets.labels, reduction="sum", ignore_index=-1)
    entropy = functional.cross_entropy(logits, targets.labels, reduction="none", ignore_index=-1)
    return (entropy * targets.weight).sum()
