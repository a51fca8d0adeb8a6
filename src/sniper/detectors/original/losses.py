"""Losses of the 2018 detectors, with the divisors of the original."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from sniper.detectors.original.boxes import inclusive
from sniper.detectors.original.config import OriginalConfig
from sniper.detectors.original.heads import MaskBranch, OriginalMaps, OriginalRegionHead
from sniper.detectors.original.mask_regions import MaskRegions, mask_regions
from sniper.detectors.original.proposals import OriginalRegionTargets, original_region_targets
from sniper.nn.anchors import Anchors
from sniper.nn.config import FocusConfig
from sniper.nn.focus import focus_labels, focus_loss
from sniper.nn.focus_recall import FocusRecall
from sniper.nn.heads import RegionOutput, region_losses
from sniper.nn.mask_targets import mask_targets
from sniper.nn.matching import match_anchors
from sniper.nn.proposals import propose
from sniper.nn.roi import region_targets
from sniper.nn.rpn import rpn_losses
from sniper.nn.sampling import sample
from sniper.structures import Batch

MIN_PX = 10  # objects with a shorter side in a chip did not exist for the original: network px
MASK_REGIONS = 50  # regions a chip that train the mask branch
BOX_REGIONS = 188  # regions a chip that the sum of box losses is divided by, however many there are


class SecondStage(NamedTuple):
    """What the second stage learns from a batch."""

    losses: dict[str, Tensor]  # class, box
    regions: Callable[[], MaskRegions]  # those that train a mask branch; the host waits for their number


def first_losses(
    maps: OriginalMaps, anchors: Anchors, batch: Batch, config: OriginalConfig, generator: torch.Generator | None
) -> dict[str, Tensor]:
    """``rpn_class`` and ``rpn_box``; boxes are divided by the anchors that are to be sampled, as in the original."""
    rule, places = config.anchor_match, anchors(maps.deltas.shape[-2:])
    padded_hw = (batch.pixels.shape[2], batch.pixels.shape[3])
    with torch.no_grad():
        match = match_anchors(places, batch.boxes, batch.state, batch.valid_hw, padded_hw, rule)
        chosen = sample(match.labels, rule.samples, rule.positive_share, generator)
    losses = rpn_losses(maps.by_anchor(), places, batch.boxes, match, chosen, config.rpn_box_weight)
    if config.rois.rule == "original":
        losses["rpn_box"] = losses["rpn_box"] * (chosen.used.sum() / (rule.samples * len(batch)))
    return losses


def original_losses(
    head: OriginalRegionHead,
    reduced: Tensor,
    maps: OriginalMaps,
    anchors: Anchors,
    batch: Batch,
    config: OriginalConfig,
    generator: torch.Generator | None = None,
) -> SecondStage:
    """Of the regions as the original chose and labelled them, which leaves nothing to ``generator``.

    ``head`` cuts them from ``reduced`` (B, 256, H, W); ``maps`` are what the proposal network says of ``anchors``.
    """
    wide = (batch.boxes[..., 2:] - batch.boxes[..., :2]).amin(dim=-1) >= MIN_PX
    known = batch.valid | (batch.ignored & wide)
    targets = original_region_targets(
        maps.by_anchor(), inclusive(anchors(maps.deltas.shape[-2:])), batch.valid_hw,
        inclusive(batch.boxes), batch.labels.masked_fill(~known, -1), batch.range_px,
        keep=config.train_proposals.keep, nms_iou=config.train_proposals.nms_iou,
        positive_iou=config.rois.positive_iou, variant="mask" if config.masks else "box",
    )  # fmt: skip
    image = torch.arange(len(batch), device=batch.boxes.device).repeat_interleave(targets.boxes.shape[1])
    output = head(reduced, image, targets.boxes.flatten(0, 1))
    losses = second_stage_losses(output, targets, config.box_chips)
    return SecondStage(losses, lambda: mask_regions(targets, MASK_REGIONS))


def corrected_losses(
    head: OriginalRegionHead,
    reduced: Tensor,
    maps: OriginalMaps,
    anchors: Anchors,
    batch: Batch,
    config: OriginalConfig,
    generator: torch.Generator | None = None,
) -> SecondStage:
    """The same with ignored objects ignored, without dummies and without the half pixel in the codes."""
    proposals = propose(
        maps.by_anchor(), anchors(maps.deltas.shape[-2:]), batch.valid_hw,
        config.train_proposals, before_nms=config.train_proposals.train_before_nms, range_px=batch.range_px,
    )  # fmt: skip
    targets = region_targets(proposals, batch, config.rois, generator)
    losses = region_losses(head(reduced, targets.image, inclusive(targets.boxes)), targets)

    def regions() -> MaskRegions:
        first = torch.where(targets.labels > 0)[0][: MASK_REGIONS * len(batch)]
        image, boxes = targets.image[first], inclusive(targets.boxes[first])
        return MaskRegions(image, boxes, targets.labels[first], targets.matched[first])

    return SecondStage(losses, regions)


def focus_branch_loss(logits: Tensor, batch: Batch, stride: int, config: FocusConfig, recall: FocusRecall) -> Tensor:
    """Cross-entropy of the cells of (B, 2, H, W) ``logits``; those beyond the picture have no focus, as then.

    ``recall`` counts how many of the focus cells were among the best.
    """
    map_hw = (logits.shape[2], logits.shape[3])
    labels = focus_labels(inclusive(batch.boxes), batch.state, stride, map_hw, config)
    recall.add(logits, labels, batch.valid_hw, stride)
    return focus_loss(logits, labels, config.loss)


def second_stage_losses(
    output: RegionOutput, targets: OriginalRegionTargets, box_chips: int | None
) -> dict[str, Tensor]:
    """``class``: mean cross-entropy of all regions, in order of ``targets``; ``box``: smooth L1, of 188 regions a chip.

    ``box_chips`` stands for the number of chips in the divisor of the boxes; None: those of the batch.
    """
    labels = targets.labels.flatten()
    holds = (labels > 0).unsqueeze(-1)
    distance = functional.smooth_l1_loss(
        output.deltas, torch.where(holds, targets.target_deltas.flatten(0, 1), output.deltas.detach()), reduction="sum"
    )
    return {
        "class": functional.cross_entropy(output.logits, labels),
        "box": distance / (BOX_REGIONS * (box_chips or len(targets.labels))),
    }


def mask_loss(branch: MaskBranch, reduced: Tensor, regions: MaskRegions, polygons: Tensor) -> Tensor:
    """Mean cross-entropy of the cells of ``regions`` whose object has an outline.

    ``reduced`` are the features that ``branch`` cuts from, ``polygons`` (B, N, P) those of the batch. The original's
    two-way softmax over a class's pair of channels is the sigmoid of their difference. Nothing to learn gives a zero
    that still reaches the parameters.
    """
    logits = branch.mask_logits(branch(reduced, regions.image, regions.boxes), regions.labels - 1)
    rows = polygons.flatten(0, 1)
    row = regions.image * polygons.shape[1] + regions.objects
    targets = mask_targets(rows, regions.boxes, torch.where(rows[row, 1] > 0, row, -1), logits.shape[-1])
    known = targets >= 0
    entropy = functional.binary_cross_entropy_with_logits(logits, (targets > 0).to(logits.dtype), reduction="none")
    return (entropy * known).sum() / known.sum().clamp(min=1)
