"""From settings, or from a network of torchvision, to a detector."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torchvision
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.detection import FCOS, FasterRCNN, KeypointRCNN, RetinaNet
from torchvision.models.detection.ssd import SSD

from sniper.detectors.from_torchvision.config import TorchvisionConfig
from sniper.detectors.from_torchvision.detector import TorchvisionDetector
from sniper.detectors.from_torchvision.fcos import TorchvisionFCOS
from sniper.detectors.from_torchvision.rcnn import TorchvisionRCNN
from sniper.detectors.from_torchvision.retinanet import TorchvisionRetinaNet
from sniper.detectors.from_torchvision.ssd import TorchvisionSSD
from sniper.detectors.from_torchvision.unlearned import IgnoreRule
from sniper.detectors.from_torchvision.weights import library_weights, load_backbone, load_detector
from sniper.errors import RecipeError

FAMILIES: dict[type, type[TorchvisionDetector]] = {
    FasterRCNN: TorchvisionRCNN,  # Mask R-CNN is one, too
    RetinaNet: TorchvisionRetinaNet,
    FCOS: TorchvisionFCOS,
    SSD: TorchvisionSSD,
}


def from_torchvision(net: nn.Module, *, focus: bool = False) -> TorchvisionDetector:
    """Any network of ``torchvision.models.detection``, also with a backbone of your own, as a detector for chips.

    Its heads, losses and thresholds stay as they are; ignored objects and crowds are left out of the losses. It is
    trained as ``detector=``, and shares its weights with ``net``.

    Args:
        net: a FasterRCNN, MaskRCNN, RetinaNet, FCOS or SSD, with as many classes as the dataset, and one more for the
            background in all but RetinaNet and FCOS.
        focus: with AutoFocus's branch, on the map with stride 16.

    Raises:
        RecipeError: it is none of them, or learns keypoints.
    """
    return _family(net)(net, focus_channels=64 if focus else None)


def build_torchvision(
    config: TorchvisionConfig, num_classes: int, *, class_names: Sequence[str] = (), pretrained: bool = True
) -> TorchvisionDetector:
    """The detector of ``config`` for ``num_classes`` classes (background not counted).

    ``class_names`` say which classes of COCO's weights are meant. ``pretrained=False`` leaves ``config.weights``
    unread, for when a checkpoint is loaded over it.

    Raises:
        RecipeError: the settings do not fit the network.
        CheckpointError: the weights cannot be had or do not fit.
    """
    background = 0 if config.builder.family in ("RetinaNet", "FCOS") else 1
    net = torchvision.models.get_model(
        config.name, weights=None, weights_backbone=None, num_classes=num_classes + background
    )
    _set_bounds(net, config)
    _hold_epsilon(net, config)
    detector = _family(net)(
        net,
        config=config,
        rule=IgnoreRule(config.ignore_iou, config.crowd_share),
        focus_channels=config.focus_channels if config.focus else None,
        focus_labels=config.focus_labels,
    )
    detector.hold(_held(net.backbone, config))
    if pretrained and config.weights == "imagenet":
        load_backbone(net.backbone.body, config)
    elif pretrained and config.weights is not None:
        path = library_weights(config.name) if config.weights == "coco" else Path(config.weights)
        load_detector(detector, path, class_names)
    return detector


def _family(net: nn.Module) -> type[TorchvisionDetector]:
    if isinstance(net, KeypointRCNN):  # a FasterRCNN whose keypoint branch would stay as it is
        raise RecipeError("KeypointRCNN learns keypoints, and chips have none; give a FasterRCNN or MaskRCNN")
    for kind, family in FAMILIES.items():
        if isinstance(net, kind):
            return family
    known = ", ".join(kind.__name__ for kind in FAMILIES)
    raise RecipeError(f"{type(net).__name__} is no detector of torchvision that chips work with; expected {known}")


def _set_bounds(net: Any, config: TorchvisionConfig) -> None:
    """How many detections it gives, and from which score on."""
    last = net.roi_heads if isinstance(net, FasterRCNN) else net
    last.score_thresh, last.detections_per_img = config.score_threshold, config.max_detections
    if config.nms_iou is not None:
        last.nms_thresh = config.nms_iou
    if isinstance(net, FasterRCNN):
        net.rpn._pre_nms_top_n["testing"] = config.candidates
        net.rpn._post_nms_top_n["testing"] = max(config.max_detections, net.rpn._post_nms_top_n["testing"])
    else:
        net.topk_candidates = config.candidates


def _hold_epsilon(net: Any, config: TorchvisionConfig) -> None:
    """The library's first weights were trained with frozen norms that add nothing to the variance."""
    of_library = config.weights not in (None, "imagenet")
    if config.builder.first_version_norms and of_library and config.freezes_norms:
        for module in net.backbone.body.modules():
            if isinstance(module, _BatchNorm):
                module.eps = 0.0


def _held(backbone: Any, config: TorchvisionConfig) -> list[nn.Module]:
    """The leading stages of the backbone and the norms that do not train."""
    if not config.leading_frozen and not config.freezes_norms:
        return []
    body = getattr(backbone, "body", backbone)
    norms: list[nn.Module] = (
        [one for one in body.modules() if isinstance(one, _BatchNorm)] if config.freezes_norms else []
    )
    if not config.leading_frozen:
        return norms
    stages: list[list[nn.Module]] = [[]]
    for name, child in body.named_children():
        if name.startswith("layer") or getattr(child, "_is_cn", False):
            stages.append([])
        stages[-1].append(child)
    if config.leading_frozen > len(stages) or len(stages) == 1:
        raise RecipeError(
            f"model.frozen_stages: {config.network} has {len(stages) if len(stages) > 1 else 'no'} stages to freeze, "
            f"not {config.leading_frozen}"
        )
    return norms + [module for stage in stages[: config.leading_frozen] for module in stage]
