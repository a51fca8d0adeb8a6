"""Several maps of a backbone as one, at the stride of the finest."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from sniper.nn.initial import initialise


class Concatenation(nn.Module):
    """All channels of all maps, coarser maps enlarged: what the original does with its two last stages."""

    def __init__(self, map_channels: tuple[int, ...]) -> None:
        super().__init__()
        self.channels = sum(map_channels)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """(B, sum of channels, H, W) of maps (B, ..., H or less, W or less), finest first."""
        return torch.cat([enlarge(one, maps[0]) for one in maps], dim=1) if len(maps) > 1 else maps[0]


class Projection(nn.Module):
    """The sum of a 1x1 convolution of each map.

    The same as one 1x1 convolution of their concatenation, but the coarse maps are projected before they are enlarged:
    the proposal network then sees a few channels where it would see hundreds.
    """

    def __init__(self, map_channels: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.channels = channels
        first, *others = map_channels
        lateral = [nn.Conv2d(first, channels, 1), *(nn.Conv2d(given, channels, 1, bias=False) for given in others)]
        for layer in lateral:
            initialise(layer, std=sum(map_channels) ** -0.5)
        self.lateral = nn.ModuleList(lateral)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """(B, channels, H, W) of maps (B, ..., H or less, W or less), finest first."""
        projected = [layer(one) for layer, one in zip(self.lateral, maps, strict=True)]
        total: Tensor = projected[0]
        for one in projected[1:]:
            total = total + enlarge(one, total)
        return total


def enlarge(coarse: Tensor, fine: Tensor) -> Tensor:
    """``coarse`` by a whole power of two, cut to the rows and columns of ``fine``.

    A whole factor keeps every cell over the pixels that it saw, whatever the size of the padded input.
    """
    rows, columns = fine.shape[2:]
    if torch.compiler.is_exporting():  # sizes are not known yet, but that the factor is whole
        return functional.interpolate(coarse, size=(rows, columns), mode="nearest")
    if coarse.shape[2:] == fine.shape[2:]:
        return coarse
    needed = max(-(-rows // coarse.shape[2]), -(-columns // coarse.shape[3]))
    factor = 1 << (needed - 1).bit_length()
    return functional.interpolate(coarse, scale_factor=float(factor), mode="nearest")[:, :, :rows, :columns]
