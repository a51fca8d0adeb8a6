"""The mask branch of the reference detector: what part of a region the object fills (arXiv 1703.06870, section 3).

``docs/method.md``, "Masks".
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sniper.nn.initial import initialise
from sniper.nn.mask_targets import MASK_CELLS, mask_targets
from sniper.nn.pooling import roi_align
from sniper.nn.roi import RegionTargets

POOLED = MASK_CELLS // 2


class MaskHead(nn.Module):
    """1x1 convolution and ReLU, RoIAlign, 3x3 convolutions, twice the cells, then one logit a class and cell.

    Like the box head's, the 1x1 convolution runs once per image: its map is all that has to be kept of a padded input.
    """

    def __init__(self, in_channels: int, stride: int, num_classes: int, *, channels: int, convs: int) -> None:
        super().__init__()
        self.stride = stride
        self.reduce = nn.Conv2d(in_channels, channels, 1)
        self.convs = nn.Sequential()
        for number in range(convs):
            self.convs.add_module(f"conv{number}", nn.Conv2d(channels, channels, 3, padding=1))
            self.convs.add_module(f"relu{number}", nn.ReLU(inplace=True))
        self.enlarge = nn.ConvTranspose2d(channels, channels, 2, 2)
        self.logits = nn.Conv2d(channels, num_classes, 1)
        initialise(self.reduce, std=(2 / in_channels) ** 0.5)
        for layer in self.convs:
            if isinstance(layer, nn.Conv2d):
                initialise(layer, std=(2 / (9 * channels)) ** 0.5)
        nn.init.normal_(self.enlarge.weight, std=(2 / channels) ** 0.5)
        nn.init.zeros_(self.enlarge.bias)  # type: ignore[arg-type]
        initialise(self.logits, std=0.001)

    def reduced(self, features: Tensor) -> Tensor:
        """(B, channels, H, W) of (B, F, H, W) features: what regions are cut from; float32."""
        return functional.relu(self.reduce(features), inplace=True).float()

    def forward(self, reduced: Tensor, image: Tensor, boxes: Tensor) -> Tensor:
        """(K, C, 28, 28) logits in (K, 4) ``boxes`` (network px) of the images ``image`` (K,); float32."""
        pooled = roi_align(reduced, image, boxes.to(reduced.dtype), stride=self.stride, cells=POOLED)
        hidden = functional.relu(self.enlarge(self.convs(pooled)), inplace=True)
        logits: Tensor = self.logits(hidden).float()
        return logits


class MaskTargets(NamedTuple):
    """K regions that train the mask branch."""

    image: Tensor  # (K,) int64 row of the batch
    boxes: Tensor  # (K, 4) xyxy, network px
    labels: Tensor  # (K,) int64 class index from 0
    inside: Tensor  # (K, 28, 28) float32: 1 where a cell's middle is in the object


@torch.no_grad()
def mask_head_targets(targets: RegionTargets, polygons: Tensor, per_chip: int) -> MaskTargets:
    """The first ``per_chip`` regions of each chip that hold an object with an outline, and what to learn in them.

    ``polygons`` are the batch's (B, N, P). Regions come in random order, so the first are a fair choice.
    """
    holds = torch.where(targets.labels > 0)[0]
    if polygons.shape[1] == 0:
        holds = holds[:0]
    else:
        holds = holds[polygons[targets.image[holds], targets.matched[holds], 1] > 0]
    counts = torch.bincount(targets.image[holds], minlength=len(polygons))
    before = (counts.cumsum(0) - counts)[targets.image[holds]]
    holds = holds[torch.arange(len(holds), device=holds.device) - before < per_chip]
    image, boxes = targets.image[holds], targets.boxes[holds]
    outlines = polygons[image, targets.matched[holds]]
    # Half-open boxes are right as they are: a region's extent is x2 - x1 there.
    drawn = mask_targets(outlines, boxes, torch.arange(len(holds), device=holds.device))
    return MaskTargets(image, boxes, targets.labels[holds] - 1, drawn.to(boxes.dtype))


def mask_loss(logits: Tensor, targets: MaskTargets) -> Tensor:
    """Mean binary cross-entropy over the cells of (K, C, 28, 28) logits, in the channel of the true class only.

    No regions give a zero that still reaches the parameters.
    """
    own = logits[torch.arange(len(targets.labels), device=logits.device), targets.labels]
    entropy = functional.binary_cross_entropy_with_logits(own, targets.inside.to(own.dtype), reduction="sum")
    return entropy / max(own.numel(), 1)
