"""Where to look closer: which cells show a small object, how a focus map learns it, and how good one is.

AutoFocus (arXiv 1812.01600) section 3.1; ``docs/method.md``, "The detectors of 2018". Nothing here knows a detector.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from sniper.nn.config import FocusConfig
from sniper.structures import ObjectState


@torch.no_grad()
def focus_labels(
    boxes: Tensor,
    state: Tensor,
    stride: int,
    map_hw: tuple[int, int],
    config: FocusConfig,
    valid_hw: Tensor | None = None,
) -> Tensor:
    """(B, H, W) int8: 1 for cells of small objects, -1 for cells that do not train, 0 for all others.

    ``boxes`` (B, N, 4) are network px, ``state`` (B, N) an ``ObjectState`` each: valid and ignored objects count alike,
    since what one level ignores is often what the next one is for; crowd regions are -1 whatever their size. An object
    marks the cells ``floor(x1 / stride)`` to ``ceil(x2 / stride)``, that one included, as far as the map goes. With
    ``valid_hw`` (B, 2), cells that begin beyond the picture are -1; the original has them at 0.
    """
    labels = torch.zeros(len(boxes), *map_hw, dtype=torch.int8, device=boxes.device)
    if boxes.shape[1]:
        boxes = boxes.float()
        size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1).sqrt()
        crowd = state == ObjectState.CROWD
        small = (size > config.min_px) & (size < config.small_px) & ~crowd
        marks = (state != ObjectState.EMPTY) & ((size < config.large_px) | crowd)
        covered = _cells(boxes, stride, map_hw) & marks[..., None, None]  # (B, N, H, W)
        if config.overlap == "last":
            rank = torch.arange(1, boxes.shape[1] + 1, device=boxes.device, dtype=torch.int32)
            last = (covered * rank[:, None, None]).amax(dim=1)  # 0: no object
            kinds = functional.pad(torch.where(small, 1, -1), (1, 0)).to(torch.int8)
            labels = kinds.gather(1, last.flatten(1).long()).view_as(labels)
        else:
            labels -= covered.any(dim=1).to(torch.int8)
            labels[(covered & small[..., None, None]).any(dim=1)] = 1
    if valid_hw is not None:
        beyond = [torch.arange(n, device=boxes.device) * stride >= valid_hw[:, i, None] for i, n in enumerate(map_hw)]
        labels[beyond[0].unsqueeze(2) | beyond[1].unsqueeze(1)] = -1
    return labels


def _cells(boxes: Tensor, stride: int, map_hw: tuple[int, int]) -> Tensor:
    """(B, N, H, W) bool: the cells that each box marks."""
    first = (boxes[..., :2] / stride).floor().unsqueeze(-1)  # (B, N, 2, 1) column, row
    last = (boxes[..., 2:] / stride).ceil().unsqueeze(-1)
    rows, columns = (torch.arange(n, device=boxes.device) for n in map_hw)
    in_row = (rows >= first[..., 1, :]) & (rows <= last[..., 1, :])
    in_column = (columns >= first[..., 0, :]) & (columns <= last[..., 0, :])
    return in_row.unsqueeze(-1) & in_column.unsqueeze(-2)


def focus_logits(logits: Tensor) -> Tensor:
    """(B, H, W) logits of focus from (B, 1, H, W), or from (B, 2, H, W) of no focus and focus."""
    return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits[:, 0]


def focus_loss(logits: Tensor, labels: Tensor, form: Literal["balanced", "mean"]) -> Tensor:
    """Cross-entropy of (B, 1 or 2, H, W) ``logits`` over the cells of ``labels`` (B, H, W) that are not -1.

    ``mean`` is the mean over these cells, as the original has it. ``balanced`` is half the mean of the cells with focus
    plus half the mean of those without, over the batch; a kind that does not occur adds nothing. Without any cell the
    loss is a zero that still reaches the parameters.
    """
    focus, trained = labels == 1, labels >= 0
    entropy = functional.binary_cross_entropy_with_logits(focus_logits(logits).float(), focus.float(), reduction="none")
    if form == "mean":
        return _mean(entropy, trained)
    return (_mean(entropy, focus) + _mean(entropy, trained & ~focus)) / 2


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    return (values * chosen).sum() / chosen.sum().clamp(min=1)
