"""Which anchors learn an object, which are background, and which neither (``docs/method.md``, "Ignored objects")."""

from typing import NamedTuple

import torch
from torch import Tensor

from sniper.nn import box_deltas, overlaps
from sniper.nn.config import AnchorMatchConfig
from sniper.nn.ignore import ignored_anchors
from sniper.structures import ObjectState

# Overlaps that are held at once: on a GPU (64 MB an array), on a CPU (what stays in its caches: twice as fast).
MAX_PAIRS = (16_000_000, 1_000_000)


class AnchorMatch(NamedTuple):
    """Labels of all anchors of a batch."""

    labels: Tensor  # (B, A) int8: 1 positive, 0 background, -1 neither
    objects: Tensor  # (B, A) int64 index of the best valid object; only meaningful where the label is 1


def match_anchors(
    anchors: Tensor,
    boxes: Tensor,
    state: Tensor,
    valid_hw: Tensor,
    padded_hw: tuple[int, int],
    config: AnchorMatchConfig,
) -> AnchorMatch:
    """Label (A, 4) ``anchors`` shared by all chips against (B, N, 4) ``boxes`` with (B, N) ``state``; network px, xyxy.

    In this order, each rule overriding the ones before it:

    1. IoU with every valid object below ``negative_iou``: background.
    2. The best anchors of each valid object: positive, if they touch it at all. (The original also took all anchors
       that do not touch an object that no anchor touches.)
    3. IoU with a valid object of ``positive_iou`` or more: positive.
    4. IoU with an ignored object above ``ignore_iou``, or more than ``crowd_share`` of the anchor (of what it shows of
       the picture) inside a crowd region: neither, even if positive so far.
    5. Anchors that leave the padded input by more than ``border_px``, or lie wholly over padding (in the original
       these are background): neither.
    """
    labels = torch.full((len(boxes), len(anchors)), -1, dtype=torch.int8, device=anchors.device)
    objects = torch.zeros(labels.shape, dtype=torch.int64, device=anchors.device)
    near = _near(anchors, padded_hw, config.border_px)
    # A third of the anchors are too far out to compare. The host would wait for a GPU to count them.
    chosen: Tensor | slice = torch.where(near)[0] if anchors.device.type == "cpu" else slice(None)
    anchors, near = anchors[chosen].float(), near[chosen]
    if len(anchors) == 0:
        return AnchorMatch(labels, objects)
    trains = near & _over_picture(anchors, valid_hw)
    found = _match(anchors, trains, boxes.float(), state, valid_hw, config)
    labels[:, chosen] = found.labels
    objects[:, chosen] = found.objects
    return AnchorMatch(labels, objects)


def _match(
    anchors: Tensor, trains: Tensor, boxes: Tensor, state: Tensor, valid_hw: Tensor, config: AnchorMatchConfig
) -> AnchorMatch:
    """Labels of (A, 4) anchors, of which (B, A) ``trains`` have one; some objects at a time, to bound the memory."""
    teaches = (state == ObjectState.VALID).unsqueeze(-1)
    visible = overlaps.area(box_deltas.clip(anchors.expand(len(boxes), -1, 4), valid_hw))  # (B, A)
    overlap = torch.full(trains.shape, -1.0, device=anchors.device)  # with the best object so far
    objects = torch.zeros(trains.shape, dtype=torch.int64, device=anchors.device)
    is_best, neither = torch.zeros_like(trains), torch.zeros_like(trains)
    for some in _parts(boxes.shape[1], trains.numel(), MAX_PAIRS[anchors.device.type == "cpu"]):
        shared = overlaps.intersection(boxes[:, some], anchors[None])
        iou = overlaps.iou(boxes[:, some], anchors[None], shared)
        neither |= ignored_anchors(
            iou, shared, visible, state[:, some], ignore_iou=config.ignore_iou, crowd_share=config.crowd_share
        )
        iou.masked_fill_(~(teaches[:, some] & trains.unsqueeze(1)), -1)
        top = iou.amax(dim=2, keepdim=True)
        is_best |= ((iou == top) & (top > 0)).any(dim=1)
        best, index = iou.max(dim=1)
        objects = torch.where(best > overlap, index + some.start, objects)
        overlap = overlap.maximum(best)
    positive = is_best | (overlap >= config.positive_iou)
    labels = torch.where(positive, 1, torch.where(overlap < config.negative_iou, 0, -1))
    return AnchorMatch(labels.masked_fill(neither | ~trains, -1).to(torch.int8), objects)


def _near(anchors: Tensor, padded_hw: tuple[int, int], border_px: float) -> Tensor:
    """(A,) bool: anchors that stay within the border around the padded input."""
    height, width = padded_hw
    x1, y1, x2, y2 = anchors.unbind(-1)
    return (x1 >= -border_px) & (y1 >= -border_px) & (x2 <= width + border_px) & (y2 <= height + border_px)


def _over_picture(anchors: Tensor, valid_hw: Tensor) -> Tensor:
    """(B, A) bool: anchors that show some of the picture."""
    x1, y1, x2, y2 = anchors.unbind(-1)
    return (x1 < valid_hw[:, 1:]) & (y1 < valid_hw[:, :1]) & (x2 > 0) & (y2 > 0)


def _parts(objects: int, anchors: int, max_count: int) -> list[slice]:
    """Slices of the objects such that no more than ``max_count`` overlaps are held at once, or those of one object."""
    step = max(1, max_count // max(anchors, 1))
    return [slice(start, min(start + step, objects)) for start in range(0, objects, step)]
