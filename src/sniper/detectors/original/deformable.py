"""Deformable convolution (arXiv 1703.06211) as the original computes it, with its rule at the borders of the map.

A sample counts only if ``0 <= y < H`` and ``0 <= x < W``; beyond the centres of the last row and column it keeps their
value. torchvision's operator fades to zero over a whole cell on every side instead, so it is called with places that
lie where the two agree. On a CPU its scalar loops are replaced by weighted sums of map cells.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import deform_conv2d

_NOWHERE = -2.0  # more than a cell outside any map: torchvision reads 0 there


class _Places(NamedTuple):
    """Where a convolution samples; G groups, T taps, H' and W' cells of its result."""

    y: Tensor  # (B, G, T, H', W') rows of the map, at most H - 1
    x: Tensor  # (B, G, T, H', W') columns, at most W - 1
    inside: Tensor  # (B, G, T, H', W') bool: the sample counts


class _Grid(NamedTuple):
    """Where it would sample with all offsets 0."""

    y: Tensor  # (T, H', 1)
    x: Tensor  # (T, 1, W')


def deformable_conv(
    features: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> Tensor:
    """(B, C', H', W') convolution of (B, C, H, W) ``features`` whose taps are moved by ``offset``, in map cells.

    ``weight`` is (C', C, h, w). ``offset`` is (B, G * h * w * 2, H', W'): for each of G groups of channels and each tap
    (row by row), dy and dx. Half precision is computed in float32. Where a tap hits a cell's centre exactly, the
    gradient of its offset is that towards the next cell; in the last row and column it is 0.
    """
    dtype = torch.promote_types(features.dtype, torch.float32)
    way = _sum_of_cells if features.device.type == "cpu" else at_places
    given = (features.to(dtype), offset.to(dtype), weight.to(dtype), bias if bias is None else bias.to(dtype))
    return way(*given, stride=stride, padding=padding, dilation=dilation).to(features.dtype)


def at_places(
    features: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: int,
    padding: int,
    dilation: int,
) -> Tensor:
    """The same by torchvision's operator, with offsets that lead where it agrees; all of one precision."""
    grid = _grid(weight, offset, stride, padding, dilation)
    places = _places(grid, offset, (features.shape[2], features.shape[3]))
    moved = torch.stack((torch.where(places.inside, places.y, _NOWHERE) - grid.y, places.x - grid.x), dim=3)
    out: Tensor = deform_conv2d(
        features, moved.view(offset.shape), weight, bias, stride=stride, padding=padding, dilation=dilation
    )
    return out


def _grid(weight: Tensor, offset: Tensor, stride: int, padding: int, dilation: int) -> _Grid:
    down, across, rows, columns = (
        torch.arange(n, dtype=offset.dtype, device=offset.device) for n in (*weight.shape[2:], *offset.shape[2:])
    )
    y = down.repeat_interleave(len(across))[:, None, None] * dilation + rows[:, None] * stride
    x = across.repeat(len(down))[:, None, None] * dilation + columns * stride
    return _Grid(y - padding, x - padding)


def _places(grid: _Grid, offset: Tensor, map_hw: tuple[int, int]) -> _Places:
    images, _, rows, columns = offset.shape
    shift = offset.reshape(images, -1, grid.y.shape[0], 2, rows, columns)
    y, x = grid.y + shift[:, :, :, 0], grid.x + shift[:, :, :, 1]
    height, width = map_hw
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    # In the last row and column a constant: no gradient moves the tap there.
    y = torch.where(inside & (y < height - 1), y, height - 1)
    return _Places(y, torch.where(inside & (x < width - 1), x, width - 1), inside)


def _sum_of_cells(
    features: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: int,
    padding: int,
    dilation: int,
) -> Tensor:
    """Each sample as the weighted sum of four map cells, all channels of a group at once; then one product."""
    grid = _grid(weight, offset, stride, padding, dilation)
    places = _places(grid, offset, (features.shape[2], features.shape[3]))
    images, channels, height, width = features.shape
    groups, taps = places.y.shape[1:3]
    y, x, inside = (part.permute(0, 3, 4, 2, 1) for part in places)  # (B, H', W', T, G): a row of the product each
    rows, down = _neighbours(y, height)
    columns, across = _neighbours(x, width)
    image = torch.arange(images, device=features.device).view(-1, 1, 1, 1, 1, 1, 1)
    group = torch.arange(groups, device=features.device).view(-1, 1, 1)
    cell = ((image * height + rows.unsqueeze(-1)) * width + columns.unsqueeze(-2)) * groups + group
    share = down.unsqueeze(-1) * (across * inside.unsqueeze(-1)).unsqueeze(-2)
    # Of one image without groups the table would be a view whose rows lie far apart: twenty times as slow.
    flat = features.permute(0, 2, 3, 1).reshape(-1, channels // groups).contiguous()
    samples = functional.embedding_bag(cell.view(-1, 4), flat, per_sample_weights=share.reshape(-1, 4), mode="sum")
    product = functional.linear(
        samples.view(-1, taps * channels), weight.flatten(2).transpose(1, 2).reshape(weight.shape[0], -1), bias
    )
    return product.view(images, *y.shape[1:3], weight.shape[0]).permute(0, 3, 1, 2)


def _neighbours(place: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """(..., 2) cells around ``place`` on one axis of the map, and what they weigh."""
    before = place.detach().floor().clamp(0, length - 1)
    beyond = place - before
    cell = before.long()
    return torch.stack((cell, (cell + 1).clamp(max=length - 1)), dim=-1), torch.stack((1 - beyond, beyond), dim=-1)


class DeformableConv(nn.Module):
    """A deformable convolution without bias, and the convolution that says where its taps go.

    The latter starts at zero: an ordinary dilated convolution, if the map had one more row and column of samples.
    """

    def __init__(self, in_channels: int, channels: int, *, kernel: int = 3, dilation: int = 1, groups: int = 4) -> None:
        super().__init__()
        self.dilation, self.padding = dilation, kernel // 2 * dilation
        self.weight = nn.Parameter(torch.empty(channels, in_channels, kernel, kernel))
        self.offset = nn.Conv2d(
            in_channels, groups * kernel * kernel * 2, kernel, padding=self.padding, dilation=dilation
        )
        nn.init.normal_(self.weight, std=(2 / (in_channels * kernel * kernel)) ** 0.5)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels, H, W) of (B, in_channels, H, W) ``features``."""
        return deformable_conv(
            features, self.offset(features), self.weight, padding=self.padding, dilation=self.dilation
        )
