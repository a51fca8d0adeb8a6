"""R-FCN-3K: detection of thousands of classes, decoupled (arXiv 1712.01802; ``docs/method.md``, "R-FCN-3K")."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from sniper.detectors.rfcn3k.config import Rfcn3kConfig
from sniper.detectors.rfcn3k.head import DecoupledHead, DecoupledOutput, scores_of
from sniper.detectors.two_stage import FirstStage, TwoStage, best_of, build_first_stage
from sniper.nn import box_deltas
from sniper.nn.class_rows import ClassRows
from sniper.nn.counted_share import CountedShare
from sniper.nn.focus_head import FocusHead, focus_loss_of
from sniper.nn.proposals import Proposals
from sniper.nn.roi import RegionTargets, region_targets
from sniper.structures import Batch, Detections, Images


class Rfcn3k(TwoStage):
    """Features of the whole padded input, proposals, then position-sensitive votes and a fine class for each."""

    class_layers: ClassVar[dict[str, ClassRows]] = {"head.fine": "classes", "head.membership": "classes"}

    config: Rfcn3kConfig

    def __init__(
        self, first: FirstStage, head: DecoupledHead, config: Rfcn3kConfig, focus: FocusHead | None = None
    ) -> None:
        super().__init__(first, config)
        self.head, self.focus = head, focus
        self._right_groups, self._right_classes = CountedShare(), CountedShare()

    def losses(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """``rpn_class``, ``rpn_box``, ``group``, ``fine``, ``box``: finite scalars, zero with nothing to learn.

        With a focus branch also ``focus``. Fine classes learn from regions with an object alone.
        """
        config = self.config
        features = self.backbone(self.normalise(batch))
        first = self.first_stage(features, batch, generator)
        targets = region_targets(self.proposals_to_train(first, batch), batch, config.rois, generator)
        output = self.head(features, targets.image, targets.boxes)
        losses = first.losses | decoupled_losses(output, targets, self.head.membership.group, config.fine_weight)
        self._count(output, targets)
        if self.focus is not None:
            logits = self.focus(features)
            losses["focus"] = focus_loss_of(logits, batch, config.stride, config.focus_labels, self.focus.recall)
        return losses

    def training_metrics(self) -> dict[str, Tensor]:
        """Of the regions with an object, how many are given the right super-class and the right class.

        ``super_class_accuracy`` is among the super-classes alone, whatever is taken for background, and where there are
        several; ``class_accuracy`` is among all classes. With a focus branch also ``focus_recall_at_10``.
        """
        several = {"super_class_accuracy": self._right_groups.take()} if self.config.super_classes > 1 else {}
        return super().training_metrics() | several | {"class_accuracy": self._right_classes.take()}

    def _count(self, output: DecoupledOutput, targets: RegionTargets) -> None:
        holds, label = targets.labels > 0, (targets.labels - 1).clamp(min=0)
        self._right_groups.add(output.groups[:, 1:].argmax(dim=1) == self.head.membership.group[label], holds)
        self._right_classes.add(output.fine.argmax(dim=1) == label, holds)

    def detect_regions(
        self, features: Tensor, proposals: Proposals, images: Images, *, improbable: bool = False
    ) -> list[Detections]:
        """What the proposals of each padded input hold, best first."""
        config = self.config
        image = torch.arange(len(images), device=features.device).repeat_interleave(proposals.boxes.shape[1])
        regions = proposals.boxes.flatten(0, 1)
        output = self.head(features, image, regions)
        boxes = box_deltas.decode(regions, output.deltas, box_deltas.REGION_WEIGHTS).view_as(proposals.boxes)
        objects = 1 - output.groups.softmax(dim=1)[:, 0].view_as(proposals.scores)
        counts = proposals.present & (objects > config.object_threshold)
        scores = scores_of(output.groups, output.fine, self.head.membership.group)
        scores = scores.view(*proposals.present.shape, -1).masked_fill(~counts.unsqueeze(-1), 0)
        return best_of(
            box_deltas.clip(boxes, images.valid_hw), scores,
            max_detections=config.max_detections, score_threshold=config.score_threshold,
        )  # fmt: skip


def decoupled_losses(
    output: DecoupledOutput, targets: RegionTargets, group: Tensor, fine_weight: float
) -> dict[str, Tensor]:
    """``group``: cross-entropy of the super-classes; ``fine``: of the classes of objects; ``box``: smooth L1.

    Each is a sum over the regions that train, divided by their number. ``group`` (C,) is the super-class of each
    class; soft sampling weighs its background.
    """
    labels, holds = targets.labels, targets.labels > 0
    count = (labels >= 0).sum().clamp(min=1)
    of_group = torch.where(holds, group[(labels - 1).clamp(min=0)] + 1, labels)
    entropy = functional.cross_entropy(output.groups, of_group, reduction="none", ignore_index=-1)
    if targets.weight is not None:
        entropy = entropy * targets.weight
    fine = functional.cross_entropy(output.fine, torch.where(holds, labels - 1, -1), reduction="sum", ignore_index=-1)
    target_deltas = box_deltas.encode(targets.boxes, targets.objects, box_deltas.REGION_WEIGHTS)
    distance = functional.smooth_l1_loss(
        output.deltas, torch.where(holds.unsqueeze(-1), target_deltas, output.deltas.detach()), reduction="sum"
    )
    return {"group": entropy.sum() / count, "fine": fine_weight * fine / count, "box": distance / count}


def build_rfcn3k(config: Rfcn3kConfig, groups: Tensor, *, pretrained: bool = True) -> Rfcn3k:
    """The detector of ``config`` for ``groups`` (C,) int64, the super-class of each of C classes.

    ``pretrained=False`` leaves ``config.weights`` unread, for when a checkpoint is loaded over it.

    Raises:
        RecipeError: an unknown backbone or one that does not have the stride.
        CheckpointError: the weights cannot be had or do not fit.
    """
    first = build_first_stage(config, pretrained=pretrained)
    channels = first.backbone.channels
    head = DecoupledHead(
        channels, config.stride, groups, config.super_classes, channels=config.head_channels, cells=config.cells
    )
    focus = FocusHead(channels, channels=config.focus_channels) if config.focus else None
    return Rfcn3k(first, head, config, focus)
