"""Detections in a fixed number of slots, for graphs that cannot hold lists: what lies beyond a count is zero.

Traceable by ``torch.export`` with free batch and size, as all of ``detectors.*.fixed`` is.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from sniper.nn.sampling import gather_boxes
from sniper.nn.suppress_fixed import keep_fixed


class Slots(NamedTuple):
    """The best boxes of B padded inputs in D slots each, best first."""

    boxes: Tensor  # (B, D, 4) xyxy, network px
    scores: Tensor  # (B, D)
    labels: Tensor  # (B, D) int64 class index from 0
    counts: Tensor  # (B,) int64 slots that count


class ScoredMap(NamedTuple):
    """What a head without a second stage says of the A anchors of one map."""

    scores: Tensor  # (B, A, C) in [0, 1]
    deltas: Tensor  # (B, A, 4)
    anchors: Tensor  # (A, 4) network px


# Boxes (B, K, 4) from anchors (B, K, 4) and their deltas (B, K, 4), clipped.
Decode = Callable[[Tensor, Tensor], Tensor]


def best_slots(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(B, count) best of (B, N) scores, and where they are; a slot without a score has -inf and the index N - 1."""
    best, index = functional.pad(scores, (0, count), value=-torch.inf).topk(count, dim=1)
    return best, index.clamp(max=scores.shape[1] - 1)


def best_of_maps(
    maps: Iterable[ScoredMap], decode: Decode, *, before_nms: int, threshold: float, nms_iou: float, keep: int
) -> Slots:
    """The ``before_nms`` best pairs of anchor and class of each map, suppressed together, class by class."""
    columns = []
    for scores, deltas, anchors in maps:
        classes = scores.shape[2]
        best, index = best_slots(scores.flatten(1), before_nms)
        place = index // classes
        columns.append((decode(anchors[place], gather_boxes(deltas, place)), best, index % classes))
    boxes, best, labels = (torch.cat(column, dim=1) for column in zip(*columns, strict=True))
    best, order = best.sort(dim=1, descending=True)
    boxes, labels = gather_boxes(boxes, order), labels.gather(1, order)
    return suppressed(Slots(boxes, best, labels, (best > threshold).sum(dim=1)), keep, nms_iou)


def suppressed(slots: Slots, keep: int, iou: float) -> Slots:
    """Class by class, what no better box overlaps by more than ``iou``, in ``keep`` slots. Boxes are not negative."""
    # Boxes of different classes are moved apart, so that none suppresses another.
    apart = slots.labels * (slots.boxes.flatten(1).amax(dim=1, keepdim=True) + 1)
    kept, counts = keep_fixed(slots.boxes + apart.unsqueeze(-1), slots.counts, keep, iou)
    present = torch.arange(keep, device=kept.device) < counts.unsqueeze(1)
    return _gathered(slots, kept, present)


def within(slots: Slots, limit_hw: Tensor) -> Slots:
    """The slots whose boxes show something inside of (B, 2) rows and columns, clipped to them, without gaps."""
    limit = limit_hw.flip(-1).repeat(1, 2).unsqueeze(1).to(slots.boxes.dtype)
    boxes = slots.boxes.minimum(limit)
    numbers = torch.arange(boxes.shape[1], device=boxes.device)
    present = (numbers < slots.counts.unsqueeze(1)) & (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)
    # What stays keeps its order: its numbers are sorted before all others.
    _, order = torch.where(present, numbers, numbers + boxes.shape[1]).sort(dim=1)
    return _gathered(slots._replace(boxes=boxes), order, present.gather(1, order))


def _gathered(slots: Slots, rows: Tensor, present: Tensor) -> Slots:
    """The rows (B, D) of ``slots``; those that are not ``present`` become zero."""
    return Slots(
        gather_boxes(slots.boxes, rows).masked_fill(~present.unsqueeze(-1), 0),
        slots.scores.gather(1, rows).masked_fill(~present, 0),
        slots.labels.gather(1, rows).masked_fill(~present, 0),
        present.sum(dim=1),
    )
