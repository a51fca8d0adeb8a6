"""Objects of chips as the library takes them: boxes as centre and size, shares of the padded input."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sniper.structures import Batch

# What the library does not know and passes on: all objects of the chip, padded, with what they may teach.
EVERY_BOX, STATE, RULE = "every_box", "state", "rule"


class IgnoreRule(NamedTuple):
    """When a query that learns no object is not background either."""

    ignore_iou: float = 0.5  # IoU with an ignored object above which it is none, if no learned one is overlapped better
    crowd_share: float = 0.5  # share inside a crowd region above which it is none


def targets_of(batch: Batch, padded_hw: tuple[int, int], rule: IgnoreRule) -> list[dict[str, Any]]:
    """One dictionary a chip: ``class_labels`` (N,) from 0 and ``boxes`` (N, 4) of what is learned, and the rest."""
    size = batch.boxes.new_tensor([padded_hw[1], padded_hw[0]]).repeat(2)
    return [
        {
            "class_labels": learned["labels"],
            "boxes": centres(learned["boxes"] / size),
            EVERY_BOX: boxes / size,
            STATE: state,
            RULE: rule,
        }
        for learned, boxes, state in zip(batch.targets(first_label=0), batch.boxes, batch.state, strict=True)
    ]


def centres(boxes: Tensor) -> Tensor:
    """(..., 4) xyxy to centre, width and height."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((low + high) / 2, high - low), dim=-1)


def corners(boxes: Tensor) -> Tensor:
    """(..., 4) centre, width and height to xyxy."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((centre - half, centre + half), dim=-1)
