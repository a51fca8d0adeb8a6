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
    anchors = anchors.float()
    trains = _near(anchors, padded_hw, config.border_px) & _over_picture(anchors, valid_hw)
    if boxes.shape[1] == 0:
        labels = trains.to(torch.int8) - 1
        return AnchorMatch(labels, torch.zeros_like(labels, dtype=torch.int64))
    found = _match(anchors, trains, boxes.float(), state, valid_hw, config)
    return AnchorMatch(found.labels.masked_fill(~trains, -1).to(torch.int8), found.objects)


def _match(
    anchors: Tensor, trains: Tensor, boxes: Tensor, state: Tensor, valid_hw: Tensor, config: AnchorMatchConfig
) -> AnchorMatch:
    """Rules 1 to 4 for (A, 4) anchors, of which (B, A) ``trains`` can be labelled; in parts, to bound the memory."""
    valid = (state == ObjectState.VALID).unsqueeze(-1)
    visible = overlaps.area(box_deltas.clip(anchors.expand(len(boxes), -1, 4), valid_hw))  # (B, A)
    parts = _parts(len(anchors), state.numel(), MAX_PAIRS[anchors.device.type == "cpu"])

    def part_of(part: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Anchors of a part that are neither (B, A), overlaps with what they may learn (B, N, A), best of each (B, N).

        An anchor that may not learn an object has overlap -1 with it.
        """
        shared = overlaps.intersection(boxes, anchors[None, part])
        iou = overlaps.iou(boxes, anchors[None, part], shared)
        neither = ignored_anchors(
            iou, shared, visible[:, part], state, ignore_iou=config.ignore_iou, crowd_share=config.crowd_share
        )
        iou.masked_fill_(~(valid & trains[:, None, part]), -1)
        return neither, iou, iou.amax(dim=2)

    # The best overlap of an object is known after all parts; computing them twice needs neither memory nor waiting.
    ahead = torch.stack([part_of(part)[2] for part in parts]).amax(dim=0) if len(parts) > 1 else None
    labels, objects = [], []  # (B, A) each, part by part
    for part in parts:
        neither, iou, best_here = part_of(part)
        top = best_here if ahead is None else ahead
        is_best = ((iou == top.unsqueeze(-1)) & (top > 0).unsqueeze(-1)).any(dim=1)
        overlap, index = iou.max(dim=1)
        positive = is_best | (overlap >= config.positive_iou)
        label = torch.where(positive, 1, torch.where(overlap < config.negative_iou, 0, -1))
        labels.append(label.masked_fill(neither, -1))
        objects.append(index)
    return AnchorMatch(torch.cat(labels, dim=1), torch.cat(objects, dim=1))


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
