"""Boxes as differences from reference boxes: ``(dx, dy, log dw, log dh)``, half-open convention.

A box equal to its reference has the code 0. (In the 2018 code the same pair has a centre difference of half a pixel.)
"""

import math

import torch
from torch import Tensor

UNIT_WEIGHTS = (1.0, 1.0)  # of the centre, of the size
REGION_WEIGHTS = (10.0, 5.0)  # one over the standard deviations 0.1 and 0.2 of R-CNN's second stage

# exp(4.1) = 62: a 16 px anchor can still reach a box of 1000 px, and an untrained net cannot overflow.
MAX_LOG_GROWTH = math.log(1000 / 16)


def encode(anchors: Tensor, boxes: Tensor, weights: tuple[float, float] = UNIT_WEIGHTS) -> Tensor:
    """(..., 4) codes of (..., 4) ``boxes`` relative to (..., 4) ``anchors``, both xyxy px.

    Empty boxes are treated as 1e-3 px wide, so that padded slots stay finite.
    """
    anchor_wh = (anchors[..., 2:] - anchors[..., :2]).clamp(min=1e-3)
    box_wh = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-3)
    shift = (boxes[..., :2] + boxes[..., 2:] - anchors[..., :2] - anchors[..., 2:]) / 2
    # Plain numbers as weights: a tensor of them would be copied to the device, and the host would wait for that.
    return torch.cat((shift / anchor_wh * weights[0], (box_wh / anchor_wh).log() * weights[1]), dim=-1)


def decode(anchors: Tensor, deltas: Tensor, weights: tuple[float, float] = UNIT_WEIGHTS) -> Tensor:
    """(..., 4) xyxy px boxes from (..., 4) ``anchors`` and ``deltas``; growth is limited to ``MAX_LOG_GROWTH``."""
    anchor_wh = anchors[..., 2:] - anchors[..., :2]
    centre = (anchors[..., :2] + anchors[..., 2:]) / 2 + deltas[..., :2] / weights[0] * anchor_wh
    half_wh = (deltas[..., 2:] / weights[1]).clamp(max=MAX_LOG_GROWTH).exp() * anchor_wh / 2
    return torch.cat((centre - half_wh, centre + half_wh), dim=-1)


def clip(boxes: Tensor, valid_hw: Tensor) -> Tensor:
    """(B, R, 4) boxes limited to the picture on each padded input; ``valid_hw`` is (B, 2) px."""
    limit = valid_hw.flip(-1).repeat(1, 2).unsqueeze(1).to(boxes.dtype)  # (B, 1, 4) width, height, width, height
    return boxes.clamp(min=0).minimum(limit)
