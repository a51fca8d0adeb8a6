"""The reference detector: two stages on one feature map (``docs/method.md``, "The reference detector")."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from sniper.detectors.protocol import Outputs
from sniper.detectors.sniper.config import SniperConfig
from sniper.errors import RecipeError
from sniper.nn import box_deltas
from sniper.nn.anchors import Anchors
from sniper.nn.backbones import Backbone, build_backbone
from sniper.nn.class_rows import ClassRows
from sniper.nn.evaluating import evaluating
from sniper.nn.focus_head import FocusHead, focus_loss_of, focus_probability
from sniper.nn.heads import RegionHead, region_losses
from sniper.nn.mask_head import MaskHead, mask_head_targets, mask_loss
from sniper.nn.matching import match_anchors
from sniper.nn.proposals import Proposals, propose
from sniper.nn.roi import region_targets
from sniper.nn.rpn import RPN, RegionMaps, rpn_losses
from sniper.nn.sampling import sample
from sniper.structures import Batch, Detections, Images


class Sniper(nn.Module):
    """Features of the whole padded input, proposals, then a head on each region."""

    # What depends on the classes, for fine-tuning.
    class_layers: ClassVar[dict[str, ClassRows]] = {"head.classes": "background", "masks.logits": "classes"}

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        anchors: Anchors,
        rpn: RPN,
        head: RegionHead,
        config: SniperConfig,
        masks: MaskHead | None = None,
        focus: FocusHead | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.anchors, self.rpn, self.head = backbone, anchors, rpn, head
        self.masks, self.focus = masks, focus
        self.config = config
        self.register_buffer("mean", torch.tensor(config.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(3, 1, 1), persistent=False)

    def losses(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """``rpn_class``, ``rpn_box``, ``class``, ``box``: finite scalars, zero where there is nothing to learn.

        With a focus branch also ``focus``, with a mask branch ``mask``. Anchors and regions are drawn from
        ``generator``, or from the default one of the device.

        Raises:
            RecipeError: there is a mask branch, but the batch carries no outlines.
        """
        config = self.config
        features = self.backbone(self.normalise(batch))
        maps, anchors, first = self._first_stage(features, batch, generator)
        proposals = propose(
            maps, anchors, batch.valid_hw, config.proposals,
            before_nms=config.proposals.train_before_nms, range_px=batch.range_px,
        )  # fmt: skip
        targets = region_targets(proposals, batch, config.rois, generator)
        losses = first | region_losses(self.head(features, targets.image, targets.boxes), targets)
        if self.focus is not None:
            logits = self.focus(features)
            losses["focus"] = focus_loss_of(logits, batch, config.stride, config.focus_labels, self.focus.recall)
        if self.masks is None:
            return losses
        if batch.polygons is None:
            raise RecipeError(
                "model.masks is on, but the training data have no masks; give data with outlines, or set it to false"
            )
        in_masks = mask_head_targets(targets, batch.polygons, config.masks_per_chip)
        inside = self.masks(self.masks.reduced(features), in_masks.image, in_masks.boxes)
        return losses | {"mask": mask_loss(inside, in_masks)}

    def proposal_losses(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """``rpn_class`` and ``rpn_box`` alone, for training proposals before negatives are mined."""
        return self._first_stage(self.backbone(self.normalise(batch)), batch, generator)[2]

    def training_metrics(self) -> dict[str, Tensor]:
        """``focus_recall_at_10`` since the last call, with a focus branch."""
        return {} if self.focus is None else self.focus.recall.metrics()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses, so that wrappers which hook into ``forward`` (distributed training, compilation) work."""
        return self.losses(batch)

    def detect(self, images: Images) -> list[Detections]:
        """Boxes above ``score_threshold``, best first, clipped to the valid region, network px.

        Classes do not suppress each other here, nor do boxes of one class: levels are merged first, then suppressed.
        """
        found = self.outputs(images).detections
        assert found is not None
        return found

    def propose(self, images: Images) -> list[Detections]:
        """Regions without a class (all labels 0) with their objectness, best first, network px."""
        found = self.outputs(images, detections=False, proposals=True).proposals
        assert found is not None
        return found

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
                self._detect(shared, regions, images) if detections and regions is not None else None,
                regions.detections() if proposals and regions is not None else None,
                focus_probability(self.focus(shared)) if focus and self.focus is not None else None,
                list(self.masks.reduced(shared)) if features and self.masks is not None else None,
            )

    @property
    def stride(self) -> int:
        """Network px per cell of the feature map."""
        return self.config.stride

    @property
    def focus_stride(self) -> int | None:
        """Network px per cell of the focus map; None without a focus branch."""
        return None if self.focus is None else self.config.stride

    @property
    def predicts_masks(self) -> bool:
        """Whether there is a mask branch."""
        return self.masks is not None

    @torch.no_grad()
    def predict_masks(self, features: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        """(N, 28, 28) probabilities in (N, 4) ``boxes`` (network px) of the padded input of ``features`` (F, h, w)."""
        assert self.masks is not None
        with evaluating(self):
            logits = self.masks(features.unsqueeze(0), torch.zeros_like(labels), boxes)
        return logits[torch.arange(len(labels), device=labels.device), labels].sigmoid()

    def _detect(self, features: Tensor, proposals: Proposals, images: Images) -> list[Detections]:
        image, slot = torch.where(proposals.present)
        output = self.head(features, image, proposals.boxes[image, slot])
        boxes = box_deltas.decode(proposals.boxes[image, slot], output.deltas, box_deltas.REGION_WEIGHTS)
        padded = torch.zeros_like(proposals.boxes)
        padded[image, slot] = boxes
        scores = output.logits.new_zeros(*proposals.present.shape, output.logits.shape[1] - 1)
        scores[image, slot] = output.logits.softmax(dim=1)[:, 1:]
        return self._best(box_deltas.clip(padded, images.valid_hw), scores)

    def normalise(self, images: Images) -> Tensor:
        """(B, 3, H, W) pixels for the backbone; padding becomes 0, the mean colour, whatever the loader put there."""
        pixels = images.pixels if images.pixels.is_floating_point() else images.pixels.float() / 255
        return ((pixels - self.mean) / self.std).mul_(images.valid_mask())

    def _first_stage(
        self, features: Tensor, batch: Batch, generator: torch.Generator | None
    ) -> tuple[RegionMaps, Tensor, dict[str, Tensor]]:
        """What the proposal network says of every anchor, (A, 4) anchors, and its losses."""
        config = self.config
        maps = self.rpn(features)
        anchors = self.anchors(features.shape[-2:])
        padded_hw = (batch.pixels.shape[2], batch.pixels.shape[3])
        with torch.no_grad():
            match = match_anchors(anchors, batch.boxes, batch.state, batch.valid_hw, padded_hw, config.anchor_match)
            chosen = sample(match.labels, config.anchor_match.samples, config.anchor_match.positive_share, generator)
        return maps, anchors, rpn_losses(maps, anchors, batch.boxes, match, chosen, config.rpn_box_weight)

    def _proposals(self, features: Tensor, images: Images) -> Proposals:
        anchors = self.anchors(features.shape[-2:])
        config = self.config.proposals
        return propose(self.rpn(features), anchors, images.valid_hw, config, before_nms=config.test_before_nms)

    def _best(self, boxes: Tensor, scores: Tensor) -> list[Detections]:
        """The best of (B, R, C) class scores with their (B, R, 4) boxes."""
        classes = scores.shape[2]
        best, index = scores.flatten(1).topk(min(self.config.max_detections, scores[0].numel()), dim=1)
        found = []
        for one_boxes, one_best, one_index in zip(boxes, best, index, strict=True):
            kept = one_index[one_best > self.config.score_threshold]
            found.append(Detections(one_boxes[kept // classes], one_best[: len(kept)], kept % classes))
        return found


def build_sniper(config: SniperConfig, num_classes: int, *, pretrained: bool = True) -> Sniper:
    """The detector of ``config`` for ``num_classes`` classes (background not counted).

    ``pretrained=False`` leaves ``config.weights`` unread, for when a checkpoint is loaded over it.

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
    return Sniper(
        backbone=backbone,
        anchors=anchors,
        rpn=RPN(rpn_input, config.rpn_channels, anchors.per_cell),
        head=RegionHead(
            backbone.channels, config.stride, num_classes, channels=config.head_channels, width=config.head_width
        ),
        # Last, so that every other random weight is the same with and without.
        masks=MaskHead(
            backbone.channels, config.stride, num_classes, channels=config.mask_channels, convs=config.mask_convs
        )
        if config.masks
        else None,
        focus=FocusHead(backbone.channels, channels=config.focus_channels) if config.focus else None,
        config=config,
    )
