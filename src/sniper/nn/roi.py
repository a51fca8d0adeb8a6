"""Which regions the second stage learns from, and what.

``docs/method.md``, "Ignored objects" and "Objects without labels".
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sniper.nn import overlaps
from sniper.nn.config import RoiConfig
from sniper.nn.ignore import ignored_regions
from sniper.nn.proposals import Proposals
from sniper.nn.sampling import Sample, gather_boxes, sample
from sniper.nn.unlabelled import background_weight
from sniper.structures import Batch


class RegionTargets(NamedTuple):
    """K regions of a batch that train: equally many places a chip, whatever was found, some of which may be empty."""

    image: Tensor  # (K,) int64 row of the batch
    boxes: Tensor  # (K, 4) xyxy, network px
    labels: Tensor  # (K,) int64: 0 background, class index + 1 an object, -1 an empty place that trains nothing
    objects: Tensor  # (K, 4) xyxy, network px: the matched object; the region itself where there is none
    matched: Tensor  # (K,) int64 index of that object in its chip; -1 where there is none
    weight: Tensor | None = None  # (K,) of its class in the loss, with soft sampling; None: 1 everywhere
    known: Tensor | None = None  # (B, C) bool as ``Batch.known_classes``


class _Labelled(NamedTuple):
    labels: Tensor  # (B, R) int64, -1 not trained
    objects: Tensor  # (B, R) int64 index of the matched object
    weight: Tensor | None  # (B, R) of the class loss; None: 1 everywhere


@torch.no_grad()
def region_targets(
    proposals: Proposals, batch: Batch, config: RoiConfig, generator: torch.Generator | None = None
) -> RegionTargets:
    """Add the objects to the proposals, label every region, choose those that train.

    With ``rule="ignore"`` a region takes the class of the valid object it overlaps best with. If it overlaps an ignored
    object better, and by more than ``ignore_iou``, it does not train; nor does it where it would be background but
    lies mostly inside a crowd region. With ``rule="original"`` every object of the chip gives its class, also the
    ignored ones except difficult ones (label -1), and every region trains, without a choice. With ``soft_sampling``
    below 1, background weighs less the less it overlaps with anything that is labelled, learned or not.
    """
    original = config.rule == "original"
    learned = (batch.valid | batch.ignored) & (batch.labels >= 0) if original else batch.valid
    added = learned & _in_range(batch) if original else learned
    boxes = torch.cat((batch.boxes.to(proposals.boxes.dtype), proposals.boxes), dim=1)
    present = torch.cat((added, proposals.present), dim=1)
    labelled = _label(boxes, learned, batch, config)
    labels = labelled.labels.masked_fill(~present, -1)

    if not original:
        chosen = _used_first(sample(labels, config.per_chip, config.positive_share, generator), config.per_chip)
        boxes = gather_boxes(boxes, chosen.picked)
        labels = labels.gather(1, chosen.picked).masked_fill(~chosen.used, -1)
        weight = None if labelled.weight is None else labelled.weight.gather(1, chosen.picked)
        labelled = _Labelled(labels, labelled.objects.gather(1, chosen.picked), weight)
    positive, objects = labels > 0, boxes
    if batch.boxes.shape[1]:
        matched = gather_boxes(batch.boxes, labelled.objects).to(boxes.dtype)
        objects = torch.where(positive.unsqueeze(-1), matched, boxes)
    image = torch.arange(len(labels), device=labels.device).repeat_interleave(labels.shape[1])
    which = labelled.objects.masked_fill(~positive, -1)
    return RegionTargets(
        image, boxes.flatten(0, 1), labels.flatten(), objects.flatten(0, 1), which.flatten(),
        weight=None if labelled.weight is None else labelled.weight.flatten(), known=batch.known_classes,
    )  # fmt: skip


def _used_first(chosen: Sample, count: int) -> Sample:
    """The (B, count) first of the slots that are used, in their order; at most so many are."""
    first = (~chosen.used).to(torch.uint8).argsort(dim=1, stable=True)[:, :count]
    return Sample(*(column.gather(1, first) for column in chosen))


def _label(regions: Tensor, learned: Tensor, batch: Batch, config: RoiConfig) -> _Labelled:
    """Labels of (B, R, 4) regions against the objects of their chip."""
    if batch.boxes.shape[1] == 0:
        background = torch.zeros(regions.shape[:2], dtype=torch.int64, device=regions.device)
        return _Labelled(background, background, _weight(torch.zeros_like(regions[..., 0]), background, config))
    shared = overlaps.intersection(batch.boxes, regions)
    iou = overlaps.iou(batch.boxes, regions, shared)
    best, objects = iou.masked_fill(~learned.unsqueeze(-1), -1).max(dim=1)
    positive = best > config.positive_iou
    labels = torch.where(positive, batch.labels.gather(1, objects) + 1, 0)
    weight = _weight(iou.amax(dim=1), labels, config)
    if config.rule == "original":
        return _Labelled(labels, objects, weight)
    neither = ignored_regions(
        iou, shared, overlaps.area(regions), batch.state,
        best_learned=best, positive=positive, ignore_iou=config.ignore_iou, crowd_share=config.crowd_share,
    )  # fmt: skip
    return _Labelled(labels.masked_fill(neither, -1), objects, weight)


def _weight(overlap: Tensor, labels: Tensor, config: RoiConfig) -> Tensor | None:
    """(B, R) weights of the class loss: 1 of a region with an object, less of background far from all of them."""
    if config.soft_sampling == 1:
        return None
    return background_weight(overlap, config.soft_sampling).masked_fill_(labels > 0, 1)


def _in_range(batch: Batch) -> Tensor:
    """(B, N) bool: sqrt(area) between the limits of the chip's level, both included."""
    side = overlaps.area(batch.boxes).sqrt()
    return (side >= batch.range_px[:, :1]) & (side <= batch.range_px[:, 1:])
