"""The detection and context modules of SSH (arXiv 1708.03979, sections 3.2 and 3.3)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sniper.nn.initial import initialise


class AnchorMaps(NamedTuple):
    """What a module says of its A anchors, row by row, cell by cell; float32 whatever the precision around."""

    logits: Tensor  # (B, A, 1 + C): background, then the classes
    deltas: Tensor  # (B, A, 4) box deltas


class Context(nn.Module):
    """Filters of 5 x 5 and 7 x 7 px as stacks of 3 x 3, the first of which both share: 2 * ``channels`` features."""

    def __init__(self, inputs: int, channels: int, *, norm: bool) -> None:
        super().__init__()
        self.shared = _conv(inputs, channels, norm=norm)
        self.five = _conv(channels, channels, norm=norm, relu=False)
        self.seven = nn.Sequential(
            *_conv(channels, channels, norm=norm), *_conv(channels, channels, norm=norm, relu=False)
        )

    def forward(self, features: Tensor) -> list[Tensor]:
        """Two maps (B, channels, H, W) of (B, F, H, W), before the ReLU."""
        shared = self.shared(features)
        return [self.five(shared), self.seven(shared)]


class DetectionModule(nn.Module):
    """A 3 x 3 convolution beside the context module; 1 x 1 convolutions score each anchor and move it."""

    def __init__(
        self, inputs: int, channels: int, num_classes: int, *, anchors: int, background_logits: int, norm: bool
    ) -> None:
        super().__init__()
        self.num_classes, self.anchors = num_classes, anchors
        self.plain = _conv(inputs, channels, norm=norm, relu=False)
        self.context = Context(inputs, channels // 2, norm=norm)
        # Apart, so that the rows of classes can be taken over by name in fine-tuning.
        self.background = nn.Conv2d(2 * channels, anchors * background_logits, 1)
        self.objects = nn.Conv2d(2 * channels, anchors * num_classes, 1)
        self.deltas = nn.Conv2d(2 * channels, anchors * 4, 1)
        for layer in (self.background, self.objects, self.deltas):
            initialise(layer, std=0.01)

    def forward(self, features: Tensor) -> AnchorMaps:
        """Maps of (B, F, H, W) ``features``."""
        hidden = functional.relu(torch.cat([self.plain(features), *self.context(features)], dim=1), inplace=True)
        background, objects = self._by_anchor(self.background(hidden)), self._by_anchor(self.objects(hidden))
        logits = torch.cat([background.amax(dim=2, keepdim=True), objects], dim=2)
        return AnchorMaps(logits, self._by_anchor(self.deltas(hidden)))

    def _by_anchor(self, maps: Tensor) -> Tensor:
        """(B, H * W * anchors, values) of (B, anchors * values, H, W)."""
        return maps.float().permute(0, 2, 3, 1).reshape(maps.shape[0], -1, maps.shape[1] // self.anchors)


class Fusion(nn.Module):
    """What the finest module sees: the map of stride 8 and that of stride 16, enlarged, projected and added up."""

    def __init__(self, fine: int, coarse: int, channels: int, *, norm: bool) -> None:
        super().__init__()
        self.fine, self.coarse = (
            _conv(fine, channels, kernel=1, norm=norm),
            _conv(coarse, channels, kernel=1, norm=norm),
        )
        self.smooth = _conv(channels, channels, norm=norm)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """(B, channels, H, W) of (B, ..., H, W) and (B, ..., H / 2, W / 2), rounded up."""
        fine, coarse = self.fine(fine), self.coarse(coarse)
        rows, columns = fine.shape[2:]
        enlarged = functional.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)
        fused: Tensor = self.smooth(fine + enlarged[:, :, :rows, :columns])
        return fused


def _conv(inputs: int, outputs: int, *, kernel: int = 3, norm: bool, relu: bool = True) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=not norm)
    if norm:
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    else:
        initialise(conv, std=0.01)
    layers: list[nn.Module] = [conv, nn.BatchNorm2d(outputs)] if norm else [conv]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)
