"""The reference detector: two stages on one feature map (``docs/method.md``, "The reference detector")."""

from typing import ClassVar

import torch
from torch import Tensor

from sniper.detectors.protocol import FixedOutputs
from sniper.detectors.sniper.config import SniperConfig
from sniper.detectors.sniper.fixed import fixed_outputs
from sniper.detectors.two_stage import FirstStage, TwoStage, best_of, build_first_stage
from sniper.errors import RecipeError
from sniper.nn import box_deltas
from sniper.nn.class_rows import ClassRows
from sniper.nn.evaluating import evaluating
from sniper.nn.focus_head import FocusHead, focus_loss_of
from sniper.nn.heads import RegionHead, region_losses
from sniper.nn.mask_head import MaskHead, mask_head_targets, mask_loss
from sniper.nn.proposals import Proposals
from sniper.nn.roi import region_targets
from sniper.structures import Batch, Detections, Images


class Sniper(TwoStage):
    """Features of the whole padded input, proposals, then a head on each region."""

    # What depends on the classes, for fine-tuning.
    class_layers: ClassVar[dict[str, ClassRows]] = {"head.classes": "background", "masks.logits": "classes"}

    config: SniperConfig

    def __init__(
        self,
        first: FirstStage,
        head: RegionHead,
        config: SniperConfig,
        masks: MaskHead | None = None,
        focus: FocusHead | None = None,
    ) -> None:
        super().__init__(first, config)
        self.head, self.masks, self.focus = head, masks, focus

    def losses(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """``rpn_class``, ``rpn_box``, ``class``, ``box``: finite scalars, zero where there is nothing to learn.

        With a focus branch also ``focus``, with a mask branch ``mask``. Anchors and regions are drawn from
        ``generator``, or from the default one of the device.

        Raises:
            RecipeError: there is a mask branch, but the batch carries no outlines.
        """
        config = self.config
        features = self.backbone(self.normalise(batch))
        first = self.first_stage(features, batch, generator)
        targets = region_targets(self.proposals_to_train(first, batch), batch, config.rois, generator)
        losses = first.losses | region_losses(self.head(features, targets.image, targets.boxes), targets)
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

    @property
    def predicts_masks(self) -> bool:
        """Whether there is a mask branch."""
        return self.masks is not None

    def mask_features(self, features: Tensor) -> list[Tensor] | None:
        """What masks are predicted from, of each padded input; None without a mask branch."""
        return None if self.masks is None else list(self.masks.reduced(features))

    @torch.no_grad()
    def predict_masks(self, features: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        """(N, 28, 28) probabilities in (N, 4) ``boxes`` (network px) of the padded input of ``features`` (F, h, w)."""
        assert self.masks is not None
        with evaluating(self):
            logits = self.masks(features.unsqueeze(0), torch.zeros_like(labels), boxes)
        return logits[torch.arange(len(labels), device=labels.device), labels].sigmoid()

    def fixed_outputs(self, images: Images) -> FixedOutputs:
        """All that it knows of images in fixed shapes; ``detectors.protocol.ExportableDetector``."""
        return fixed_outputs(self, images)

    def half_precision(self) -> None:
        """Features, proposals and the focus map in half precision; boxes and what is cut out for them stay single."""
        for part in (self.backbone, self.rpn, self.head.reduce, self.focus):
            if part is not None:
                part.half()

    def detect_regions(
        self, features: Tensor, proposals: Proposals, images: Images, *, improbable: bool = False
    ) -> list[Detections]:
        """What the proposals of each padded input hold, best first."""
        sides = (proposals.boxes[..., 2:] - proposals.boxes[..., :2]).prod(dim=2).sqrt()
        least = 0.0 if improbable else self.config.proposals.test_min_score
        image, slot = torch.where(proposals.present & (proposals.scores >= least) & images.may_keep(sides))
        output = self.head(features, image, proposals.boxes[image, slot])
        boxes = box_deltas.decode(proposals.boxes[image, slot], output.deltas, box_deltas.REGION_WEIGHTS)
        padded = torch.zeros_like(proposals.boxes)
        padded[image, slot] = boxes
        scores = output.logits.new_zeros(*proposals.present.shape, output.logits.shape[1] - 1)
        scores[image, slot] = output.logits.softmax(dim=1)[:, 1:]
        return best_of(
            box_deltas.clip(padded, images.valid_hw), scores,
            max_detections=self.config.max_detections, score_threshold=self.config.score_threshold,
        )  # fmt: skip


def build_sniper(config: SniperConfig, num_classes: int, *, pretrained: bool = True) -> Sniper:
    """The detector of ``config`` for ``num_classes`` classes (background not counted).

    ``pretrained=False`` leaves ``config.weights`` unread, for when a checkpoint is loaded over it.

    Raises:
        RecipeError: an unknown backbone or one that does not have the stride.
        CheckpointError: the weights cannot be had or do not fit.
    """
    first = build_first_stage(config, pretrained=pretrained)
    channels = first.backbone.channels
    return Sniper(
        first,
        head=RegionHead(channels, config.stride, num_classes, channels=config.head_channels, width=config.head_width),
        # Last, so that every other random weight is the same with and without.
        masks=MaskHead(channels, config.stride, num_classes, channels=config.mask_channels, convs=config.mask_convs)
        if config.masks
        else None,
        focus=FocusHead(channels, channels=config.focus_channels) if config.focus else None,
        config=config,
    )
