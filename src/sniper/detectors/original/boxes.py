"""How the 2018 code wrote boxes, and at which precision it computed.

Its boxes are inclusive: half-open ones with 1 px less at the right and the bottom.
"""

from dataclasses import replace

import torch
from torch import Tensor

from sniper.nn import box_deltas
from sniper.structures import Batch


def decode(regions: Tensor, deltas: Tensor, valid_hw: Tensor) -> Tensor:
    """(K, 4) inclusive boxes, network px, from half-open ``regions``, inside pictures of ``valid_hw`` (K, 2) px."""
    boxes = inclusive(box_deltas.decode(regions, deltas, box_deltas.REGION_WEIGHTS))
    last = valid_hw.flip(-1).repeat(1, 2).to(boxes.dtype) - 1
    return boxes.clamp(min=0).minimum(last)


def whole_precision(like: Tensor) -> torch.autocast:
    """No half precision inside, on the device of ``like``: the original had it in the backbone only."""
    return torch.autocast(like.device.type, enabled=False)


def at_least_single(values: Tensor) -> Tensor:
    """Half precision cast up; single and double as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def inclusive(boxes: Tensor) -> Tensor:
    """Half-open (..., 4) boxes as the 2018 code writes them: the last pixel is part of the box."""
    return torch.cat((boxes[..., :2], boxes[..., 2:] - 1), dim=-1)


def half_open(boxes: Tensor, more: Tensor | float = 1.0) -> Tensor:
    """The way back; ``more`` is what the 2018 code took for a pixel."""
    return torch.cat((boxes[..., :2], boxes[..., 2:] + more), dim=-1)


def as_wide_as_the_original(batch: Batch) -> Batch:
    """Objects as the original taught them: ``x2 - 1``, scaled, is the last pixel; ``detect`` undoes that."""
    less = (batch.scale.to(batch.boxes.dtype) - 1).view(-1, 1, 1) * (batch.state >= 0).unsqueeze(-1)
    return replace(batch, boxes=half_open(batch.boxes, -less))
