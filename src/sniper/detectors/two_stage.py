"""What the detectors with two stages on one feature map share: features, proposals, and the choice of detections."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import nms

from sniper.detectors.one_pass import OnePass, Proposes
from sniper.detectors.protocol import DescribedRegions, Outputs
from sniper.detectors.two_stage_config import TwoStageConfig
from sniper.nn.anchors import Anchors
from sniper.nn.backbones import Backbone, build_backbone
from sniper.nn.evaluating import evaluating
from sniper.nn.focus_head import FocusHead, focus_probability
from sniper.nn.fusion import enlarge
from sniper.nn.matching import match_anchors
from sniper.nn.pooling import roi_align
from sniper.nn.proposals import Proposals, propose
from sniper.nn.rpn import RPN, RegionMaps, rpn_losses
from sniper.nn.sampling import sample
from sniper.structures import Batch, Detections, Images

_DESCRIBED_CELLS = 4  # of a region, along each side; two by two samples each


class FirstStage(NamedTuple):
    """The parts that every detector with two stages is built from."""

    backbone: Backbone
    anchors: Anchors
    rpn: RPN


def build_first_stage(config: TwoStageConfig, *, pretrained: bool) -> FirstStage:
    """The first stage of ``config``; ``pretrained=False`` leaves ``config.weights`` unread.

    Raises:
        RecipeError: an unknown backbone or one that does not have the stride.
        CheckpointError: the weights cannot be had or do not fit.
    """
    backbone = build_backbone(
        config.backbone,
        stride=config.stride,
        weights=config.weights if pretrained else None,
        feature_levels=config.feature_levels,
        dilation=config.dilation,
        frozen_stages=config.leading_frozen,
        norm=config.norm,
        channels=config.channels,
    )
    anchors = Anchors(config.stride, config.anchors)
    rpn_input = backbone.channels if config.rpn_input == "all" else backbone.map_channels[0]
    return FirstStage(backbone, anchors, RPN(rpn_input, config.rpn_channels, anchors.per_cell))


class FirstLosses(NamedTuple):
    """What the proposal network says of every anchor of a batch, and its losses."""

    maps: RegionMaps
    anchors: Tensor  # (A, 4) xyxy, network px
    losses: dict[str, Tensor]  # rpn_class, rpn_box


class TwoStage(Proposes, OnePass):
    """Features of the whole padded input and proposals. A subclass adds ``losses`` and ``detect_regions``."""

    mean: Tensor
    std: Tensor
    focus: FocusHead | None
    config: TwoStageConfig

    def __init__(self, first: FirstStage, config: TwoStageConfig) -> None:
        super().__init__()
        self.backbone, self.anchors, self.rpn = first
        self.register_buffer("mean", torch.tensor(config.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(3, 1, 1), persistent=False)
        self.config = config

    def losses(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Named scalar losses of a batch."""
        raise NotImplementedError

    def detect_regions(
        self, features: Tensor, proposals: Proposals, images: Images, *, improbable: bool = False
    ) -> list[Detections]:
        """What the proposals of each padded input hold; ``improbable`` ones too, if they are asked for."""
        raise NotImplementedError

    def mask_features(self, features: Tensor) -> list[Tensor] | None:
        """What masks are predicted from, of each padded input; None without a mask branch."""
        return None

    def proposal_losses(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """``rpn_class`` and ``rpn_box`` alone, for training proposals before negatives are mined."""
        return self.first_stage(self.backbone(self.normalise(batch)), batch, generator).losses

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
            shared = self.backbone(self.normalise(images))
            regions = self._proposals(shared, images) if detections or proposals else None
            return Outputs(
                self.detect_regions(shared, regions, images) if detections and regions is not None else None,
                regions.detections() if proposals and regions is not None else None,
                focus_probability(self.focus(shared)) if focus and self.focus is not None else None,
                self.mask_features(shared) if features else None,
            )

    @torch.no_grad()
    def describe_regions(
        self, images: Images, given: list[Tensor], *, max_regions: int, nms_iou: float
    ) -> list[DescribedRegions]:
        """Detections without their classes, described by the trunk; ``detectors.protocol.RegionDescriber``.

        Features are the means of the trunk's maps over a region, each of length 1: what the classifier that the trunk
        was taken from knows, before it is projected to what boxes need.
        """
        with evaluating(self):
            maps = self.backbone.body(self.normalise(images))
            boxes, scores = given, [one.new_zeros(len(one)) for one in given]
            if max_regions:
                shared = self.backbone.fusion(maps)
                # Plain ground is improbable, and new classes are told from it.
                found = self.detect_regions(shared, self._proposals(shared, images), images, improbable=True)
                best = [without_classes(one, nms_iou, max_regions) for one in found]
                boxes = [torch.cat((one.boxes, more)) for one, more in zip(best, boxes, strict=True)]
                scores = [torch.cat((one.scores, more)) for one, more in zip(best, scores, strict=True)]
            features = torch.split(self._mean_features(maps, boxes), [len(one) for one in boxes])
            return [DescribedRegions(*one) for one in zip(boxes, scores, features, strict=True)]

    def _mean_features(self, maps: list[Tensor], boxes: list[Tensor]) -> Tensor:
        """(K, sum of channels) means of each map over the boxes of all padded inputs, network px."""
        counts = torch.tensor([len(one) for one in boxes], device=maps[0].device)
        image = torch.arange(len(boxes), device=counts.device).repeat_interleave(counts)
        every = torch.cat(boxes)
        means = []
        for one in maps:
            fine = enlarge(one, maps[0]).float()
            cut = roi_align(fine, image, every, stride=self.stride, cells=_DESCRIBED_CELLS)
            means.append(functional.normalize(cut.mean(dim=(2, 3))))
        return torch.cat(means, dim=1)

    @property
    def stride(self) -> int:
        """Network px per cell of the feature map."""
        return self.config.stride

    def normalise(self, images: Images) -> Tensor:
        """(B, 3, H, W) pixels for the backbone; padding becomes 0, the mean colour, whatever the loader put there."""
        return images.normalised(self.mean, self.std)

    def first_stage(self, features: Tensor, batch: Batch, generator: torch.Generator | None) -> FirstLosses:
        """What the proposal network says of (B, F, H, W) ``features`` and learns from ``batch``."""
        config = self.config
        maps = self.rpn(features)
        anchors = self.anchors(features.shape[-2:])
        padded_hw = (batch.pixels.shape[2], batch.pixels.shape[3])
        with torch.no_grad():
            match = match_anchors(anchors, batch.boxes, batch.state, batch.valid_hw, padded_hw, config.anchor_match)
            chosen = sample(match.labels, config.anchor_match.samples, config.anchor_match.positive_share, generator)
        losses = rpn_losses(maps, anchors, batch.boxes, match, chosen, config.rpn_box_weight)
        return FirstLosses(maps, anchors, losses)

    def proposals_to_train(self, first: FirstLosses, batch: Batch) -> Proposals:
        """The regions that the second stage learns from: those in the ranges of their chips."""
        config = self.config.proposals
        return propose(
            first.maps, first.anchors, batch.valid_hw, config,
            before_nms=config.train_before_nms, range_px=batch.range_px,
        )  # fmt: skip

    def _proposals(self, features: Tensor, images: Images) -> Proposals:
        anchors = self.anchors(features.shape[-2:])
        config = self.config.proposals
        return propose(self.rpn(features), anchors, images.valid_hw, config, before_nms=config.test_before_nms)


def without_classes(found: Detections, nms_iou: float, max_regions: int) -> Detections:
    """The best of a padded input's detections after NMS over all classes together, labels 0."""
    boxes, scores = found.boxes.float(), found.scores.float()
    kept = nms(boxes, scores, nms_iou)[:max_regions]
    return Detections(boxes[kept], scores[kept], torch.zeros_like(found.labels[kept]))


def best_of(boxes: Tensor, scores: Tensor, *, max_detections: int, score_threshold: float) -> list[Detections]:
    """The best of (B, R, C) class scores with their (B, R, 4) boxes, for each of B padded inputs."""
    classes = scores.shape[2]
    best, index = scores.flatten(1).topk(min(max_detections, scores[0].numel()), dim=1)
    found = []
    for one_boxes, one_best, one_index in zip(boxes, best, index, strict=True):
        kept = one_index[one_best > score_threshold]
        found.append(Detections(one_boxes[kept // classes], one_best[: len(kept)], kept % classes))
    return found
