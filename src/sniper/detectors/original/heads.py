"""What the 2018 detectors put on their features: proposals, regions, focus and masks.

Every activation is a module of its own, so that hooks can read numbers anywhere inside.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sniper.detectors.original.deformable_pooling import deformable_pool
from sniper.nn.focus_recall import FocusRecall
from sniper.nn.heads import RegionOutput
from sniper.nn.initial import initialise
from sniper.nn.rpn import RegionMaps

REDUCED = 256  # features that regions are cut from
POOLED = 7  # cells a side of a region
MASK_POOLED = 14
_SHIFT_SCALE = 0.10000000149011612  # 0.1 in single precision, in which the original computed it
MASK_CELLS = 28


class OriginalMaps(NamedTuple):
    """What the proposal network says, in the layout of the original; float32 or better."""

    logits: Tensor  # (B, 2A, H, W): A background channels, then A foreground
    deltas: Tensor  # (B, 4A, H, W): dx, dy, log dw, log dh of each anchor in turn

    def probabilities(self) -> Tensor:
        """(B, 2A, H, W): softmax of background against foreground for every anchor."""
        images, channels, height, width = self.logits.shape
        pairs = self.logits.view(images, 2, channels // 2, height, width)
        return pairs.softmax(dim=1).view_as(self.logits)

    def by_anchor(self) -> RegionMaps:
        """The same, cell by cell: the difference of the two logits is the objectness."""
        images, channels = self.logits.shape[:2]
        objectness = self.logits[:, channels // 2 :] - self.logits[:, : channels // 2]
        deltas = self.deltas.permute(0, 2, 3, 1).reshape(images, -1, 4)
        return RegionMaps(objectness.permute(0, 2, 3, 1).reshape(images, -1), deltas)


class OriginalRPN(nn.Module):
    """3x3 convolution and ReLU, then two logits and four deltas for each anchor.

    ``in_channels`` may be fewer than the features have: then the first ones are used (the third stage alone).
    """

    def __init__(self, in_channels: int, channels: int, anchors_per_cell: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.conv, self.relu = nn.Conv2d(in_channels, channels, 3, padding=1), nn.ReLU()
        self.logits = nn.Conv2d(channels, 2 * anchors_per_cell, 1)
        self.deltas = nn.Conv2d(channels, 4 * anchors_per_cell, 1)
        for layer in (self.conv, self.logits, self.deltas):
            initialise(layer, std=0.01)

    def forward(self, features: Tensor) -> OriginalMaps:
        """Maps of (B, F, H, W) ``features``."""
        hidden = self.relu(self.conv(features[:, : self.in_channels]))
        return OriginalMaps(self.logits(hidden), self.deltas(hidden))


class Reduction(nn.Module):
    """1x1 convolution and ReLU, once per image: what the regions of both branches are cut from."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(in_channels, REDUCED, 1), nn.ReLU()
        initialise(self.conv, std=0.01)

    def forward(self, features: Tensor) -> Tensor:
        """(B, 256, H, W) of (B, F, H, W)."""
        reduced: Tensor = self.relu(self.conv(features))
        return reduced


class PooledRegions(nn.Module):
    """Deformable RoI pooling of (B, F, H, W) features; cells that are not moved without offsets."""

    def __init__(self, stride: int, cells: int) -> None:
        super().__init__()
        self.stride, self.cells = stride, cells

    def forward(self, features: Tensor, image: Tensor, boxes: Tensor, offsets: Tensor | None = None) -> Tensor:
        """(K, F, cells, cells) of (K, 4) inclusive ``boxes``; ``offsets`` are (K, 2, cells, cells) x and y."""
        return deformable_pool(
            features, image, boxes, offsets, stride=self.stride, cells=self.cells, shift_scale=_SHIFT_SCALE
        )


class DeformablePool(nn.Module):
    """Cut regions out, let a fully connected layer judge them, and cut again with each cell moved as it says."""

    def __init__(self, stride: int, cells: int) -> None:
        super().__init__()
        self.stride, self.cells = stride, cells
        self.plain = PooledRegions(stride, cells)
        self.offsets = nn.Linear(REDUCED * cells * cells, 2 * cells * cells)
        self.moved = PooledRegions(stride, cells)
        initialise(self.offsets, std=0)

    def forward(self, reduced: Tensor, image: Tensor, boxes: Tensor) -> Tensor:
        """(K, 256, cells, cells) features of (K, 4) inclusive ``boxes`` (network px) of the images ``image`` (K,)."""
        offsets = self.offsets(self.plain(reduced, image, boxes).flatten(1))
        moved: Tensor = self.moved(reduced, image, boxes, offsets.view(-1, 2, self.cells, self.cells))
        return moved


class OriginalRegionHead(nn.Module):
    """Deformable pooling, two fully connected layers, then classes and one box for all of them."""

    def __init__(self, stride: int, num_classes: int, *, width: int) -> None:
        super().__init__()
        self.pool = DeformablePool(stride, POOLED)
        self.first, self.relu1 = nn.Linear(REDUCED * POOLED * POOLED, width), nn.ReLU()
        self.second, self.relu2 = nn.Linear(width, width), nn.ReLU()
        self.classes, self.deltas = nn.Linear(width, num_classes + 1), nn.Linear(width, 4)
        for layer in (self.first, self.second, self.classes, self.deltas):
            initialise(layer, std=0.01)

    def forward(self, reduced: Tensor, image: Tensor, boxes: Tensor) -> RegionOutput:
        """Classes and deltas of (K, 4) inclusive ``boxes``, network px of the images ``image`` (K,)."""
        hidden = self.relu1(self.first(self.pool(reduced, image, boxes).flatten(1)))
        hidden = self.relu2(self.second(hidden))
        return RegionOutput(self.classes(hidden), self.deltas(hidden))


class FocusBranch(nn.Module):
    """How likely each cell shows a small object: AutoFocus (arXiv 1812.01600) section 3."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv1, self.relu1 = nn.Conv2d(in_channels, 256, 3, padding=1), nn.ReLU()
        self.conv2, self.relu2 = nn.Conv2d(256, 256, 1), nn.ReLU()
        self.logits = nn.Conv2d(256, 2, 1)
        self.recall = FocusRecall()
        for layer in (self.conv1, self.conv2, self.logits):
            initialise(layer, std=0.01)

    def forward(self, features: Tensor) -> Tensor:
        """(B, 2, H, W) logits: no focus, focus."""
        logits: Tensor = self.logits(self.relu2(self.conv2(self.relu1(self.conv1(features)))))
        return logits


class MaskBranch(nn.Module):
    """Deformable pooling, four 3x3 convolutions, twice the cells, then two logits a class."""

    def __init__(self, stride: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.pool = DeformablePool(stride, MASK_POOLED)
        self.convs = nn.Sequential()
        for number in range(1, 5):
            self.convs.add_module(f"conv{number}", nn.Conv2d(REDUCED, REDUCED, 3, padding=1))
            self.convs.add_module(f"relu{number}", nn.ReLU())
        self.enlarge, self.relu = nn.ConvTranspose2d(REDUCED, REDUCED, 2, 2, bias=False), nn.ReLU()
        self.logits = nn.Conv2d(REDUCED, 2 * num_classes, 1)
        for layer in self.convs:
            if isinstance(layer, nn.Conv2d):
                initialise(layer, std=0.01)
        nn.init.normal_(self.enlarge.weight, std=0.01)
        initialise(self.logits, std=0.01)

    def forward(self, reduced: Tensor, image: Tensor, boxes: Tensor) -> Tensor:
        """(K, 2C, 28, 28) logits in (K, 4) inclusive ``boxes`` (network px): outside for each class, then inside."""
        hidden = self.convs(self.pool(reduced, image, boxes))
        logits: Tensor = self.logits(self.relu(self.enlarge(hidden)))
        return logits

    def mask_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(K, 28, 28) of the class ``labels`` (K,), from 0: their sigmoid is how likely a cell is inside the object."""
        row = torch.arange(len(labels), device=logits.device)
        return logits[row, labels + self.num_classes] - logits[row, labels]
