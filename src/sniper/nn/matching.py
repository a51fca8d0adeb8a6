"""Which anchors learn an object, which are background, and which neither (``docs/method.md``, "Ignored objects")."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from sniper.config import Config
from sniper.nn import boxcoding, overlaps
from sniper.structures import ObjectState

# Overlaps that are held at once. 16 million float32 are 64 MB, and three such arrays live together.
MAX_PAIRS = 16_000_000


class AnchorMatchConfig(Config):
    """Thresholds of the anchor labels, and how many anchors train."""

    positive_iou: float = Field(
        default=0.5, ge=0, le=1, description="IoU with a valid object from which an anchor is positive"
    )
    negative_iou: float = Field(
        default=0.4, ge=0, le=1, description="IoU with every valid object below which it is background"
    )
    ignore_iou: float = Field(
        default=0.3, ge=0, le=1, description="IoU with an ignored object above which it is neither"
    )
    crowd_share: float = Field(
        default=0.5, ge=0, le=1, description="visible share inside a crowd region above which it is neither"
    )
    border_px: float = Field(
        default=32, ge=0, description="anchors that leave the canvas by more are not trained, network px"
    )
    samples: int = Field(default=256, ge=2, description="anchors that train per chip")
    positive_share: float = Field(default=0.5, gt=0, lt=1, description="at most this share of them is positive")


class AnchorMatch(NamedTuple):
    """Labels of all anchors of a batch."""

    labels: Tensor  # (B, A) int8: 1 positive, 0 background, -1 neither
    objects: Tensor  # (B, A) int64 index of the best valid object; only meaningful where the label is 1


def match_anchors(
    anchors: Tensor,
    boxes: Tensor,
    state: Tensor,
    content_hw: Tensor,
    canvas_hw: tuple[int, int],
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
    5. Anchors that leave the canvas by more than ``border_px``, or lie wholly over padding (in the original these are
       background): neither.
    """
    usable = _inside(anchors, content_hw, canvas_hw, config.border_px)  # (B, A)
    if boxes.shape[1] == 0:
        return AnchorMatch(usable.to(torch.int8) - 1, torch.zeros_like(usable, dtype=torch.int64))
    boxes, anchors = boxes.float(), anchors.float()
    visible = overlaps.area(boxcoding.clip(anchors.expand(len(boxes), -1, 4), content_hw))  # (B, A)
    valid, ignored, crowd = ((state == kind).unsqueeze(-1) for kind in ObjectState if kind != ObjectState.EMPTY)
    parts = list(_parts(anchors.shape[0], boxes.shape[0] * boxes.shape[1]))

    def pairs(part: slice) -> tuple[Tensor, Tensor, Tensor]:
        shared = overlaps.intersection(boxes, anchors[None, part])
        iou = overlaps.iou(boxes, anchors[None, part], shared)
        return iou.masked_fill(~(valid & usable[:, None, part]), -1), iou, shared

    kept = [pairs(parts[0])] if len(parts) == 1 else None
    best_of_object = torch.stack([(kept[0] if kept else pairs(part))[0].amax(dim=2) for part in parts]).amax(
        dim=0
    )  # (B, N)
    best_of_object = best_of_object.masked_fill(best_of_object <= 0, torch.inf).unsqueeze(-1)

    labels, objects = [], []
    for part in parts:
        valid_iou, iou, shared = kept[0] if kept else pairs(part)
        best, index = valid_iou.max(dim=1)
        positive = (best >= config.positive_iou) | (valid_iou == best_of_object).any(dim=1)
        label = torch.where(positive, 1, torch.where(best < config.negative_iou, 0, -1))
        near_ignored = ((iou > config.ignore_iou) & ignored).any(dim=1)
        in_crowd = ((shared > visible[:, None, part] * config.crowd_share) & crowd).any(dim=1)
        labels.append(label.masked_fill(near_ignored | in_crowd | ~usable[:, part], -1).to(torch.int8))
        objects.append(index)
    return AnchorMatch(torch.cat(labels, dim=1), torch.cat(objects, dim=1))


def _inside(anchors: Tensor, content_hw: Tensor, canvas_hw: tuple[int, int], border_px: float) -> Tensor:
    """(B, A) bool: anchors that stay within the border and touch the picture."""
    height, width = canvas_hw
    x1, y1, x2, y2 = anchors.unbind(-1)
    near = (x1 >= -border_px) & (y1 >= -border_px) & (x2 <= width + border_px) & (y2 <= height + border_px)
    return near & (x1 < content_hw[:, 1:]) & (y1 < content_hw[:, :1]) & (x2 > 0) & (y2 > 0)


def _parts(anchors: int, objects: int) -> Iterator[slice]:
    """Slices of the anchors such that no more than MAX_PAIRS overlaps are held at once."""
    step = max(1, min(anchors, MAX_PAIRS // max(objects, 1)))
    return (slice(start, min(start + step, anchors)) for start in range(0, anchors, step))
