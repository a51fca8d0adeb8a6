"""What each module of SSH learns: its hardest anchors, one to three (arXiv 1708.03979, sections 3.4 and 3.5)."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from sniper.detectors.ssh.config import HardExamplesConfig
from sniper.detectors.ssh.modules import AnchorMaps
from sniper.nn import box_deltas
from sniper.nn.matching import AnchorMatch
from sniper.nn.sampling import gather_boxes

BETA = 1 / 9  # where smooth L1 becomes linear: sigma 3 of the paper's code


class HardExamples(NamedTuple):
    """Anchors that train, S slots a batch; the number of slots does not depend on what is found."""

    positives: Tensor  # (P,) int64 index into the anchors of all chips
    is_positive: Tensor  # (P,) float: 1 where the slot is used
    negatives: Tensor  # (Q,)
    is_negative: Tensor  # (Q,)


@torch.no_grad()
def hard_examples(logits: Tensor, labels: Tensor, config: HardExamplesConfig) -> HardExamples:
    """The anchors that (B, A, 1 + C) ``logits`` get most wrong; (B, A) ``labels`` are those of ``AnchorMatch``.

    Objects by their background probability, background by one minus it. Negatives are chosen over the whole batch, so
    that the hardest background teaches wherever it is; their number follows that of the positives.
    """
    chips, anchors = labels.shape
    background = logits.softmax(dim=2)[..., 0]
    hardest = background.masked_fill(labels != 1, -1).topk(min(config.max_positives, anchors), dim=1)
    first = torch.arange(chips, device=labels.device).unsqueeze(1) * anchors
    is_positive = (hardest.values >= 0).flatten()
    count = is_positive.sum()
    slots = int(hardest.values.numel() * config.negatives_per_positive) + chips * config.min_negatives
    wrong = (1 - background).masked_fill(labels != 0, -1).flatten().topk(min(slots, labels.numel()))
    room = (count * config.negatives_per_positive).clamp(min=chips * config.min_negatives)
    is_negative = (wrong.values >= 0) & (torch.arange(len(wrong.values), device=labels.device) < room)
    positives = (hardest.indices + first).flatten()
    return HardExamples(positives, is_positive.float(), wrong.indices, is_negative.float())


def module_losses(
    maps: AnchorMaps,
    anchors: Tensor,
    boxes: Tensor,
    classes: Tensor,
    match: AnchorMatch,
    config: HardExamplesConfig,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the chosen anchors, their mean; smooth L1 of the ones with an object, summed over the four
    deltas and divided by as many. Nothing chosen gives zeros that still reach the parameters.

    ``anchors`` are (A, 4), ``boxes`` (B, N, 4) network px, ``classes`` (B, N) from 0.
    """
    chosen = hard_examples(maps.logits, match.labels, config)
    chips = len(match.labels)
    if boxes.shape[1] == 0:
        targets, wanted = torch.zeros_like(maps.deltas), torch.zeros_like(match.objects)
    else:
        targets = box_deltas.encode(anchors.expand(chips, -1, 4), gather_boxes(boxes, match.objects))
        wanted = classes.gather(1, match.objects).clamp(min=0) + 1
    logits = maps.logits.flatten(0, 1)
    of_objects = functional.cross_entropy(
        logits[chosen.positives], wanted.flatten()[chosen.positives], reduction="none"
    )
    of_background = functional.cross_entropy(
        logits[chosen.negatives], torch.zeros_like(chosen.negatives), reduction="none"
    )
    count = (chosen.is_positive.sum() + chosen.is_negative.sum()).clamp(min=1)
    entropy = (of_objects * chosen.is_positive).sum() + (of_background * chosen.is_negative).sum()
    used = chosen.is_positive.unsqueeze(1)
    deltas = maps.deltas.flatten(0, 1)[chosen.positives]
    aims = torch.where(used > 0, targets.flatten(0, 1)[chosen.positives], deltas.detach())
    distance = functional.smooth_l1_loss(deltas, aims, reduction="none", beta=BETA)
    return entropy / count, distance.sum() / count
