"""RoIAlign over the maps of a pyramid as one operator: which region belongs to which map depends on the data."""

import torch
from torch import Tensor
from torchvision.ops import roi_align


@torch.library.custom_op("sniper::roi_align_levels", mutates_args=())
def roi_align_levels(
    maps: list[Tensor], regions: Tensor, level: Tensor, scales: list[float], cells: int, samples: int
) -> Tensor:
    """(R, F, cells, cells): each of (R, 5) ``regions`` (image, xyxy in network px) cut out of its own map.

    ``maps`` are (B, F, h, w), ``level`` (R,) says which of them, ``scales`` are cells per network px. As
    ``torchvision.ops.MultiScaleRoIAlign``; ``sniper.to_onnx`` writes it with ONNX's RoiAlign.
    """
    cut = regions.new_zeros(len(regions), maps[0].shape[1], cells, cells)
    for number, (one, scale) in enumerate(zip(maps, scales, strict=True)):
        rows = torch.where(level == number)[0]
        cut[rows] = roi_align(one, regions[rows], cells, scale, samples)
    return cut


@roi_align_levels.register_fake
def _shape(maps: list[Tensor], regions: Tensor, level: Tensor, scales: list[float], cells: int, samples: int) -> Tensor:
    return regions.new_empty(regions.shape[0], maps[0].shape[1], cells, cells)
