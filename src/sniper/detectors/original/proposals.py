"""The original's proposals and what its second stage trains on, number for number.

Everything here is in its inclusive convention: a box reaches from the first to the last pixel that it covers, so its
width is ``x2 - x1 + 1`` (a half-open box minus (0, 0, 1, 1)). Only networks from original checkpoints need this.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sniper.detectors.original.config import OriginalProposalConfig
from sniper.nn.box_deltas import REGION_WEIGHTS
from sniper.nn.proposals import Proposals
from sniper.nn.rpn import RegionMaps
from sniper.nn.sampling import gather_boxes
from sniper.nn.suppress import keep_greedily

_DUMMY_PX = 200.0  # side of the boxes that fill up missing proposals
_DUMMY_PLACES = 100


class OriginalRegionTargets(NamedTuple):
    """What the second stage learns from R regions of each of B chips: all of them train."""

    boxes: Tensor  # (B, R, 4) inclusive xyxy, network px
    labels: Tensor  # (B, R) int64: 0 background, class index + 1 otherwise
    target_deltas: Tensor  # (B, R, 4) box deltas to learn where the label is > 0; 1 elsewhere
    objects: Tensor  # (B, R) int64 index of the object; -1 where the label is 0
    found: Tensor  # (B,) int64: the first so many boxes are proposals, then dummies; objects overwrite the last


def decode_inclusive(anchors: Tensor, deltas: Tensor, valid_hw: Tensor) -> Tensor:
    """(B, A, 4) boxes from inclusive (A, 4) ``anchors`` and (B, A, 4) ``deltas``, clipped to (B, 2) ``valid_hw``."""
    size = anchors[:, 2:] - anchors[:, :2] + 1
    centre = deltas[..., :2] * size + (anchors[:, :2] + 0.5 * (size - 1))
    reach = 0.5 * (deltas[..., 2:].exp() * size - 1)
    last = valid_hw.flip(-1).repeat(1, 2).unsqueeze(1).to(deltas.dtype) - 1
    return torch.cat((centre - reach, centre + reach), dim=-1).minimum(last).clamp(min=0)


@torch.no_grad()
def propose_original(
    maps: RegionMaps,
    anchors: Tensor,
    valid_hw: Tensor,
    scale: Tensor,
    map_hw: tuple[int, int],
    stride: int,
    config: OriginalProposalConfig,
) -> Proposals:
    """Decode, clip, rank, suppress exactly and greedily, keep the best; boxes and anchors inclusive.

    ``anchors`` are those of rounding ``half_up`` minus (0, 0, 1, 1), cell by cell; ``valid_hw`` (B, 2) px, ``scale``
    (B,). The original fills up to 300 with random boxes of score 0; here ``present`` says which are regions. Regions
    that MXNet ranks last on purpose have score -1.
    """
    boxes = decode_inclusive(anchors, maps.deltas, valid_hw)
    mxnet = config.semantics == "mxnet"
    min_count = config.min_px * scale.view(-1, 1) if mxnet else torch.full_like(scale, config.min_px).view(-1, 1)
    tiny = (boxes[..., 2:] - boxes[..., :2] + 1).amin(dim=-1) < min_count
    last = tiny
    if mxnet:
        grow = torch.where(tiny, min_count / 2, 0).unsqueeze(-1)
        boxes = torch.cat((boxes[..., :2] - grow, boxes[..., 2:] + grow), dim=-1)
        last = tiny | _over_padding(valid_hw, map_hw, stride, boxes.shape[1])
    logits, order = maps.objectness.masked_fill(last, -torch.inf).sort(dim=1, descending=True, stable=True)
    logits, order = logits[:, : config.before_nms], order[:, : config.before_nms]
    boxes = gather_boxes(boxes, order)
    candidates = torch.full_like(order[:, 0], order.shape[1]) if mxnet else (logits > -torch.inf).sum(dim=1)
    kept, counts = keep_greedily(
        boxes, candidates, config.keep, config.nms_iou, plus_one_sides=True, plus_one_areas=True
    )
    slots = torch.arange(config.keep, device=kept.device).expand_as(kept)
    present = slots < counts.unsqueeze(1)
    if mxnet:
        kept = kept.gather(1, slots % counts.clamp(min=1).unsqueeze(1))
        present = torch.ones_like(present) & (counts > 0).unsqueeze(1)
    best = logits.gather(1, kept)
    scores = torch.where(best > -torch.inf, best.sigmoid(), -1)
    empty = ~present
    return Proposals(
        gather_boxes(boxes, kept).masked_fill(empty.unsqueeze(-1), 0), scores.masked_fill(empty, 0), present
    )


def _over_padding(valid_hw: Tensor, map_hw: tuple[int, int], stride: int, count: int) -> Tensor:
    """(B, A) bool: anchors of the cells that start beyond the picture (its last, partial cell counts as beyond)."""
    shown = torch.div(valid_hw, stride, rounding_mode="floor")
    rows, columns = (torch.arange(n, device=valid_hw.device) for n in map_hw)
    beyond = (rows >= shown[:, :1]).unsqueeze(2) | (columns >= shown[:, 1:]).unsqueeze(1)
    return beyond.flatten(1).repeat_interleave(count // (map_hw[0] * map_hw[1]), dim=1)


@torch.no_grad()
def original_region_targets(
    maps: RegionMaps,
    anchors: Tensor,
    valid_hw: Tensor,
    objects: Tensor,
    labels: Tensor,
    range_px: Tensor,
    *,
    keep: int = 300,
    nms_iou: float = 0.7,
    positive_iou: float = 0.5,
    variant: Literal["box", "mask"] = "box",
) -> OriginalRegionTargets:
    """The regions of each chip with the classes and boxes to learn (the original's ``MultiProposalTarget``).

    ``anchors`` (A, 4) and ``objects`` (B, N, 4) are inclusive; ``labels`` (B, N) are class indices, -1 in empty slots;
    ``range_px`` (B, 2) is the valid range as sqrt(area). Only regions are judged by range: objects out of range are
    learned too, where a region overlaps them, but do not become regions themselves. Missing regions are dummies.
    Regions whose both sides are under 3 px are dropped. ``variant="mask"`` is that of the mask networks: 6,000 anchors
    enter suppression, objects fill the end in reverse, and the range is open above.
    """
    images, slots = torch.arange(len(objects), device=objects.device), torch.arange(keep, device=objects.device)
    boxes = decode_inclusive(anchors, maps.deltas, valid_hw)
    side = boxes[..., 2:] - boxes[..., :2]
    area, square = side.prod(dim=-1), range_px.to(boxes.dtype).square()
    allowed = (side.amax(dim=-1) >= 3) & (area >= square[:, :1]) & (area < square[:, 1:])
    logits, order = maps.objectness.masked_fill(~allowed, -torch.inf).sort(dim=1, descending=True, stable=True)
    boxes = gather_boxes(boxes, order)
    candidates = (logits > -torch.inf).sum(dim=1)
    if variant == "mask":
        candidates = candidates.clamp(max=6000)
    kept, found = keep_greedily(boxes, candidates, keep, nms_iou, plus_one_sides=True)
    start = (images.unsqueeze(1) * (anchors.shape[0] if variant == "box" else 0) + slots) % _DUMMY_PLACES
    dummies = torch.stack((start, start, start + _DUMMY_PX, start + _DUMMY_PX), dim=-1).to(boxes.dtype)
    rois = torch.where((slots < found.unsqueeze(1)).unsqueeze(-1), gather_boxes(boxes, kept), dummies)
    rois = _with_objects(rois, objects, labels >= 0, square, variant)
    return _label(rois, objects, labels, found, positive_iou)


def _with_objects(rois: Tensor, objects: Tensor, used: Tensor, square: Tensor, variant: str) -> Tensor:
    """The last regions overwritten by the objects in range."""
    keep = rois.shape[1]
    area = (objects[..., 2:] - objects[..., :2]).prod(dim=-1)
    below = area <= square[:, 1:] if variant == "box" else area < square[:, 1:]
    rank = used.cumsum(dim=1) - 1
    row = keep - used.sum(dim=1, keepdim=True) + rank if variant == "box" else keep - 1 - rank
    # Those that overwrite nothing go into one more row, which is cut off again: no shape depends on their number.
    row = torch.where(used & (area >= square[:, :1]) & below & (row >= 0), row, keep)
    target = torch.cat((rois, rois[:, :1]), dim=1)
    return target.scatter(1, row.unsqueeze(-1).expand(-1, -1, 4), objects.to(rois.dtype))[:, :keep]


def _label(rois: Tensor, objects: Tensor, labels: Tensor, found: Tensor, positive_iou: float) -> OriginalRegionTargets:
    """Class and code of the object that each region overlaps most, if by more than ``positive_iou``."""
    if objects.shape[1] == 0:
        nothing = torch.zeros(rois.shape[:2], dtype=torch.int64, device=rois.device)
        return OriginalRegionTargets(rois, nothing, torch.ones_like(rois), nothing - 1, found)
    objects = objects.to(rois.dtype)
    first = rois[:, None, :, :2].maximum(objects[:, :, None, :2])
    shared = (rois[:, None, :, 2:].minimum(objects[:, :, None, 2:]) - first + 1).clamp(min=0).prod(dim=-1)
    area, own = ((b[..., 2:] - b[..., :2]).prod(dim=-1) for b in (rois, objects))
    overlap = shared / (own.unsqueeze(2) + area.unsqueeze(1) - shared)
    best, index = overlap.masked_fill((labels < 0).unsqueeze(-1), -1).max(dim=1)  # of equal ones the first
    positive = best > positive_iou
    target_deltas = torch.where(positive.unsqueeze(-1), encode_original(rois, gather_boxes(objects, index)), 1)
    classes = torch.where(positive, labels.gather(1, index) + 1, 0)
    return OriginalRegionTargets(rois, classes, target_deltas, index.masked_fill(~positive, -1), found)


def encode_original(regions: Tensor, objects: Tensor) -> Tensor:
    """(..., 4) codes of inclusive ``objects``, whose centres the original puts half a pixel further than a region's."""
    size, object_size = (b[..., 2:] - b[..., :2] + 1 for b in (regions, objects))
    shift = objects[..., :2] + object_size / 2 - (regions[..., :2] + (size - 1) / 2)
    return torch.cat((shift / size * REGION_WEIGHTS[0], (object_size / size).log() * REGION_WEIGHTS[1]), dim=-1)
