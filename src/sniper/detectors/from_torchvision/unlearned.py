"""Which anchors and regions of a batch are on ignored objects and in crowds: the rules of ``nn.ignore``, in parts."""

from typing import NamedTuple

import torch
from torch import Tensor

from sniper.nn import box_deltas, overlaps
from sniper.nn.ignore import ignored_anchors, ignored_regions
from sniper.nn.matching import MAX_PAIRS
from sniper.structures import Batch, ObjectState


class IgnoreRule(NamedTuple):
    """When an anchor or a region is on an ignored object."""

    ignore_iou: float = 0.3  # IoU with an ignored object above which it is neither
    crowd_share: float = 0.5  # share inside a crowd region above which it is neither


def unlearned_anchors(anchors: Tensor, batch: Batch, rule: IgnoreRule) -> Tensor:
    """(B, A) bool: anchors, (A, 4) network px, that must train nothing; some objects at a time, to bound the memory."""
    boxes, state = batch.boxes.float(), batch.state
    if boxes.device.type == "cpu":  # the host would wait for a GPU to count them
        teaches_nothing = ((state == ObjectState.IGNORED) | (state == ObjectState.CROWD)).any(dim=0)
        boxes, state = boxes[:, teaches_nothing], state[:, teaches_nothing]
    neither = torch.zeros(len(boxes), len(anchors), dtype=torch.bool, device=boxes.device)
    visible = overlaps.area(box_deltas.clip(anchors.expand(len(boxes), -1, 4), batch.valid_hw))
    step = max(1, MAX_PAIRS[boxes.device.type == "cpu"] // max(neither.numel(), 1))
    for start in range(0, boxes.shape[1], step):
        some, kinds = boxes[:, start : start + step], state[:, start : start + step]
        shared = overlaps.intersection(some, anchors[None])
        iou = overlaps.iou(some, anchors[None], shared)
        neither |= ignored_anchors(iou, shared, visible, kinds, **rule._asdict())
    return neither


def unlearned_regions(regions: Tensor, positive: Tensor, boxes: Tensor, state: Tensor, rule: IgnoreRule) -> Tensor:
    """(R,) bool: regions of one chip, (R, 4) network px, that must train nothing.

    ``positive`` (R,) are those that learn an object; ``boxes`` (N, 4) and ``state`` (N,) are all objects of the chip.
    """
    if len(boxes) == 0:
        return torch.zeros_like(positive)
    boxes, state, regions = boxes[None].float(), state[None], regions[None].float()
    shared = overlaps.intersection(boxes, regions)
    iou = overlaps.iou(boxes, regions, shared)
    best_learned = iou.masked_fill((state != ObjectState.VALID).unsqueeze(-1), -1).amax(dim=1)
    found = ignored_regions(
        iou, shared, overlaps.area(regions), state, best_learned=best_learned, positive=positive[None], **rule._asdict()
    )
    return found[0]
