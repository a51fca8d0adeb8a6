"""From anchor scores to a bounded set of regions per image."""

from typing import NamedTuple

import torch
from torch import Tensor

from sniper.nn import box_deltas
from sniper.nn.config import ProposalConfig
from sniper.nn.rpn import RegionMaps
from sniper.nn.sampling import gather_boxes
from sniper.nn.suppress import keep_greedily
from sniper.structures import Detections


class Proposals(NamedTuple):
    """Regions of a batch, best first, padded to as many as an image may keep: shapes do not depend on what is found."""

    boxes: Tensor  # (B, R, 4) xyxy, network px, inside the picture
    scores: Tensor  # (B, R) in [0, 1]
    present: Tensor  # (B, R) bool: not padding

    def detections(self) -> list[Detections]:
        """The regions of each image without padding and without a class: all labels 0."""
        return [
            Detections(boxes[present], scores[present], torch.zeros_like(scores[present], dtype=torch.int64))
            for boxes, scores, present in zip(self.boxes, self.scores, self.present, strict=True)
        ]


@torch.no_grad()
def propose(
    maps: RegionMaps,
    anchors: Tensor,
    valid_hw: Tensor,
    config: ProposalConfig,
    *,
    before_nms: int,
    range_px: Tensor | None = None,
) -> Proposals:
    """Decode, clip to the picture, drop the tiny and those out of range, keep the best, suppress, keep the best.

    ``anchors`` are (A, 4); ``valid_hw`` is (B, 2) px; ``range_px`` (B, 2) limits sqrt(area), low <= size < high,
    before suppression so that a region out of range never removes one in range. No gradient flows.
    """
    boxes = box_deltas.clip(box_deltas.decode(anchors, maps.deltas), valid_hw)
    size = boxes[..., 2:] - boxes[..., :2]
    allowed = size.amin(dim=-1) >= config.min_px
    if range_px is not None:
        side = size.prod(dim=-1).sqrt()
        allowed &= (side >= range_px[:, :1]) & (side < range_px[:, 1:])
    logits, order = maps.objectness.masked_fill(~allowed, -torch.inf).topk(min(before_nms, boxes.shape[1]), dim=1)
    return _suppress(gather_boxes(boxes, order), logits, config)


def _suppress(boxes: Tensor, logits: Tensor, config: ProposalConfig) -> Proposals:
    """Non-maximum suppression of (B, K, 4) boxes, best first; -inf marks empty slots."""
    keep = min(config.keep, boxes.shape[1])
    kept, counts = keep_greedily(boxes, (logits > -torch.inf).sum(dim=1), keep, config.nms_iou)
    present = torch.arange(keep, device=boxes.device) < counts.unsqueeze(1)
    scores = logits.gather(1, kept).sigmoid().masked_fill(~present, 0)
    return Proposals(gather_boxes(boxes, kept).masked_fill(~present.unsqueeze(-1), 0), scores, present)
