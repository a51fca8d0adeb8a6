"""Where the cells of a detector's maps lie on its input, and the anchors on them.

The library divides the padded input by the cells of a map, which is the stride of the map only where nothing was
rounded up. Chips and windows come in many sizes, so the strides are measured once and anchors lie where the cells are.
"""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d

PROBE_PX = (512, 1024)  # sides of two inputs that tell strides: multiples of the largest
# They keep the shape, and without a device take as long as all else.
SHAPE_KEEPING = (nn.BatchNorm2d, FrozenBatchNorm2d, nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.SiLU)


class MapGeometry(NamedTuple):
    """One map of a feature pyramid: cell ``i`` is centred at ``(i + skipped + 0.5) * stride`` network px."""

    stride: int
    skipped: float  # cells that convolutions without padding have cut off at the left and at the top
    channels: int


@torch.no_grad()
def geometry_of(backbone: nn.Module) -> tuple[MapGeometry, ...]:
    """The maps of a backbone, finest first; nothing is computed, the shapes alone tell."""
    probe = copy.deepcopy(backbone).to("meta").eval()
    for parent in list(probe.modules()):
        for name, child in parent.named_children():
            if isinstance(child, SHAPE_KEEPING):
                setattr(parent, name, nn.Identity())
    small, large = (list(maps_of(probe, torch.empty(1, 3, side, side, device="meta")).values()) for side in PROBE_PX)
    found = []
    for one, other in zip(small, large, strict=True):
        stride = (PROBE_PX[1] - PROBE_PX[0]) // max(other.shape[-1] - one.shape[-1], 1)
        found.append(MapGeometry(stride, (PROBE_PX[0] / stride - one.shape[-1]) / 2, one.shape[1]))
    return tuple(found)


def maps_of(backbone: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
    """The maps by name, finest first; a backbone may give one alone."""
    maps = backbone(pixels)
    return {"0": maps} if isinstance(maps, Tensor) else maps


def anchors_of(generator: AnchorGenerator, maps: list[Tensor], geometry: tuple[MapGeometry, ...]) -> list[Tensor]:
    """(A, 4) anchors of each map, network px; those of the library where the input is a multiple of every stride."""
    generator.set_cell_anchors(torch.float32, maps[0].device)
    sizes, strides = [list(one.shape[-2:]) for one in maps], [[one.stride] * 2 for one in geometry]
    found: list[Tensor] = generator.grid_anchors(sizes, strides)
    return found


def default_boxes_of(
    generator: DefaultBoxGenerator,
    maps: list[Tensor],
    geometry: tuple[MapGeometry, ...],
    padded_hw: tuple[int, int],
    own_px: int,
) -> Tensor:
    """(A, 4) default boxes of SSD, network px.

    The library's are shares of its one input size, ``own_px``. Here they keep these sizes on any input, or a window of
    another shape would have other objects. On an input of just that size they are the library's own.
    """
    if padded_hw == (own_px, own_px):
        own: Tensor = generator(ImageList(maps[0].new_empty(1, 3, *padded_hw), [padded_hw]), maps)[0]
        return own
    boxes = []
    for one, place, shares in zip(maps, geometry, generator._wh_pairs, strict=True):
        y, x = (
            (torch.arange(cells, device=one.device) + (place.skipped + 0.5)) * place.stride for cells in one.shape[-2:]
        )
        centre = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).reshape(-1, 1, 2)
        half_wh = shares.to(one.device).clamp(0, 1) * (own_px / 2)
        boxes.append(torch.cat((centre - half_wh, centre + half_wh), dim=-1).reshape(-1, 4))
    return torch.cat(boxes)
