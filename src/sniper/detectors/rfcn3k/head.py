"""The second stage of R-FCN-3K: is it an object, of which kind, and, apart from that, of which fine class."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import ps_roi_align

from sniper.nn.initial import initialise
from sniper.nn.pooling import SAMPLES, roi_align


class DecoupledOutput(NamedTuple):
    """What the head says about K regions; float32 whatever the precision around."""

    groups: Tensor  # (K, G + 1) logits of the super-classes, background first
    fine: Tensor  # (K, C) logits of the fine classes; there is no background among them
    deltas: Tensor  # (K, 4) codes with REGION_WEIGHTS, the same for all classes


class Membership(nn.Module):
    """Which super-class each fine class belongs to. A layer of its own, so that fine-tuning keeps it by class."""

    group: Tensor

    def __init__(self, groups: Tensor) -> None:
        super().__init__()
        self.register_buffer("group", groups)  # (C,) int64 from 0


class DecoupledHead(nn.Module):
    """Position-sensitive maps for objectness and boxes; one row of weights for each fine class.

    The maps grow with the number of super-classes, not of classes. The fine classes are told from the mean of a
    region's features, once per region, so that thousands of them cost a small matrix product.
    """

    def __init__(self, in_channels: int, stride: int, groups: Tensor, count: int, *, channels: int, cells: int) -> None:
        """Args:
        in_channels: features of a cell of the map.
        stride: network px per cell.
        groups: (C,) int64 super-class of each fine class.
        count: how many super-classes there are.
        channels: features that the 1x1 convolution leaves.
        cells: position-sensitive cells of a region, along each side.
        """
        super().__init__()
        self.stride, self.cells = stride, cells
        self.reduce = nn.Conv2d(in_channels, channels, 1)
        self.groups = nn.Conv2d(channels, (count + 1) * cells * cells, 1)
        self.boxes = nn.Conv2d(channels, 4 * cells * cells, 1)
        self.fine = nn.Linear(channels, len(groups))
        self.membership = Membership(groups)
        initialise(self.reduce, std=(2 / in_channels) ** 0.5)
        for layer, std in ((self.groups, 0.01), (self.boxes, 0.001), (self.fine, 0.01)):
            initialise(layer, std=std)

    def forward(self, features: Tensor, image: Tensor, boxes: Tensor) -> DecoupledOutput:
        """What (K, 4) ``boxes``, network px of the images ``image`` (K,) of (B, F, H, W) ``features``, hold."""
        reduced = self.reduce(features)
        regions = torch.cat((image.to(boxes.dtype).unsqueeze(1), boxes), dim=1)
        return DecoupledOutput(
            self._votes(self.groups(reduced), regions),
            self.fine(self._mean_features(reduced, image, boxes)).float(),
            self._votes(self.boxes(reduced), regions),
        )

    def region_features(self, features: Tensor, image: Tensor, boxes: Tensor) -> Tensor:
        """(K, D) what a row of the fine classifier is multiplied with."""
        return self._mean_features(self.reduce(features), image, boxes)

    def _votes(self, maps: Tensor, regions: Tensor) -> Tensor:
        """(K, N) means over the cells of a region, each of which reads one of (B, N * cells², H, W) ``maps``.

        Sampled without rounding (the paper rounds to cells of the map): at stride 16 a small region is one or two.
        """
        pooled: Tensor = ps_roi_align(maps.float(), regions.float(), self.cells, 1 / self.stride, SAMPLES)
        return pooled.mean(dim=(2, 3))

    def _mean_features(self, reduced: Tensor, image: Tensor, boxes: Tensor) -> Tensor:
        features = functional.relu(reduced).float()
        cut = roi_align(features, image, boxes.to(features.dtype), stride=self.stride, cells=self.cells)
        return cut.mean(dim=(2, 3))


def scores_of(groups: Tensor, fine: Tensor, group: Tensor) -> Tensor:
    """(..., C) probability that a region shows a class: that of its super-class, times that among all fine classes.

    Args:
        groups: (..., G + 1) logits of the super-classes, background first.
        fine: (..., C) logits of the fine classes.
        group: (C,) super-class of each.
    """
    return groups.softmax(dim=-1)[..., 1:][..., group] * fine.softmax(dim=-1)
