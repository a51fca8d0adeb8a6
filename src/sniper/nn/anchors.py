"""Anchors: the boxes that every cell of the feature map starts from."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sniper.nn.config import AnchorConfig, Rounding

_ROUND: dict[str, Callable[[float], float]] = {
    "exact": lambda value: value,
    "half_even": lambda value: float(round(value)),
    "half_up": lambda value: float(math.floor(value + 0.5)),
}


def base_anchors(
    stride: int, scales: tuple[float, ...], ratios: tuple[float, ...], rounding: Rounding = "exact"
) -> Tensor:
    """(A, 4) float32 anchors of the first cell, xyxy px, centred on ``stride / 2``.

    Ratio-major, scale-minor: index = ratio index * number of scales + scale index. ``half_even`` are the training
    anchors of the original (NumPy), ``half_up`` those of its proposal operators (C++).
    """
    to_whole = _ROUND[rounding]
    boxes = []
    for ratio in ratios:
        width = to_whole(math.sqrt(stride * stride / ratio))
        height = to_whole(width * ratio)
        for scale in scales:
            half = (width * scale / 2, height * scale / 2)
            boxes.append([stride / 2 - half[0], stride / 2 - half[1], stride / 2 + half[0], stride / 2 + half[1]])
    return torch.tensor(boxes, dtype=torch.float32)


class Anchors(nn.Module):
    """Anchors of a whole map: cell (row, column) is centred on ``(column + 0.5, row + 0.5) * stride``."""

    base: Tensor

    def __init__(self, stride: int, config: AnchorConfig) -> None:
        super().__init__()
        self.stride = stride
        self.register_buffer(
            "base", base_anchors(stride, config.scales, config.ratios, config.rounding), persistent=False
        )

    @property
    def per_cell(self) -> int:
        """Anchors of one cell."""
        return self.base.shape[0]

    def forward(self, map_hw: tuple[int, int]) -> Tensor:
        """(H * W * per_cell, 4) float32 xyxy px, row by row, cell by cell."""
        rows, columns = (torch.arange(n, device=self.base.device, dtype=torch.float32) * self.stride for n in map_hw)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        corners = torch.stack((x, y, x, y), dim=-1).view(-1, 1, 4)
        return (corners + self.base.float()).view(-1, 4)
