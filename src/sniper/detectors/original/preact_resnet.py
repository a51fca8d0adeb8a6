"""The pre-activation ResNet of the 2018 detectors: its fourth stage sees as finely as its third, through deformable
convolutions, and its sums are returned as they are.

Identity mappings: arXiv 1603.05027. Deformable convolution: arXiv 1703.06211.
"""

from typing import Self

from torch import Tensor, nn

from sniper.detectors.original.config import RESNET_STRIDE
from sniper.detectors.original.deformable import DeformableConv

EPSILON = 2e-5
MOMENTUM = 0.005  # share of a batch in the running statistics: 0.995 of MXNet keeps the rest
STAGE_CHANNELS = (256, 512, 1024, 2048)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPSILON, momentum=MOMENTUM)


class Unit(nn.Module):
    """Normalise, activate, convolve: 1x1, 3x3, 1x1. The shortcut is the input or, where sizes change, a convolution."""

    def __init__(self, in_channels: int, channels: int, stride: int, *, deformable: bool = False) -> None:
        super().__init__()
        inner = channels // 4
        self.norm1, self.relu1 = _norm(in_channels), nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.norm2, self.relu2 = _norm(inner), nn.ReLU(inplace=True)
        self.conv2 = (
            DeformableConv(inner, inner, dilation=2, groups=4)
            if deformable
            else nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        )
        self.norm3, self.relu3 = _norm(inner), nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(inner, channels, 1, bias=False)
        self.shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False) if in_channels != channels else None

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu1(self.norm1(x))
        inner = self.conv2(self.relu2(self.norm2(self.conv1(active))))
        total: Tensor = self.conv3(self.relu3(self.norm3(inner)))
        return total + (x if self.shortcut is None else self.shortcut(active))


class PreactResNet(nn.Module):
    """Maps of the third and fourth stage, both at stride 16: raw sums, neither normalised nor activated.

    The input norm has stored statistics and no gain; it, the first convolution and the first stage (``still``) keep
    their statistics in training, and the convolution, its norm and the first stage their weights too.
    """

    stride = RESNET_STRIDE
    channels = STAGE_CHANNELS[2:]

    def __init__(self, units: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.norm_in = _norm(3)
        self.norm_in.weight.requires_grad_(False)
        self.conv = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.norm, self.relu = _norm(64), nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.stage1 = _stage(units[0], 64, STAGE_CHANNELS[0], stride=1)
        self.stage2 = _stage(units[1], *STAGE_CHANNELS[0:2], stride=2)
        self.stage3 = _stage(units[2], *STAGE_CHANNELS[1:3], stride=2)
        self.stage4 = _stage(units[3], *STAGE_CHANNELS[2:4], stride=1, deformable=True)
        for module in (self.conv, self.norm, self.stage1):
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Training mode, except that the input, the stem and the first stage go on using their stored statistics."""
        super().train(mode)
        for module in (self.norm_in, self.norm, self.stage1):
            module.eval()
        return self

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1024, h, w) and (B, 2048, h, w) of (B, 3, H, W) pixels, h = ceil(H / 16), w = ceil(W / 16)."""
        x = self.pool(self.relu(self.norm(self.conv(self.norm_in(pixels)))))
        third = self.stage3(self.stage2(self.stage1(x)))
        return third, self.stage4(third)


def _stage(count: int, in_channels: int, channels: int, *, stride: int, deformable: bool = False) -> nn.Sequential:
    first = Unit(in_channels, channels, stride, deformable=deformable)
    return nn.Sequential(first, *(Unit(channels, channels, 1, deformable=deformable) for _ in range(count - 1)))


def preact_resnet50() -> PreactResNet:
    return PreactResNet((3, 4, 6, 3))


def preact_resnet101() -> PreactResNet:
    return PreactResNet((3, 4, 23, 3))
