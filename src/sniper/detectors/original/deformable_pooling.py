"""Deformable RoI pooling (arXiv 1703.06211) as the original computes it, position-sensitive or not.

The samples of a bin form a grid, so their mean is a sum of map cells, each weighed by a row factor times a column
factor. The samples themselves, sixteen times the result, are never held.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

SAMPLES = 4  # per bin and axis
SHIFT_SCALE = 0.1  # a shift of 1 moves a bin by a tenth of its region
REGIONS_AT_ONCE = 512
_LEAST_EXTENT = 0.1  # of a region, in map cells


class _Bins(NamedTuple):
    """The bins of K regions, P x P each, in map cells; P rows and P columns."""

    x: Tensor  # (K, P, P) first column sampled
    y: Tensor  # (K, P, P) first row sampled
    step: Tensor  # (K, 2) between samples, x and y


def deformable_pool(
    features: Tensor,
    image: Tensor,
    boxes: Tensor,
    shifts: Tensor | None = None,
    *,
    stride: int,
    cells: int = 7,
    groups: int = 1,
    samples: int = SAMPLES,
    shift_scale: float = SHIFT_SCALE,
    regions_at_once: int = REGIONS_AT_ONCE,
) -> Tensor:
    """(K, F / groups**2, cells, cells) features of (K, 4) ``boxes`` of the images ``image`` (K,).

    ``features`` are (B, F, H, W); half precision is computed in float32. ``boxes`` are network px in the original's
    inclusive convention (a half-open box minus (0, 0, 1, 1)); their corners are rounded to whole px, halves away from
    zero. ``shifts`` (K, 2, cells, cells) moves each bin by ``shift_scale`` times the extent of its region, x first;
    None moves none. Samples start at the corner of a bin, ``bin / samples`` apart. Those more than half a cell outside
    the map do not count; a bin without any is 0. With ``groups`` > 1, output channel c of a bin in part g of the
    groups x groups parts of its region (row by row) reads input channel ``c * groups**2 + g``.

    Gradients reach ``features`` and ``shifts`` (none where a sample hits a cell's centre exactly, or beyond the map).

    Memory: for the backward pass a bin keeps at most ``4 * samples**2`` cells (64), 20 bytes each: 63 kB a region with
    7 x 7 bins. While ``regions_at_once`` are weighed, about as much again for each of these. 16 chips x 300 regions x
    256 channels in float32: result and gradient 0.24 GB each, as much again for their order and layout, 0.30 GB kept at
    most, 0.03 GB in passing. Measured on a CPU, forward and backward: 0.93 GB. (All samples in one tensor would be
    3.9 GB, their gradient as much again.) Compiled, all regions are weighed at once.
    """
    dtype = torch.promote_types(features.dtype, torch.float32)
    bins = _bins(boxes.to(dtype), shifts, stride, cells, samples, shift_scale)
    batch, channels, height, width = features.shape
    flat = features.to(dtype).view(batch, -1, groups, groups, height, width).permute(0, 2, 3, 4, 5, 1)
    flat = flat.reshape(-1, channels // groups**2).contiguous()  # of one image it would be a view with slow rows
    part = torch.arange(cells, device=boxes.device, dtype=torch.int32) * groups // cells
    first_row = ((image.int().view(-1, 1, 1) * groups + part.view(-1, 1)) * groups + part) * height  # (K, cells, cells)

    order, passes = _passes(bins, samples, (height, width), regions_at_once)
    pooled = []
    for index, taps in passes:
        step_x, step_y = bins.step[index].unbind(1)
        columns, across = _weights(bins.x[index], step_x, samples, width, taps)
        rows, down = _weights(bins.y[index], step_y, samples, height, taps)
        cell = (first_row[index].unsqueeze(-1) + rows).unsqueeze(-1) * width + columns.unsqueeze(-2)
        weight = (down.unsqueeze(-1) * across.unsqueeze(-2)).view(-1, taps * taps)
        pooled.append(functional.embedding_bag(cell.view(-1, taps * taps), flat, per_sample_weights=weight, mode="sum"))
    together = (torch.cat(pooled) if len(pooled) > 1 else pooled[0]).view(-1, cells, cells, flat.shape[1])
    result = together if order is None else together[order.argsort()]
    return result.permute(0, 3, 1, 2).to(features.dtype)


def _bins(boxes: Tensor, shifts: Tensor | None, stride: int, cells: int, samples: int, shift_scale: float) -> _Bins:
    whole = boxes.trunc()
    rounded = whole + boxes.sign() * ((boxes - whole).abs() >= 0.5)
    corner = rounded[:, :2] / stride - 0.5
    extent = ((rounded[:, 2:] + 1) / stride - 0.5 - corner).clamp(min=_LEAST_EXTENT)
    size = extent / cells
    steps = torch.arange(cells, device=boxes.device, dtype=boxes.dtype)
    x, y = (corner[:, :, None] + steps * size[:, :, None]).unbind(1)
    x, y = x[:, None, :].expand(-1, cells, -1), y[:, :, None].expand(-1, -1, cells)
    if shifts is not None:
        moved = shifts.to(boxes.dtype) * shift_scale * extent[:, :, None, None]
        x, y = x + moved[:, 0], y + moved[:, 1]
    return _Bins(x, y, size / samples)


def _passes(
    bins: _Bins, samples: int, map_hw: tuple[int, int], at_once: int
) -> tuple[Tensor | None, Iterator[tuple[Tensor | slice, int]]]:
    """The regions in an order, and which of them are pooled together over how many cells of each axis.

    Samples of a small region share their cells: where the 2 * samples cells of an axis are fewer, regions of equal need
    come together. Looking up these needs would break a compiled graph, so that takes all regions and cells at once;
    and the host would wait for a GPU, so that takes all cells.
    """
    max_count, total = 2 * samples, len(bins.x)
    if torch.compiler.is_compiling() or total == 0:
        return None, iter([(slice(None), max_count)])
    if bins.x.device.type != "cpu":
        return None, ((slice(start, start + at_once), max_count) for start in range(0, total, at_once))
    with torch.no_grad():
        need = torch.ones_like(bins.step, dtype=torch.int64)[:, 0]
        for first, step, length in ((bins.x, bins.step[:, 0], map_hw[1]), (bins.y, bins.step[:, 1], map_hw[0])):
            last = (first + step.view(-1, 1, 1) * (samples - 1)).clamp(0, length - 1).ceil()
            across = (last - first.clamp(0, length - 1).floor()).flatten(1).amax(dim=1)
            need = need.maximum(across.long() + 1)
        need = need.clamp(max=max_count)
        order = need.argsort()
        counts = torch.bincount(need).tolist()

    def passes() -> Iterator[tuple[Tensor | slice, int]]:
        start = 0
        for taps, count in enumerate(counts):
            for index in torch.split(order[start : start + count], at_once) if count else ():
                yield index, taps
            start += count

    return order, passes()


def _weights(first: Tensor, step: Tensor, samples: int, length: int, taps: int) -> tuple[Tensor, Tensor]:
    """(K, P, P, taps) cells along one axis of the map, and what they weigh in the mean of the samples that count."""
    steps = torch.arange(samples, device=first.device, dtype=first.dtype)
    place = first.unsqueeze(-1) + step.view(-1, 1, 1, 1) * steps
    counts = ((place >= -0.5) & (place <= length - 0.5)).to(first.dtype)
    share = counts / counts.sum(dim=-1, keepdim=True).clamp(min=1)
    place = place.clamp(0, length - 1)
    before = place.detach().floor()
    if taps == 2 * samples:  # the two cells around each sample
        after = place.detach().ceil()  # the same cell where the sample hits a centre: there the gradient vanishes
        beyond = place - before
        cell = torch.stack((before, after), dim=-1).flatten(-2)
        weight = torch.stack(((1 - beyond) * share, beyond * share), dim=-1).flatten(-2)
        return cell.int().clamp(0, length - 1), weight
    cell = before[..., :1] + torch.arange(taps, device=first.device, dtype=first.dtype)
    near = functional.relu(1 - (place.unsqueeze(-1) - cell.unsqueeze(-2)).abs())  # (K, P, P, samples, taps)
    weight = (near * share.unsqueeze(-1)).sum(dim=-2)
    return cell.int().clamp(0, length - 1), weight
