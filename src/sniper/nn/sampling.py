"""A bounded random choice of positives and negatives per image, over the whole batch at once."""

from typing import NamedTuple

import torch
from torch import Tensor


class Sample(NamedTuple):
    """Chosen anchors or regions, S slots an image; slots that are not ``used`` pick any entry."""

    picked: Tensor  # (B, S) int64 index of the entry
    positive: Tensor  # (B, S) bool, only where used
    used: Tensor  # (B, S) bool


def sample(labels: Tensor, count: int, positive_share: float, generator: torch.Generator | None = None) -> Sample:
    """Choose up to ``count * positive_share`` entries with label > 0 and fill up with label 0 to ``count``.

    ``labels`` is (B, A): > 0 positive, 0 negative, < 0 never chosen. Uniform, without replacement. The number of random
    values drawn depends on the shape only, so that equal labels give equal choices with an equal generator.
    """
    keys = torch.rand(labels.shape, generator=generator, device=labels.device)
    total = labels.shape[1]
    positive_keys, positive_index = keys.masked_fill(labels <= 0, -1).topk(min(int(count * positive_share), total))
    negative_keys, negative_index = keys.masked_fill(labels != 0, -1).topk(min(count, total))
    positive = positive_keys >= 0
    room = count - positive.sum(dim=1, keepdim=True)
    rank = torch.arange(negative_keys.shape[1], device=labels.device)
    negative = (negative_keys >= 0) & (rank < room)
    return Sample(
        picked=torch.cat((positive_index, negative_index), dim=1),
        positive=torch.cat((positive, torch.zeros_like(negative)), dim=1),
        used=torch.cat((positive, negative), dim=1),
    )


def gather_boxes(boxes: Tensor, index: Tensor) -> Tensor:
    """(B, S, 4) rows ``index`` (B, S) of (B, N, 4) boxes."""
    return boxes.gather(1, index.unsqueeze(-1).expand(-1, -1, 4))
