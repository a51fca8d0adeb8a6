"""MobileNetV2 (arXiv 1801.04381) as the 2018 code built it: the first block keeps its 1x1 convolution, stride 32."""

from typing import NamedTuple

from torch import Tensor, nn

from sniper.detectors.original.config import MOBILENET_STRIDE

EPSILON = 1e-5
CHANNELS = 1280


class Stack(NamedTuple):
    """A run of blocks; the first of them has the stride."""

    expansion: int
    channels: int
    blocks: int
    stride: int


STACKS = (
    Stack(1, 16, 1, 1),
    Stack(6, 24, 2, 2),
    Stack(6, 32, 3, 2),
    Stack(6, 64, 4, 2),
    Stack(6, 96, 3, 1),
    Stack(6, 160, 3, 2),
    Stack(6, 320, 1, 1),
)


class ConvNorm(nn.Sequential):
    """Convolution, batch norm and, unless ``linear``, ReLU6. The norm's affine is constant."""

    def __init__(
        self, in_channels: int, channels: int, kernel: int, stride: int = 1, *, groups: int = 1, linear: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(channels, eps=EPSILON)
        self.norm.weight.requires_grad_(False)
        self.norm.bias.requires_grad_(False)
        if not linear:
            self.relu6 = nn.ReLU6(inplace=True)


class Block(nn.Module):
    """Expand (also by 1), filter each channel, project; with a shortcut where sizes stay."""

    def __init__(self, in_channels: int, channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.expand = ConvNorm(in_channels, inner, 1)
        self.depthwise = ConvNorm(inner, inner, 3, stride, groups=inner)
        self.linear = ConvNorm(inner, channels, 1, linear=True)
        self.shortcut = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.linear(self.depthwise(self.expand(x)))
        return x + projected if self.shortcut else projected


class OriginalMobileNet(nn.Module):
    """One map of 1280 features at stride 32."""

    stride = MOBILENET_STRIDE
    channels = (CHANNELS,)

    def __init__(self) -> None:
        super().__init__()
        self.first = ConvNorm(3, 32, 3, 2)
        stacks, before = [], 32
        for stack in STACKS:
            blocks = []
            for index in range(stack.blocks):
                blocks.append(Block(before, stack.channels, stack.expansion, stack.stride if index == 0 else 1))
                before = stack.channels
            stacks.append(nn.Sequential(*blocks))
        self.stacks = nn.Sequential(*stacks)
        self.last = ConvNorm(before, CHANNELS, 1)

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        """(B, 1280, ceil(H / 32), ceil(W / 32)) of (B, 3, H, W) pixels."""
        return (self.last(self.stacks(self.first(pixels))),)
