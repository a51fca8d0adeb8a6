"""The reference detector in fixed shapes, for files that other runtimes run: as many slots whatever is found.

Each step gives the numbers of ``Sniper.outputs``; what lies beyond a count is zero.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sniper.detectors.protocol import FixedOutputs
from sniper.nn import box_deltas
from sniper.nn.fixed import Slots, best_slots
from sniper.nn.focus_head import focus_probability
from sniper.nn.proposals import Proposals
from sniper.nn.sampling import gather_boxes
from sniper.nn.suppress_fixed import keep_fixed
from sniper.structures import Images

if TYPE_CHECKING:
    from sniper.detectors.sniper.network import Sniper


def fixed_outputs(detector: "Sniper", images: Images) -> FixedOutputs:
    """All that ``detector`` knows of (B, 3, H, W) ``images``; H and W are multiples of 64 px."""
    number = next(detector.backbone.parameters()).dtype  # half precision ends where boxes begin
    features = detector.backbone(detector.normalise(images).to(number))
    proposals = _proposals(detector, features, images)
    best = _detections(detector, features, proposals, images)
    focus = None if detector.focus is None else focus_probability(detector.focus(features))
    return FixedOutputs(*best, proposals.boxes, proposals.scores, proposals.present.sum(dim=1), focus)


def _proposals(detector: "Sniper", features: Tensor, images: Images) -> Proposals:
    """``nn.proposals.propose`` with as many candidates for a small padded input as for a large one."""
    config = detector.config.proposals
    maps, anchors = detector.rpn(features), detector.anchors((features.shape[2], features.shape[3]))
    boxes = box_deltas.clip(box_deltas.decode(anchors, maps.deltas), images.valid_hw)
    allowed = (boxes[..., 2:] - boxes[..., :2]).amin(dim=-1) >= config.min_px
    objectness = maps.objectness.masked_fill(~allowed, -torch.inf)
    logits, order = best_slots(objectness, config.test_before_nms)
    candidates = (logits > -torch.inf).sum(dim=1)
    boxes = gather_boxes(boxes, order)
    kept, counts = keep_fixed(boxes, candidates, config.keep, config.nms_iou)
    present = torch.arange(config.keep, device=boxes.device) < counts.unsqueeze(1)
    scores = logits.gather(1, kept).sigmoid().masked_fill(~present, 0)
    return Proposals(gather_boxes(boxes, kept).masked_fill(~present.unsqueeze(-1), 0), scores, present)


def _detections(detector: "Sniper", features: Tensor, proposals: Proposals, images: Images) -> Slots:
    """``Sniper._detect`` with the head run on every slot."""
    config, (count, slots) = detector.config, proposals.present.shape
    image = torch.arange(count, device=features.device).unsqueeze(1).expand(-1, slots).flatten()
    output = detector.head(features, image, proposals.boxes.flatten(0, 1))
    deltas = output.deltas.view(count, slots, 4)
    boxes = box_deltas.decode(proposals.boxes, deltas, box_deltas.REGION_WEIGHTS)
    boxes = box_deltas.clip(boxes, images.valid_hw)
    run = proposals.present & (proposals.scores >= config.proposals.test_min_score)
    scores = output.logits.softmax(dim=1)[:, 1:].view(count, slots, -1).masked_fill(~run.unsqueeze(-1), 0)
    classes = scores.shape[2]
    best, index = scores.flatten(1).topk(min(config.max_detections, slots * classes), dim=1)
    found = best > config.score_threshold
    boxes = gather_boxes(boxes, index // classes).masked_fill(~found.unsqueeze(-1), 0)
    return Slots(boxes, best.masked_fill(~found, 0), (index % classes).masked_fill(~found, 0), found.sum(dim=1))
