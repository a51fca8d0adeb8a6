"""Which regions the second stage learns from, and what (``docs/method.md``, "Ignored objects")."""

from typing import NamedTuple

import torch
from torch import Tensor

from sniper.nn import overlaps
from sniper.nn.config import RoiConfig
from sniper.nn.ignore import ignored_regions
from sniper.nn.proposals import Proposals
from sniper.nn.sampling import gather_boxes, sample
from sniper.structures import Batch


class RegionTargets(NamedTuple):
    """K regions of a batch that train."""

    image: Tensor  # (K,) int64 row of the batch
    boxes: Tensor  # (K, 4) xyxy, network px
    labels: Tensor  # (K,) int64: 0 background, class index + 1 otherwise
    objects: Tensor  # (K, 4) xyxy, network px: the matched object; the region itself where the label is 0
    matched: Tensor  # (K,) int64 index of that object in its chip; -1 where the label is 0


class _Labelled(NamedTuple):
    labels: Tensor  # (B, R) int64, -1 not trained
    objects: Tensor  # (B, R) int64 index of the matched object


@torch.no_grad()
def region_targets(
    proposals: Proposals, batch: Batch, config: RoiConfig, generator: torch.Generator | None = None
) -> RegionTargets:
    """Add the objects to the proposals, label every region, choose those that train.

    With ``rule="ignore"`` a region takes the class of the valid object it overlaps best with. If it overlaps an ignored
    object better, and by more than ``ignore_iou``, it does not train; nor does it where it would be background but
    lies mostly inside a crowd region. With ``rule="original"`` every object of the chip gives its class, also the
    ignored ones except difficult ones (label -1), and every region trains, without a choice.
    """
    original = config.rule == "original"
    learned = (batch.valid | batch.ignored) & (batch.labels >= 0) if original else batch.valid
    added = learned & _in_range(batch) if original else learned
    boxes = torch.cat((batch.boxes.to(proposals.boxes.dtype), proposals.boxes), dim=1)
    present = torch.cat((added, proposals.present), dim=1)
    labelled = _label(boxes, learned, batch, config)
    labels = labelled.labels.masked_fill(~present, -1)

    if original:
        image, index = torch.where(labels >= 0)
    else:
        chosen = sample(labels, config.per_chip, config.positive_share, generator)
        image, slot = torch.where(chosen.used)
        index = chosen.picked[image, slot]
    regions, kept_labels = boxes[image, index], labels[image, index]
    objects, positive = regions, kept_labels > 0
    if batch.boxes.shape[1]:
        matched = gather_boxes(batch.boxes, labelled.objects)[image, index].to(regions.dtype)
        objects = torch.where(positive.unsqueeze(-1), matched, regions)
    which = labelled.objects[image, index].masked_fill(~positive, -1)
    return RegionTargets(image, regions, kept_labels, objects, which)


def _label(regions: Tensor, learned: Tensor, batch: Batch, config: RoiConfig) -> _Labelled:
    """Labels of (B, R, 4) regions against the objects of their chip."""
    if batch.boxes.shape[1] == 0:
        background = torch.zeros(regions.shape[:2], dtype=torch.int64, device=regions.device)
        return _Labelled(background, background)
    shared = overlaps.intersection(batch.boxes, regions)
    iou = overlaps.iou(batch.boxes, regions, shared)
    best, objects = iou.masked_fill(~learned.unsqueeze(-1), -1).max(dim=1)
    positive = best > config.positive_iou
    labels = torch.where(positive, batch.labels.gather(1, objects) + 1, 0)
    if config.rule == "original":
        return _Labelled(labels, objects)
    neither = ignored_regions(
        iou, shared, overlaps.area(regions), batch.state,
        best_learned=best, positive=positive, ignore_iou=config.ignore_iou, crowd_share=config.crowd_share,
    )  # fmt: skip
    return _Labelled(labels.masked_fill(neither, -1), objects)


def _in_range(batch: Batch) -> Tensor:
    """(B, N) bool: sqrt(area) between the limits of the chip's level, both included."""
    side = overlaps.area(batch.boxes).sqrt()
    return (side >= batch.range_px[:, :1]) & (side <= batch.range_px[:, 1:])
