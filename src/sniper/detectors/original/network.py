"""The detectors of the 2018 code, number for number: SNIPER (arXiv 1805.09300) with branches for focus and masks.

``sniper_resnet101`` and its like build them; ``sniper.mxnet`` reads the published checkpoints into them. Boxes are
half-open here as everywhere. The 2018 code's inclusive boxes are the same ones with 1 px less at the right and the
bottom: what it computed from ``x2 - x1 + 1`` needs no other change.
"""

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from sniper.detectors.one_pass import OnePass, Proposes
from sniper.detectors.original.boxes import (
    as_wide_as_the_original,
    at_least_single,
    decode,
    half_open,
    inclusive,
    whole_precision,
)
from sniper.detectors.original.config import Network, OriginalConfig
from sniper.detectors.original.heads import (
    FocusBranch,
    MaskBranch,
    OriginalMaps,
    OriginalRegionHead,
    OriginalRPN,
    Reduction,
)
from sniper.detectors.original.losses import (
    corrected_losses,
    first_losses,
    focus_branch_loss,
    mask_loss,
    original_losses,
)
from sniper.detectors.original.mobilenet import OriginalMobileNet
from sniper.detectors.original.preact_resnet import PreactResNet, preact_resnet50, preact_resnet101
from sniper.detectors.original.proposals import propose_original
from sniper.detectors.protocol import Outputs
from sniper.errors import RecipeError
from sniper.nn import box_deltas
from sniper.nn.anchors import Anchors
from sniper.nn.class_rows import ClassRows
from sniper.nn.config import AnchorConfig
from sniper.nn.evaluating import evaluating
from sniper.nn.focus_head import focus_probability
from sniper.nn.heads import RegionOutput
from sniper.nn.proposals import Proposals
from sniper.structures import Batch, Detections, Images

__all__ = [
    "Network",
    "OriginalConfig",
    "OriginalSniper",
    "build_original",
    "sniper_mobilenetv2",
    "sniper_resnet50",
    "sniper_resnet101",
]


class Maps(NamedTuple):
    """What the network computes once per image."""

    reduced: Tensor  # (B, 256, H, W): what regions are cut from
    regions: OriginalMaps
    focus: Tensor | None  # (B, 2, H, W) logits, with a focus branch: no focus, focus


class OriginalSniper(Proposes, OnePass):
    """Features of the whole padded input, proposals, then a deformable head on each region.

    A detected box is as wide as the original says, ``x2 - x1 + 1`` in original px: so many px wider here.
    """

    # What depends on the classes, for fine-tuning: background first, or outside and inside of each class.
    class_layers: ClassVar[dict[str, ClassRows]] = {"head.classes": "background", "masks.logits": "pairs"}

    mean: Tensor

    def __init__(
        self,
        backbone: PreactResNet | OriginalMobileNet,
        rpn: OriginalRPN,
        reduction: Reduction,
        head: OriginalRegionHead,
        focus: FocusBranch | None,
        masks: MaskBranch | None,
        anchors: AnchorConfig,
        config: OriginalConfig,
    ) -> None:
        super().__init__()
        self.backbone, self.rpn, self.reduction, self.head = backbone, rpn, reduction, head
        self.focus, self.masks = focus, masks
        self.config = config
        # The two roundings of the original: they differ at stride 32.
        self.train_anchors = Anchors(backbone.stride, anchors.model_copy(update={"rounding": "half_even"}))
        self.test_anchors = Anchors(backbone.stride, anchors.model_copy(update={"rounding": "half_up"}))
        self.register_buffer("mean", torch.tensor(config.mean).view(3, 1, 1), persistent=False)

    def maps(self, pixels: Tensor) -> Maps:
        """Everything that is computed per image, of (B, 3, H, W) pixels as ``normalise`` gives them."""
        features = torch.cat(self.backbone(pixels), dim=1)
        with whole_precision(features):
            features = at_least_single(features)
            focus = None if self.focus is None else self.focus(features)
            return Maps(self.reduction(features), self.rpn(features), focus)

    def regions(self, maps: Maps, image: Tensor, boxes: Tensor) -> RegionOutput:
        """What (K, 4) half-open ``boxes`` (network px) of the images ``image`` (K,) hold."""
        with whole_precision(boxes):
            output: RegionOutput = self.head(maps.reduced, image, inclusive(boxes))
        return output

    @torch.no_grad()
    def outputs(
        self,
        images: Images,
        *,
        detections: bool = True,
        proposals: bool = False,
        focus: bool = False,
        features: bool = False,
    ) -> Outputs:
        """What is asked for and there are branches for, from one forward pass; ``detectors.protocol.MultiOutput``."""
        with evaluating(self):
            if proposals and not (detections or focus or features):
                regions = self.propose_regions(self._proposal_maps(images), images.valid_hw, images.scale)
                return Outputs(proposals=regions.detections())
            maps = self.maps(self.normalise(images))
            found = self.propose_regions(maps.regions, images.valid_hw, images.scale)
            return Outputs(
                self._detect(maps, found, images) if detections else None,
                found.detections() if proposals else None,
                focus_probability(maps.focus) if focus and maps.focus is not None else None,
                list(maps.reduced) if features and self.masks is not None else None,
            )

    def _detect(self, maps: Maps, proposals: Proposals, images: Images) -> list[Detections]:
        image, slot = torch.where(proposals.present)
        output = self.regions(maps, image, proposals.boxes[image, slot])
        boxes = decode(proposals.boxes[image, slot], output.deltas, images.valid_hw[image])
        boxes = half_open(boxes, images.scale[image].unsqueeze(1).to(boxes.dtype))
        boxes = box_deltas.clip(boxes.unsqueeze(1), images.valid_hw[image]).squeeze(1)
        scores = output.logits.softmax(dim=1)[:, 1:]
        return [self._best(boxes[image == row], scores[image == row]) for row in range(len(images))]

    @property
    def predicts_masks(self) -> bool:
        """Whether there is a mask branch."""
        return self.masks is not None

    @property
    def stride(self) -> int:
        """Network px per cell of the feature map."""
        return self.backbone.stride

    @torch.no_grad()
    def predict_masks(self, features: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        """(N, 28, 28) probabilities in (N, 4) ``boxes`` (network px) of the padded input of ``features`` (256, h, w).

        The branch learned that its cells reach from a region's ``x1`` to ``x2``, without the one that is added to
        inclusive boxes elsewhere: so half-open boxes go in as they are.
        """
        assert self.masks is not None
        with evaluating(self):
            logits = self.masks(features.unsqueeze(0), torch.zeros_like(labels), boxes)
        return self.masks.mask_logits(logits, labels).sigmoid()

    def propose_regions(self, maps: OriginalMaps, valid_hw: Tensor, scale: Tensor) -> Proposals:
        """Half-open regions of pictures of ``valid_hw`` (B, 2) px at ``scale`` (B,), by the original's operator."""
        map_hw = (maps.deltas.shape[2], maps.deltas.shape[3])
        anchors = inclusive(self.test_anchors(map_hw))
        found = propose_original(
            maps.by_anchor(), anchors, valid_hw, scale, map_hw, self.backbone.stride, self.config.proposals
        )
        return found._replace(boxes=half_open(found.boxes))

    def losses(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """``rpn_class``, ``rpn_box``, ``class``, ``box``: finite scalars, zero where there is nothing to learn.

        With their branches also ``focus`` and ``mask``. ``config.rois.rule`` chooses between the original's second
        stage, dummy regions and all, and the corrected one.

        Raises:
            RecipeError: there is a mask branch, but the batch has no outlines.
        """
        if self.masks is not None and batch.polygons is None:
            raise RecipeError(
                "the mask branch is on, but the training data has no masks; give data with outlines, or set "
                "model.masks to false"
            )
        config = self.config
        batch = as_wide_as_the_original(batch)
        maps = self.maps(self.normalise(batch))
        with whole_precision(batch.pixels):
            losses = first_losses(maps.regions, self.train_anchors, batch, config, generator)
            second = original_losses if config.rois.rule == "original" else corrected_losses
            found = second(self.head, maps.reduced, maps.regions, self.test_anchors, batch, config, generator)
            losses |= found.losses
            if self.focus is not None and maps.focus is not None:
                losses["focus"] = focus_branch_loss(
                    maps.focus, batch, self.backbone.stride, config.focus_cells, self.focus.recall
                )
            if self.masks is not None and batch.polygons is not None:
                losses["mask"] = mask_loss(self.masks, maps.reduced, found.regions(), batch.polygons)
        return losses

    def proposal_losses(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """``rpn_class`` and ``rpn_box`` alone, without computing the second stage."""
        batch = as_wide_as_the_original(batch)
        maps = self._proposal_maps(batch)
        with whole_precision(batch.pixels):
            return first_losses(maps, self.train_anchors, batch, self.config, generator)

    def _proposal_maps(self, images: Images) -> OriginalMaps:
        """What the proposal network says, without the other branches."""
        features = torch.cat(self.backbone(self.normalise(images)), dim=1)
        with whole_precision(features):
            maps: OriginalMaps = self.rpn(at_least_single(features))
        return maps

    def normalise(self, images: Images) -> Tensor:
        """(B, 3, H, W) pixels for the backbone: RGB in [0, 255] minus the mean, and then padding is 0."""
        pixels = images.pixels * 255 if images.pixels.is_floating_point() else images.pixels.float()
        return (pixels - self.mean).mul_(images.valid_mask())

    def _best(self, boxes: Tensor, scores: Tensor) -> Detections:
        """Every class of (R, 4) boxes with (R, C) scores that is likely enough."""
        row, label = torch.where(scores > self.config.score_threshold)
        best, order = scores[row, label].sort(descending=True, stable=True)
        return Detections(boxes[row[order]], best, label[order])


def build_original(config: OriginalConfig, num_classes: int) -> OriginalSniper:
    """The original detector of ``config`` for ``num_classes`` classes (background not counted), with random weights."""
    build = {
        "sniper_resnet101": sniper_resnet101,
        "sniper_resnet50": sniper_resnet50,
        "sniper_mobilenetv2": sniper_mobilenetv2,
    }[config.network]
    return build(num_classes, config)


def sniper_resnet101(num_classes: int, config: OriginalConfig | None = None) -> OriginalSniper:
    """ResNet-101 with a deformable fourth stage; 21 anchors of 32 to 384 px."""
    return _resnet(preact_resnet101(), num_classes, config or OriginalConfig(network="sniper_resnet101"))


def sniper_resnet50(num_classes: int, config: OriginalConfig | None = None) -> OriginalSniper:
    """ResNet-50 with a deformable fourth stage; 21 anchors of 32 to 384 px."""
    return _resnet(preact_resnet50(), num_classes, config or OriginalConfig(network="sniper_resnet50"))


def _resnet(backbone: PreactResNet, num_classes: int, config: OriginalConfig) -> OriginalSniper:
    features = sum(backbone.channels)
    anchors = AnchorConfig(scales=(2, 4, 7, 10, 13, 16, 24), ratios=(0.5, 1, 2))
    return OriginalSniper(
        backbone=backbone,
        # Where masks were trained too, the proposal network saw the third stage alone.
        rpn=OriginalRPN(backbone.channels[0] if config.masks else features, 512, _per_cell(anchors)),
        reduction=Reduction(features),
        head=OriginalRegionHead(backbone.stride, num_classes, width=1024),
        focus=FocusBranch(features) if config.focus else None,
        masks=MaskBranch(backbone.stride, num_classes) if config.masks else None,
        anchors=anchors,
        config=config,
    )


def sniper_mobilenetv2(num_classes: int, config: OriginalConfig | None = None) -> OriginalSniper:
    """MobileNetV2 at stride 32; 15 anchors of 32 to 384 px."""
    config = config or OriginalConfig(network="sniper_mobilenetv2")
    backbone = OriginalMobileNet()
    features = sum(backbone.channels)
    anchors = AnchorConfig(scales=(1, 2, 4, 8, 12), ratios=(0.5, 1, 2))
    return OriginalSniper(
        backbone=backbone,
        rpn=OriginalRPN(features, 256, _per_cell(anchors)),
        reduction=Reduction(features),
        head=OriginalRegionHead(backbone.stride, num_classes, width=512),
        focus=FocusBranch(features) if config.focus else None,
        masks=MaskBranch(backbone.stride, num_classes) if config.masks else None,
        anchors=anchors,
        config=config,
    )


def _per_cell(anchors: AnchorConfig) -> int:
    return len(anchors.scales) * len(anchors.ratios)
