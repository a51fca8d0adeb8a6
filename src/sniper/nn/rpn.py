"""The region proposal network: how likely each anchor holds an object, and how to move it there."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sniper.nn import box_deltas
from sniper.nn.initial import initialise
from sniper.nn.matching import AnchorMatch
from sniper.nn.sampling import Sample, gather_boxes


class RegionMaps(NamedTuple):
    """What the network says about every anchor, in the order of ``Anchors``; float32 whatever the precision around."""

    objectness: Tensor  # (B, A) logits
    deltas: Tensor  # (B, A, 4) codes


class RPN(nn.Module):
    """3x3 convolution and ReLU, then one objectness logit and four deltas for each anchor of a cell.

    A two-class softmax per anchor, as in the original, is the same thing: its foreground probability is the sigmoid of
    the difference of its logits, so the difference of its two filters is the filter here.

    ``in_channels`` may be fewer than the features have: then the first ones are used (the finer stage alone).
    """

    def __init__(self, in_channels: int, channels: int, anchors_per_cell: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, anchors_per_cell, 1)
        self.deltas = nn.Conv2d(channels, 4 * anchors_per_cell, 1)
        for layer in (self.conv, self.objectness, self.deltas):
            initialise(layer, std=0.01)

    def forward(self, features: Tensor) -> RegionMaps:
        """Maps of (B, F, H, W) ``features``."""
        hidden = functional.relu(self.conv(features[:, : self.in_channels]), inplace=True)
        images = features.shape[0]
        return RegionMaps(
            self.objectness(hidden).float().permute(0, 2, 3, 1).reshape(images, -1),
            self.deltas(hidden).float().permute(0, 2, 3, 1).reshape(images, -1, 4),
        )


def rpn_losses(
    maps: RegionMaps, anchors: Tensor, boxes: Tensor, match: AnchorMatch, chosen: Sample, box_weight: float
) -> dict[str, Tensor]:
    """``rpn_class``: mean cross-entropy of the chosen anchors; ``rpn_box``: smooth L1 of the positives, per anchor.

    ``anchors`` are (A, 4), ``boxes`` (B, N, 4) network px. Nothing chosen gives zeros that still reach the parameters.
    """
    count = chosen.used.sum().clamp(min=1)
    logits = maps.objectness.gather(1, chosen.picked)
    entropy = functional.binary_cross_entropy_with_logits(logits, chosen.positive.float(), reduction="none")
    deltas = gather_boxes(maps.deltas, chosen.picked)
    if boxes.shape[1] == 0:
        return {"rpn_class": (entropy * chosen.used).sum() / count, "rpn_box": deltas.sum() * 0}
    targets = box_deltas.encode(anchors[chosen.picked], gather_boxes(boxes, match.objects.gather(1, chosen.picked)))
    distance = functional.smooth_l1_loss(
        deltas, torch.where(chosen.positive.unsqueeze(-1), targets, deltas.detach()), reduction="none"
    )
    return {"rpn_class": (entropy * chosen.used).sum() / count, "rpn_box": box_weight * distance.sum() / count}
