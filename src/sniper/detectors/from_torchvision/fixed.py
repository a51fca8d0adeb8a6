"""torchvision's RetinaNet, FCOS and Faster R-CNN in fixed shapes, for files that other runtimes run.

Each step gives the numbers of ``TorchvisionDetector.outputs``: as the library has it, boxes are clipped to the padded
input, suppressed, and only then clipped to what shows the image. Inputs are multiples of ``step_px``.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchvision.ops.poolers import initLevelMapper

from sniper.detectors.from_torchvision.geometry import anchors_of, maps_of
from sniper.detectors.protocol import FixedOutputs
from sniper.nn import box_deltas
from sniper.nn.fixed import Decode, ScoredMap, Slots, best_of_maps, best_slots, suppressed, within
from sniper.nn.focus_head import focus_probability
from sniper.nn.roi_levels import roi_align_levels
from sniper.nn.sampling import gather_boxes
from sniper.structures import Images

if TYPE_CHECKING:
    from sniper.detectors.from_torchvision.rcnn import TorchvisionRCNN
    from sniper.detectors.from_torchvision.retinanet import TorchvisionRetinaNet

_CANDIDATES = 4  # boxes with a class that enter suppression, for each one that may be kept
_MIN_REGION_PX, _MIN_DETECTION_PX = 1e-3, 1e-2  # the library drops what has a shorter side


def one_stage(detector: "TorchvisionRetinaNet", images: Images) -> FixedOutputs:
    """All that a RetinaNet or FCOS knows of (B, 3, H, W) ``images``."""
    net, maps = detector.net, _maps(detector, images)
    levels = list(maps.values())
    head = {name: value.float() for name, value in net.head(levels).items()}
    scores, padded_hw = detector.class_scores(head), _padded_hw(images)
    scored, first = [], 0
    for own in anchors_of(net.anchor_generator, levels, detector.geometry):
        part = slice(first, first + own.shape[0])
        scored.append(ScoredMap(scores[:, part], head["bbox_regression"][:, part], own))
        first = part.stop
    found = best_of_maps(
        scored,
        lambda anchors, deltas: box_deltas.clip(detector.decoded(anchors, deltas), padded_hw),
        before_nms=net.topk_candidates,
        threshold=net.score_thresh,
        nms_iou=net.nms_thresh,
        keep=net.detections_per_img,
    )
    return FixedOutputs(*within(found, images.valid_hw), focus=_focus(detector, maps))


def faster_rcnn(detector: "TorchvisionRCNN", images: Images) -> FixedOutputs:
    """All that a Faster R-CNN knows of (B, 3, H, W) ``images``; a mask branch is left out."""
    maps = _maps(detector, images)
    regions = _regions(detector, list(maps.values()), images)
    found = within(_detections(detector, maps, regions, images), images.valid_hw)
    proposed = within(regions, images.valid_hw)
    proposals = proposed.boxes, proposed.scores, proposed.counts
    return FixedOutputs(*found, *proposals, focus=_focus(detector, maps))


def halve(parts: Sequence[nn.Module | None]) -> None:
    """Have these modules compute in half precision, in place."""
    for part in parts:
        if part is not None:
            part.half()


def _maps(detector: Any, images: Images) -> dict[str, Tensor]:
    number = next(detector.net.backbone.parameters()).dtype  # half precision ends where boxes begin
    return maps_of(detector.net.backbone, images.normalised(detector.mean, detector.std).to(number))


def _focus(detector: Any, maps: dict[str, Tensor]) -> Tensor | None:
    if detector.focus is None:
        return None
    return focus_probability(detector.focus(list(maps.values())[detector.focus_map]))


def _padded_hw(images: Images) -> Tensor:
    """(B, 2) rows and columns of the padded inputs."""
    height, width = images.pixels.shape[2:]
    like = images.valid_hw[:, 0]
    return torch.stack((torch.full_like(like, height), torch.full_like(like, width)), dim=1)


def _decoder(images: Images, weights: tuple[float, float] = box_deltas.UNIT_WEIGHTS) -> Decode:
    """Boxes clipped to the padded input."""
    padded_hw = _padded_hw(images)
    return lambda anchors, deltas: box_deltas.clip(box_deltas.decode(anchors, deltas, weights), padded_hw)


def _regions(detector: "TorchvisionRCNN", levels: list[Tensor], images: Images) -> Slots:
    """The proposal network's boxes; each map's are suppressed by themselves, so that its number is their label."""
    rpn, decode = detector.net.rpn, _decoder(images)
    logits, deltas = rpn.head(levels)
    anchors = anchors_of(rpn.anchor_generator, levels, detector.geometry)
    columns = []
    for number, (own_logits, own_deltas, own) in enumerate(zip(logits, deltas, anchors, strict=True)):
        best, index = best_slots(_by_anchor(own_logits, 1).squeeze(-1), rpn.pre_nms_top_n())
        boxes = decode(own[index], gather_boxes(_by_anchor(own_deltas, 4), index))
        columns.append((boxes, best, torch.full_like(index, number)))
    boxes, best, labels = (torch.cat(column, dim=1) for column in zip(*columns, strict=True))
    best = best.masked_fill(~_is_large(boxes, _MIN_REGION_PX), -torch.inf)
    best, order = best.sort(dim=1, descending=True)
    ordered = Slots(gather_boxes(boxes, order), best.sigmoid(), labels.gather(1, order), (best > -torch.inf).sum(dim=1))
    return suppressed(ordered, rpn.post_nms_top_n(), rpn.nms_thresh)


def _detections(detector: "TorchvisionRCNN", maps: dict[str, Tensor], regions: Slots, images: Images) -> Slots:
    """The second stage on every slot."""
    heads = detector.net.roi_heads
    count, slots = regions.scores.shape
    hidden = heads.box_head(_pooled(detector, maps, regions).to(next(heads.box_head.parameters()).dtype))
    logits, deltas = (one.float() for one in heads.box_predictor(hidden))
    scores = logits.softmax(dim=-1)[:, 1:].view(count, slots, -1)
    classes = scores.shape[2]
    present = torch.arange(slots, device=scores.device) < regions.counts.unsqueeze(1)
    best, index = best_slots(
        scores.masked_fill(~present.unsqueeze(-1), -torch.inf).flatten(1), _CANDIDATES * heads.detections_per_img
    )
    place, label = index // classes, index % classes
    # The library has four numbers for each class, the background's first.
    of_pair = deltas.view(count, slots, classes + 1, 4)[:, :, 1:].flatten(1, 2)
    decode = _decoder(images, box_deltas.REGION_WEIGHTS)
    boxes = decode(gather_boxes(regions.boxes, place), gather_boxes(of_pair, index))
    best = best.masked_fill(~_is_large(boxes, _MIN_DETECTION_PX), -torch.inf)
    best, order = best.sort(dim=1, descending=True)
    counts = (best > heads.score_thresh).sum(dim=1)
    found = Slots(gather_boxes(boxes, order), best, label.gather(1, order), counts)
    return suppressed(found, heads.detections_per_img, heads.nms_thresh)


def _pooled(detector: "TorchvisionRCNN", maps: dict[str, Tensor], regions: Slots) -> Tensor:
    """(B * R, F, cells, cells) features of all slots."""
    pool = detector.net.roi_heads.box_roi_pool
    used = [one.float() for name, one in maps.items() if name in pool.featmap_names]
    scales = [1 / one.stride for one in detector.geometry[: len(used)]]
    mapper = initLevelMapper(
        round(-_log2(scales[0])), round(-_log2(scales[-1])), pool.canonical_scale, pool.canonical_level
    )
    count, slots = regions.scores.shape
    image = torch.arange(count, device=regions.boxes.device).unsqueeze(1).expand(-1, slots).flatten()
    boxes = regions.boxes.flatten(0, 1)
    rows = torch.cat((image.to(boxes.dtype).unsqueeze(1), boxes), dim=1)
    pooled: Tensor = roi_align_levels(used, rows, mapper([boxes]), scales, pool.output_size[0], pool.sampling_ratio)
    return pooled


def _log2(number: float) -> float:
    return float(torch.tensor(number).log2())


def _by_anchor(maps: Tensor, values: int) -> Tensor:
    """(B, h * w * anchors, values) single of (B, anchors * values, h, w)."""
    return maps.float().permute(0, 2, 3, 1).reshape(maps.shape[0], -1, values)


def _is_large(boxes: Tensor, least: float) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).amin(dim=-1) >= least
