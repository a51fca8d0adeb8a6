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
    anchors = anchors[near].float()
    shown = _over_picture(anchors, valid_hw)
    if boxes.shape[1] == 0 or len(anchors) == 0:
        labels[:, near] = shown.to(torch.int8) - 1
        return AnchorMatch(labels, objects)
    found = _match(anchors, shown, boxes.float(), state, valid_hw, config)
    labels[:, near] = found.labels.masked_fill(~shown, -1).to(torch.int8)
    objects[:, near] = found.objects
    return AnchorMatch(labels, objects)


def _match(
    anchors: Tensor, shown: Tensor, boxes: Tensor, state: Tensor, valid_hw: Tensor, config: AnchorMatchConfig
) -> AnchorMatch:
    """Rules 1 to 4 for (A, 4) anchors, ``shown`` (B, A) where over the picture; in parts, to bound the memory."""
    valid = (state == ObjectState.VALID).unsqueeze(-1)
    visible = overlaps.area(box_deltas.clip(anchors.expand(len(boxes), -1, 4), valid_hw))  # (B, A)
    best, objects, left_out = [], [], []  # (B, A) each, part by part
    tops, reached = [], []  # best overlap of each object in each part (B, N), and the anchors that have it
    for part in _parts(len(anchors), state.numel(), MAX_PAIRS[anchors.device.type == "cpu"]):
        shared = overlaps.intersection(boxes, anchors[None, part])
        iou = overlaps.iou(boxes, anchors[None, part], shared)
        neither = ignored_anchors(
            iou, shared, visible[:, part], state, ignore_iou=config.ignore_iou, crowd_share=config.crowd_share
        )
        left_out.append(neither)
        iou.masked_fill_(~(valid & shown[:, None, part]), -1)
        highest = iou.max(dim=1)
        best.append(highest.values)
        objects.append(highest.indices)
        top = iou.amax(dim=2)
        tops.append(top)
        image, row, anchor = torch.where((iou == top.unsqueeze(-1)) & (top > 0).unsqueeze(-1))
        reached.append(torch.stack((image, row, anchor + part.start)))

    top = torch.stack(tops).amax(dim=0)
    overlap = torch.cat(best, dim=1)
    labels = torch.where(overlap >= config.positive_iou, 1, torch.where(overlap < config.negative_iou, 0, -1))
    for (image, row, anchor), top_here in zip(reached, tops, strict=True):
        is_best = top_here[image, row] == top[image, row]
        labels[image[is_best], anchor[is_best]] = 1
    return AnchorMatch(labels.masked_fill(torch.cat(left_out, dim=1), -1), torch.cat(objects, dim=1))


def _near(anchors: Tensor, padded_hw: tuple[int, int], border_px: float) -> Tensor:
    """(A,) bool: anchors that stay within the border around the padded input."""
    height, width = padded_hw
    x1, y1, x2, y2 = anchors.unbind(-1)
    return (x1 >= -border_px) & (y1 >= -border_px) & (x2 <= width + border_px) & (y2 <= height + border_px)


def _over_picture(anchors: Tensor, valid_hw: Tensor) -> Tensor:
    """(B, A) bool: anchors that show some of the picture."""
    x1, y1, x2, y2 = anchors.unbind(-1)
    return (x1 < valid_hw[:, 1:]) & (y1 < valid_hw[:, :1]) & (x2 > 0) & (y2 > 0)


def _parts(anchors: int, objects: int, max_count: int) -> list[slice]:
    """Slices of the anchors such that no more than ``max_count`` overlaps are held at once."""
    step = max(1, min(anchors, max_count // max(objects, 1)))
    return [slice(start, min(start + step, anchors)) for start in range(0, anchors, step)]
