"""Losses of the 2018 detectors' second stage and mask branch, with the divisors of the original."""

import torch
from torch import Tensor
from torch.nn import functional

from sniper.nn.heads import RegionOutput
from sniper.nn.mask_targets import MaskRegions, mask_targets
from sniper.nn.original_heads import MaskBranch
from sniper.nn.original_proposals import RegionLessons

BOX_REGIONS = 188  # regions a chip that the sum of box losses is divided by, however many there are


def lesson_losses(output: RegionOutput, lessons: RegionLessons, box_chips: int | None) -> dict[str, Tensor]:
    """``class``: mean cross-entropy of all regions, in order of ``lessons``; ``box``: smooth L1, of 188 regions a chip.

    ``box_chips`` stands for the number of chips in the divisor of the boxes; None: those of the batch.
    """
    labels = lessons.labels.flatten()
    holds = (labels > 0).unsqueeze(-1)
    distance = functional.smooth_l1_loss(
        output.deltas, torch.where(holds, lessons.codes.flatten(0, 1), output.deltas.detach()), reduction="sum"
    )
    return {
        "class": functional.cross_entropy(output.logits, labels),
        "box": distance / (BOX_REGIONS * (box_chips or len(lessons.labels))),
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
