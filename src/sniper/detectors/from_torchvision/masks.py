"""The mask branch of Mask R-CNN: what it learns, and masks of boxes that are left after levels are merged."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import maskrcnn_loss

from sniper.nn.mask_targets import mask_targets
from sniper.structures import Batch


class Learned(NamedTuple):
    """The regions that train the second stage, a tensor for each chip."""

    regions: list[Tensor]  # (R, 4) network px
    labels: list[Tensor]  # (R,) the network's own, 0 for background
    matched: list[Tensor]  # (R,) place among the valid objects of the chip


def loss(heads: Any, maps: dict[str, Tensor], learned: Learned, batch: Batch, padded_hw: tuple[int, int]) -> Tensor:
    """The library's mask loss of the regions with an object that has an outline."""
    regions, labels, places, drawn = [], [], [], []
    assert batch.polygons is not None
    for row, (own, label, matched) in enumerate(zip(*learned, strict=True)):
        outlines = batch.polygons[row, batch.valid[row]]
        kept = torch.where(label > 0)[0]
        kept = kept[outlines[matched[kept], 1] > 0] if len(outlines) else kept[:0]
        objects, place = torch.unique(matched[kept], return_inverse=True)
        regions.append(own[kept])
        labels.append((batch.labels[row, batch.valid[row]] + 1)[objects])
        places.append(place)
        drawn.append(_drawn(outlines[objects], max(padded_hw)))
    logits = heads.mask_predictor(heads.mask_head(heads.mask_roi_pool(maps, regions, [padded_hw] * len(regions))))
    found: Tensor = maskrcnn_loss(logits.float(), regions, drawn, labels, places)
    return found


def packed(heads: Any, maps: dict[str, Tensor]) -> Tensor:
    """(B, F, h, w): the maps that masks are cut from as one: the finest above, the others side by side below it."""
    first, *others = (maps[name] for name in heads.mask_roi_pool.featmap_names)
    if not others:
        return first
    below = first.new_zeros(*first.shape[:2], others[0].shape[2], first.shape[3])
    left = 0
    for one in others:
        below[:, :, : one.shape[2], left : left + one.shape[3]] = one
        left += one.shape[3]
    return torch.cat((first, below), dim=2)


def predicted(heads: Any, features: Tensor, strides: list[int], boxes: Tensor, labels: Tensor) -> Tensor:
    """(N, M, M) probabilities that a cell of (N, 4) ``boxes`` (network px) is inside the object.

    ``features`` (F, h, w) are what ``packed`` made of maps of these ``strides``, ``labels`` (N,) the network's own.
    """
    maps = dict(zip(heads.mask_roi_pool.featmap_names, _unpacked(features.unsqueeze(0), strides), strict=True))
    height, width = (side * strides[0] for side in next(iter(maps.values())).shape[2:])
    pooled = heads.mask_roi_pool(maps, [boxes.to(features.dtype)], [(height, width)])
    logits = heads.mask_predictor(heads.mask_head(pooled))
    return logits[torch.arange(len(labels), device=labels.device), labels].float().sigmoid()


def _unpacked(features: Tensor, strides: list[int]) -> list[Tensor]:
    """The maps of these strides that (1, F, h, w) features are packed of."""
    if len(strides) == 1:
        return [features]
    rows = round(features.shape[2] / (1 + strides[0] / strides[1]))
    maps, left = [features[:, :, :rows]], 0
    for stride in strides[1:]:
        height, width = (side * strides[0] // stride for side in (rows, features.shape[3]))
        maps.append(features[:, :, rows : rows + height, left : left + width])
        left += width
    return maps


def _drawn(outlines: Tensor, side: int) -> Tensor:
    """(N, side, side) uint8: 1 inside the object of each of (N, P) outlines, which are in network px."""
    whole = outlines.new_tensor([0, 0, side, side], dtype=torch.float32).expand(len(outlines), 4)
    return mask_targets(outlines, whole, torch.arange(len(outlines), device=outlines.device), side).to(torch.uint8)
