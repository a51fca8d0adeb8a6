"""The detectors of the 2018 code, number for number: SNIPER (arXiv 1805.09300) with branches for focus and masks.

``sniper_resnet101`` and its like build them; ``sniper.convert`` reads the published checkpoints into them. Boxes are
half-open here as everywhere. The 2018 code's inclusive boxes are the same ones with 1 px less at the right and the
bottom: what it computed from ``x2 - x1 + 1`` needs no other change.
"""

from dataclasses import replace
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from sniper.config import Config
from sniper.detectors.protocol import Kept
from sniper.errors import RecipeError
from sniper.nn import boxcoding
from sniper.nn.anchors import AnchorConfig, Anchors
from sniper.nn.class_rows import ClassRows
from sniper.nn.focus import FocusConfig, focus_labels, focus_loss
from sniper.nn.focus_head import focus_probability
from sniper.nn.heads import RegionOutput, region_losses
from sniper.nn.mask_targets import MaskRegions, mask_regions
from sniper.nn.matching import AnchorMatchConfig, match_anchors
from sniper.nn.original_heads import FocusBranch, MaskBranch, OriginalMaps, OriginalRegionHead, OriginalRPN, Reduction
from sniper.nn.original_losses import lesson_losses, mask_loss
from sniper.nn.original_mobilenet import STRIDE as MOBILENET_STRIDE
from sniper.nn.original_mobilenet import OriginalMobileNet
from sniper.nn.original_proposals import INCLUSIVE, OriginalProposalConfig, original_lessons, propose_original
from sniper.nn.preact_resnet import STRIDE as RESNET_STRIDE
from sniper.nn.preact_resnet import PreactResNet, preact_resnet50, preact_resnet101
from sniper.nn.proposals import ProposalConfig, Proposals, propose
from sniper.nn.roi import RoiConfig, region_targets
from sniper.nn.rpn import rpn_losses
from sniper.nn.sampling import sample
from sniper.structures import Batch, Detections, Images

LEAST_PX = 10  # objects with a shorter side in a chip did not exist for the original: network px
MASK_REGIONS = 50  # regions a chip that train the mask branch

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
    train_proposals: ProposalConfig = Field(
        default=ProposalConfig(train_before_nms=6000, keep=300, min_px=3),
        description="regions that train the second stage; rule original: only how many, and which suppress each other",
    )
    rois: RoiConfig = Field(
        default=RoiConfig(rule="original"),
        description="labels of these regions; rule original: as the original's operator, number for number",
    )
    box_chips: int | None = Field(
        default=None,
        ge=1,
        description="rule original: chips that the sum of the second stage's box losses is divided by (times 188); "
        "null: those of the batch. The ResNets of 2018 had 16 here whatever the batch",
    )
    focus_cells: FocusConfig = Field(
        default=FocusConfig(overlap="last", loss="mean"), description="what the focus branch learns"
    )
    rpn_box_weight: float = Field(default=3.0, gt=0, description="weight of the proposal network's box loss")
    score_threshold: float = Field(
        default=0.001, ge=0, lt=1, description="detections with a lower class probability are dropped"
    )

    @property
    def stride(self) -> int:
        """Network px per cell of the feature map."""
        return MOBILENET_STRIDE if self.network == "sniper_mobilenetv2" else RESNET_STRIDE


class Maps(NamedTuple):
    """What the network computes once per image."""

    reduced: Tensor  # (B, 256, H, W): what regions are cut from
    regions: OriginalMaps
    focus: Tensor | None  # (B, 2, H, W) logits, with a focus branch: no focus, focus


class OriginalSniper(nn.Module):
    """Features of the whole canvas, proposals, then a deformable head on each region."""

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
    def detect(self, images: Images) -> list[Detections]:
        """Boxes above ``score_threshold``, best first, network px; nothing is suppressed before levels are merged.

        A box is as wide as the original says, ``x2 - x1 + 1`` in original px: so many px wider here.
        """
        return self.detect_keeping(images).detections

    @property
    def predicts_masks(self) -> bool:
        """Whether there is a mask branch."""
        return self.masks is not None

    @torch.no_grad()
    def detect_keeping(self, images: Images) -> Kept:
        """``detect``, with the maps that ``predict_masks`` needs."""
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
        found = [self._best(boxes[image == row], scores[image == row]) for row in range(len(images))]
        return Kept(found, list(maps.reduced), None if maps.focus is None else focus_probability(maps.focus))

    @property
    def focus_stride(self) -> int | None:
        """Network px per cell of the focus map; None without a focus branch."""
        return None if self.focus is None else self.backbone.stride

    @torch.no_grad()
    def detect_with_focus(self, images: Images) -> tuple[list[Detections], Tensor]:
        """``detect`` and (B, H, W) focus probabilities; only with a focus branch."""
        kept = self.detect_keeping(images)
        assert kept.focus is not None
        return kept.detections, kept.focus

    @torch.no_grad()
    def predict_masks(self, maps: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        """(N, 28, 28) probabilities in (N, 4) ``boxes`` (network px) of the canvas of ``maps`` (256, H, W).

        The branch learned that its cells reach from a region's ``x1`` to ``x2``, without the one that is added to
        inclusive boxes elsewhere: so half-open boxes go in as they are.
        """
        assert self.masks is not None
        training = self.training
        self.eval()
        try:
            logits = self.masks(maps.unsqueeze(0), torch.zeros_like(labels), boxes)
        finally:
            self.train(training)
        return self.masks.mask_logits(logits, labels).sigmoid()

    @torch.no_grad()
    def propose(self, images: Images) -> list[Detections]:
        """Regions without a class (all labels 0) with their objectness, best first, network px."""
        training = self.training
        self.eval()
        try:
            found = self.propose_regions(self._proposal_maps(images), images.content_hw, images.scale)
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

        With their branches also ``focus`` and ``mask``. ``config.rois.rule`` chooses between the original's second
        stage, dummy regions and all, and the corrected one.

        Raises:
            RecipeError: there is a mask branch, but the batch has no outlines.
        """
        if self.masks is not None and batch.polygons is None:
            raise RecipeError(
                "the mask branch is on, but the training data has no masks; give data with outlines, or set "
                "original.masks to false"
            )
        batch = _as_wide_as_the_original(batch)
        maps = self.maps(self.normalise(batch))
        with whole_precision(batch.pixels):
            losses = self._first_losses(maps.regions, batch, generator)
            second, regions = (
                self._second_losses_as_taught(maps, batch)
                if self.config.rois.rule == "original"
                else self._second_losses(maps, batch, generator)
            )
            losses |= second
            if self.focus is not None and maps.focus is not None:
                losses["focus"] = self._focus_loss(maps.focus, batch)
            if self.masks is not None and batch.polygons is not None:
                losses["mask"] = mask_loss(self.masks, maps.reduced, regions, batch.polygons)
        return losses

    def proposal_losses(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """``rpn_class`` and ``rpn_box`` alone, without computing the second stage."""
        batch = _as_wide_as_the_original(batch)
        maps = self._proposal_maps(batch)
        with whole_precision(batch.pixels):
            return self._first_losses(maps, batch, generator)

    def _first_losses(self, maps: OriginalMaps, batch: Batch, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Of the proposal network; boxes are divided by the anchors that are to be sampled, as in the original."""
        config = self.config.anchor_match
        anchors = self.train_anchors(maps.deltas.shape[-2:])
        canvas_hw = (batch.pixels.shape[2], batch.pixels.shape[3])
        with torch.no_grad():
            match = match_anchors(anchors, batch.boxes, batch.state, batch.content_hw, canvas_hw, config)
            chosen = sample(match.labels, config.samples, config.positive_share, generator)
        weight = self.config.rpn_box_weight
        losses = rpn_losses(maps.by_anchor(), anchors, batch.boxes, match, chosen, weight)
        if self.config.rois.rule == "original":
            losses["rpn_box"] = losses["rpn_box"] * (chosen.used.sum() / (config.samples * len(batch)))
        return losses

    def _second_losses_as_taught(self, maps: Maps, batch: Batch) -> tuple[dict[str, Tensor], MaskRegions]:
        """Of the regions as the original chose and labelled them, and those of them that train the mask branch."""
        config = self.config
        wide = (batch.boxes[..., 2:] - batch.boxes[..., :2]).amin(dim=-1) >= LEAST_PX
        known = batch.valid | (batch.ignored & wide)
        lessons = original_lessons(
            maps.regions.by_anchor(), inclusive(self.test_anchors(maps.regions.deltas.shape[-2:])), batch.content_hw,
            inclusive(batch.boxes), batch.labels.masked_fill(~known, -1), batch.range_px,
            keep=config.train_proposals.keep, nms_iou=config.train_proposals.nms_iou,
            positive_iou=config.rois.positive_iou, variant="box" if self.masks is None else "mask",
        )  # fmt: skip
        rows = torch.arange(len(batch), device=batch.boxes.device).repeat_interleave(lessons.boxes.shape[1])
        output = self.head(maps.reduced, rows, lessons.boxes.flatten(0, 1))
        return lesson_losses(output, lessons, config.box_chips), mask_regions(lessons, MASK_REGIONS)

    def _second_losses(
        self, maps: Maps, batch: Batch, generator: torch.Generator | None
    ) -> tuple[dict[str, Tensor], MaskRegions]:
        """The same with ignored objects ignored, without dummies and without the half pixel in the codes."""
        config = self.config
        proposals = propose(
            maps.regions.by_anchor(), self.test_anchors(maps.regions.deltas.shape[-2:]), batch.content_hw,
            config.train_proposals, before_nms=config.train_proposals.train_before_nms, range_px=batch.range_px,
        )  # fmt: skip
        targets = region_targets(proposals, batch, config.rois, generator)
        losses = region_losses(self.regions(maps, targets.image, targets.boxes), targets)
        first = torch.where(targets.labels > 0)[0][: MASK_REGIONS * len(batch)]
        image, boxes = targets.image[first], inclusive(targets.boxes[first])
        return losses, MaskRegions(image, boxes, targets.labels[first], targets.matched[first])

    def _focus_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        config = self.config.focus_cells
        map_hw = (logits.shape[2], logits.shape[3])
        labels = focus_labels(inclusive(batch.boxes), batch.state, self.backbone.stride, map_hw, config)
        return focus_loss(logits, labels, config.loss)

    def _proposal_maps(self, images: Images) -> OriginalMaps:
        """What the proposal network says, without the other branches."""
        features = torch.cat(self.backbone(self.normalise(images)), dim=1)
        with whole_precision(features):
            maps: OriginalMaps = self.rpn(at_least_single(features))
        return maps

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


def whole_precision(like: Tensor) -> torch.autocast:
    """No half precision inside, on the device of ``like``: the original had it in the backbone only."""
    return torch.autocast(like.device.type, enabled=False)


def at_least_single(values: Tensor) -> Tensor:
    """Half precision cast up; single and double as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


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
