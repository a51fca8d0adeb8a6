"""SSH, a face detector in one stage (arXiv 1708.03979); ``docs/method.md``, "The SSH face detector"."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sniper.detectors.one_pass import OnePass, Proposes
from sniper.detectors.protocol import FixedOutputs, Outputs
from sniper.detectors.ssh.config import FOCUS_STRIDE, STRIDES, SshConfig
from sniper.detectors.ssh.losses import module_losses
from sniper.detectors.ssh.modules import AnchorMaps, DetectionModule, Fusion
from sniper.nn import box_deltas
from sniper.nn.anchors import Anchors
from sniper.nn.backbones import Trunk, build_trunk
from sniper.nn.class_rows import ClassRows, RowsOf
from sniper.nn.config import AnchorConfig
from sniper.nn.evaluating import evaluating
from sniper.nn.fixed import ScoredMap, Slots, best_of_maps
from sniper.nn.focus_head import FocusHead, focus_loss_of, focus_probability
from sniper.nn.matching import AnchorMatch, match_anchors
from sniper.structures import Batch, Detections, Images


class Ssh(Proposes, OnePass):
    """Three detection modules at strides 8, 16 and 32 of one trunk, each for its own sizes; nothing after them.

    Boxes of one class that overlap by more than ``nms_iou`` are suppressed here: one anchor in ten finds the same face.
    Proposals are the same boxes without a class and a threshold, by the probability of any object.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Trunk,
        fusion: Fusion,
        detection: list[DetectionModule],
        config: SshConfig,
        focus: FocusHead | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.fusion, self.detection = backbone, fusion, nn.ModuleList(detection)
        self.anchors = nn.ModuleList(
            Anchors(stride, AnchorConfig(scales=tuple(px / stride for px in sides), ratios=(1.0,)))
            for stride, sides in zip(STRIDES, config.anchors_px, strict=True)
        )
        self.focus, self.config = focus, config
        # What depends on the classes, for fine-tuning.
        self.class_layers: dict[str, ClassRows] = {
            f"detection.{number}.objects": RowsOf(repeats=module.anchors) for number, module in enumerate(detection)
        }
        self.register_buffer("mean", torch.tensor(config.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(3, 1, 1), persistent=False)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """``class_8``, ``box_8``, ``class_16``, ...: one of each for each stride; with a focus branch also ``focus``.

        Finite scalars, zero where there is nothing to learn. Nothing random is drawn.
        """
        features = self.backbone(self.normalise(batch))
        maps = self._maps(features)
        anchors = self._anchors(features)
        padded_hw = (batch.pixels.shape[2], batch.pixels.shape[3])
        with torch.no_grad():
            match = match_anchors(
                torch.cat(anchors), batch.boxes, batch.state, batch.valid_hw, padded_hw, self.config.anchor_match
            )
        losses: dict[str, Tensor] = {}
        first = 0
        for stride, own_maps, own_anchors in zip(STRIDES, maps, anchors, strict=True):
            part = slice(first, first + len(own_anchors))
            own = AnchorMatch(match.labels[:, part], match.objects[:, part])
            first = part.stop
            entropy, distance = module_losses(
                own_maps, own_anchors, batch.boxes, batch.labels, own, self.config.hard_examples
            )
            losses |= {f"class_{stride}": entropy, f"box_{stride}": distance * self.config.box_weight}
        if self.focus is not None:
            logits = self.focus(features[1])
            losses["focus"] = focus_loss_of(logits, batch, FOCUS_STRIDE, self.config.focus_labels, self.focus.recall)
        return losses

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
            useful = self._useful(images, everything=proposals)
            run = [k for k in range(len(STRIDES)) if detections or proposals if useful is None or useful[:, k].any()]
            maps = self._maps(shared, run)
            anchors = self._anchors(shared, run)
            probabilities = [one.logits.softmax(dim=2) for one in maps]
            found = [one[..., 1:] for one in probabilities]
            if useful is not None:  # what an input gives must not depend on the others of its batch
                found = [one * useful[:, k, None, None] for k, one in zip(run, found, strict=True)]
            return Outputs(
                self._best(maps, anchors, found, images, self.config.score_threshold) if detections else None,
                self._best(maps, anchors, [1 - one[..., :1] for one in probabilities], images, 0.0)
                if proposals
                else None,
                focus_probability(self.focus(shared[1])) if focus and self.focus is not None else None,
                None,
            )

    @property
    def stride(self) -> int:
        """Network px per cell of the middle one of the three maps: four such cells are seen well."""
        return self.config.stride

    def normalise(self, images: Images) -> Tensor:
        """(B, 3, H, W) pixels for the trunk; padding becomes 0, the mean colour, whatever the loader put there."""
        return images.normalised(self.mean, self.std)

    def _maps(self, features: list[Tensor], run: Sequence[int] = range(len(STRIDES))) -> list[AnchorMaps]:
        """Of the modules with the numbers ``run``."""
        return [self.detection[k](features[k] if k else self.fusion(*features[:2])) for k in run]

    def _useful(self, images: Images, *, everything: bool) -> Tensor | None:
        """(B, 3) bool: whether a module may find what is kept of each padded input; None: all may.

        The last one always runs, so that there is something to choose from.
        """
        if images.kept_px is None or everything:
            return None
        sides = [torch.tensor(own, device=images.kept_px.device) for own in self.config.anchors_px]
        useful = torch.stack([images.may_keep(own).any(dim=1) for own in sides], dim=1)
        useful[:, -1] = True
        return useful

    def _anchors(self, features: list[Tensor], run: Sequence[int] = range(len(STRIDES))) -> list[Tensor]:
        """(A, 4) xyxy px of each of the same modules."""
        return [self.anchors[k](features[k].shape[-2:]) for k in run]

    def fixed_outputs(self, images: Images) -> FixedOutputs:
        """For ``sniper export``; ``detectors.protocol.ExportableDetector``."""
        number = next(self.backbone.parameters()).dtype  # half precision ends where boxes begin
        shared = self.backbone(self.normalise(images).to(number))
        maps, anchors = self._maps(shared), self._anchors(shared)
        probabilities = [one.logits.softmax(dim=2) for one in maps]
        found = self._slots(maps, anchors, [one[..., 1:] for one in probabilities], images, self.config.score_threshold)
        proposed = self._slots(maps, anchors, [1 - one[..., :1] for one in probabilities], images, 0.0)
        focus = None if self.focus is None else focus_probability(self.focus(shared[1]))
        return FixedOutputs(*found, proposed.boxes, proposed.scores, proposed.counts, focus)

    def half_precision(self) -> None:
        """All layers in half precision; scores and boxes stay single."""
        for part in (self.backbone, self.fusion, self.detection, self.focus):
            if part is not None:
                part.half()

    def _slots(
        self, maps: list[AnchorMaps], anchors: list[Tensor], scores: list[Tensor], images: Images, threshold: float
    ) -> Slots:
        """The best of each module's (B, A, C) ``scores``, together, suppressed within their class."""
        config = self.config
        columns = zip(scores, (one.deltas for one in maps), anchors, strict=True)
        return best_of_maps(
            [ScoredMap(*column) for column in columns],
            lambda places, deltas: box_deltas.clip(box_deltas.decode(places, deltas), images.valid_hw),
            before_nms=config.before_nms, threshold=threshold, nms_iou=config.nms_iou, keep=config.max_detections,
        )  # fmt: skip

    def _best(
        self, maps: list[AnchorMaps], anchors: list[Tensor], scores: list[Tensor], images: Images, threshold: float
    ) -> list[Detections]:
        """The same as lists."""
        slots = self._slots(maps, anchors, scores, images, threshold)
        columns = zip(slots.boxes, slots.scores, slots.labels, slots.counts.tolist(), strict=True)
        return [Detections(boxes[:count], best[:count], labels[:count]) for boxes, best, labels, count in columns]


def build_ssh(config: SshConfig, num_classes: int, *, pretrained: bool = True) -> Ssh:
    """The detector of ``config`` for ``num_classes`` classes (background not counted).

    ``pretrained=False`` leaves ``config.weights`` unread, for when a checkpoint is loaded over it.

    Raises:
        RecipeError: an unknown backbone or one that does not have maps of strides 8, 16 and 32.
        CheckpointError: the weights cannot be had or do not fit.
    """
    backbone = build_trunk(
        config.backbone,
        STRIDES,
        weights=config.weights if pretrained else None,
        frozen_stages=config.leading_frozen,
        norm=config.norm,
    )
    fine, middle, coarse = backbone.map_channels
    inputs = (config.fused_channels, middle, coarse)
    return Ssh(
        backbone=backbone,
        fusion=Fusion(fine, middle, config.fused_channels, norm=config.module_norm),
        detection=[
            DetectionModule(
                inputs[number],
                config.channels[number],
                num_classes,
                anchors=len(config.anchors_px[number]),
                background_logits=config.background_logits[number],
                norm=config.module_norm,
            )
            for number in range(len(STRIDES))
        ],
        config=config,
        # Last, so that every other random weight is the same with and without.
        focus=FocusHead(middle, channels=config.focus_channels) if config.focus else None,
    )
