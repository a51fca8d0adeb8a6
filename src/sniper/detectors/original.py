"""The detectors of the 2018 code, number for number: SNIPER (arXiv 1805.09300) with branches for focus and masks.

``sniper_resnet101`` and its like build them; ``sniper.convert`` reads the published checkpoints into them. Boxes are
half-open here as everywhere. The 2018 code's inclusive boxes are the same ones with 1 px less at the right and the
bottom: what it computed from ``x2 - x1 + 1`` needs no other change.
"""

from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from sniper.config import Config
from sniper.errors import RecipeError
from sniper.nn import boxcoding
from sniper.nn.anchors import AnchorConfig, Anchors
from sniper.nn.heads import RegionOutput, region_losses
from sniper.nn.matching import AnchorMatchConfig, match_anchors
from sniper.nn.original_heads import FocusBranch, MaskBranch, OriginalMaps, OriginalRegionHead, OriginalRPN, Reduction
from sniper.nn.original_mobilenet import OriginalMobileNet
from sniper.nn.original_proposals import INCLUSIVE, OriginalProposalConfig, propose_original
from sniper.nn.preact_resnet import PreactResNet, preact_resnet50, preact_resnet101
from sniper.nn.proposals import ProposalConfig, Proposals, propose
from sniper.nn.roi import RoiConfig, region_targets
from sniper.nn.rpn import rpn_losses
from sniper.nn.sampling import sample
from sniper.structures import Batch, Detections, Images

Network = Literal["sniper_resnet101", "sniper_resnet50", "sniper_mobilenetv2"]


class OriginalConfig(Config):
    """The settings of the 2018 detectors; the defaults are the published ones."""

    network: Network = Field(default="sniper_resnet101", description="which of the original networks")
    focus: bool = Field(default=False, description="with AutoFocus's branch")
    masks: bool = Field(default=False, description="with a mask branch; a ResNet's proposals then come from stage 3")
    mean: tuple[float, float, float] = Field(
        default=(123.68, 116.779, 103.939), description="subtracted from RGB pixels in [0, 255]; nothing divides them"
    )
    anchor_match: AnchorMatchConfig = Field(default_factory=AnchorMatchConfig)
    proposals: OriginalProposalConfig = Field(default_factory=OriginalProposalConfig)
    train_proposals: ProposalConfig = Field(default=ProposalConfig(train_before_nms=6000, keep=300, min_px=3))
    rois: RoiConfig = Field(default=RoiConfig(rule="original"))
    rpn_box_weight: float = Field(default=3.0, gt=0, description="weight of the proposal network's box loss")
    score_threshold: float = Field(
        default=0.001, ge=0, lt=1, description="detections with a lower class probability are dropped"
    )


class Maps(NamedTuple):
    """What the network computes once per image."""

    reduced: Tensor  # (B, 256, H, W): what regions are cut from
    regions: OriginalMaps
    focus: Tensor | None  # (B, 2, H, W) logits, with a focus branch: no focus, focus


class OriginalSniper(nn.Module):
    """Features of the whole canvas, proposals, then a deformable head on each region."""

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
        focus = None if self.focus is None else self.focus(features)
        return Maps(self.reduction(features), self.rpn(features), focus)

    def regions(self, maps: Maps, image: Tensor, boxes: Tensor) -> RegionOutput:
        """What (K, 4) half-open ``boxes`` (network px) of the images ``image`` (K,) hold."""
        output: RegionOutput = self.head(maps.reduced, image, inclusive(boxes))
        return output

    @torch.no_grad()
    def detect(self, images: Images) -> list[Detections]:
        """Boxes above ``score_threshold``, best first, network px; nothing is suppressed before levels are merged.

        A box is as wide as the original says, ``x2 - x1 + 1`` in original px: so many px wider here.
        """
        training = self.training
        self.eval()
        try:
            maps = self.maps(self.normalise(images))
            proposals = self.propose_regions(maps.regions, images.content_hw, images.scale)
            image, slot = torch.where(proposals.present)
            output = self.regions(maps, image, proposals.boxes[image, slot])
        finally:
            self.train(training)
        boxes = decode(proposals.boxes[image, slot], output.deltas, images.content_hw[image])
        boxes += boxes.new_tensor(INCLUSIVE) * images.scale[image].unsqueeze(1).to(boxes.dtype)
        boxes = boxcoding.clip(boxes.unsqueeze(1), images.content_hw[image]).squeeze(1)
        scores = output.logits.softmax(dim=1)[:, 1:]
        return [self._best(boxes[image == row], scores[image == row]) for row in range(len(images))]

    @torch.no_grad()
    def propose(self, images: Images) -> list[Detections]:
        """Regions without a class (all labels 0) with their objectness, best first, network px."""
        training = self.training
        self.eval()
        try:
            features = torch.cat(self.backbone(self.normalise(images)), dim=1)
            found = self.propose_regions(self.rpn(features), images.content_hw, images.scale)
        finally:
            self.train(training)
        return [
            Detections(boxes[present], scores[present], torch.zeros_like(scores[present], dtype=torch.int64))
            for boxes, scores, present in zip(found.boxes, found.scores, found.present, strict=True)
        ]

    def propose_regions(self, maps: OriginalMaps, content_hw: Tensor, scale: Tensor) -> Proposals:
        """Half-open regions of pictures of ``content_hw`` (B, 2) px at ``scale`` (B,), by the original's operator."""
        map_hw = (maps.deltas.shape[2], maps.deltas.shape[3])
        anchors = inclusive(self.test_anchors(map_hw))
        found = propose_original(
            maps.by_anchor(), anchors, content_hw, scale, map_hw, self.backbone.stride, self.config.proposals
        )
        return found._replace(boxes=found.boxes + found.boxes.new_tensor(INCLUSIVE))

    def losses(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """``rpn_class``, ``rpn_box``, ``class``, ``box``: finite scalars, zero where there is nothing to learn.

        Raises:
            RecipeError: the detector has a focus or a mask branch, which cannot be trained.
        """
        if self.focus is not None or self.masks is not None:
            raise RecipeError(
                "the focus and mask branches cannot be trained; set focus and masks of the model to false"
            )
        config, batch = self.config, _as_wide_as_the_original(batch)
        maps = self.maps(self.normalise(batch))
        by_anchor = maps.regions.by_anchor()
        anchors = self.train_anchors(maps.regions.deltas.shape[-2:])
        canvas_hw = (batch.pixels.shape[2], batch.pixels.shape[3])
        with torch.no_grad():
            match = match_anchors(anchors, batch.boxes, batch.state, batch.content_hw, canvas_hw, config.anchor_match)
            chosen = sample(match.labels, config.anchor_match.samples, config.anchor_match.positive_share, generator)
        first = rpn_losses(by_anchor, anchors, batch.boxes, match, chosen, config.rpn_box_weight)
        proposals = propose(
            by_anchor, self.test_anchors(maps.regions.deltas.shape[-2:]), batch.content_hw, config.train_proposals,
            before_nms=config.train_proposals.train_before_nms, range_px=batch.range_px,
        )  # fmt: skip
        targets = region_targets(proposals, batch, config.rois, generator)
        return first | region_losses(self.regions(maps, targets.image, targets.boxes), targets)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses, so that wrappers which hook into ``forward`` (distributed training, compilation) work."""
        return self.losses(batch)

    def normalise(self, images: Images) -> Tensor:
        """(B, 3, H, W) pixels for the backbone: RGB in [0, 255] minus the mean, and then padding is 0."""
        pixels = images.pixels * 255 if images.pixels.is_floating_point() else images.pixels.float()
        rows = torch.arange(pixels.shape[2], device=pixels.device) < images.content_hw[:, :1]
        columns = torch.arange(pixels.shape[3], device=pixels.device) < images.content_hw[:, 1:]
        return (pixels - self.mean).mul_(rows[:, None, :, None] & columns[:, None, None, :])

    def _best(self, boxes: Tensor, scores: Tensor) -> Detections:
        """Every class of (R, 4) boxes with (R, C) scores that is likely enough."""
        row, label = torch.where(scores > self.config.score_threshold)
        best, order = scores[row, label].sort(descending=True, stable=True)
        return Detections(boxes[row[order]], best, label[order])


def decode(regions: Tensor, deltas: Tensor, content_hw: Tensor) -> Tensor:
    """(K, 4) inclusive boxes, network px, from half-open ``regions``, inside pictures of ``content_hw`` (K, 2) px."""
    boxes = inclusive(boxcoding.decode(regions, deltas, boxcoding.REGION_WEIGHTS))
    last = content_hw.flip(-1).repeat(1, 2).to(boxes.dtype) - 1
    return boxes.clamp(min=0).minimum(last)


def inclusive(boxes: Tensor) -> Tensor:
    """Half-open (..., 4) boxes as the 2018 code writes them: the last pixel is part of the box."""
    return boxes - boxes.new_tensor(INCLUSIVE)


def _as_wide_as_the_original(batch: Batch) -> Batch:
    """Objects as the original taught them: ``x2 - 1``, zoomed, is the last pixel; ``detect`` undoes that."""
    less = (batch.scale.to(batch.boxes.dtype) - 1).view(-1, 1, 1) * batch.boxes.new_tensor(INCLUSIVE)
    return replace(batch, boxes=batch.boxes - less * (batch.state >= 0).unsqueeze(-1))


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
