"""Faster and Mask R-CNN: anchors and regions on ignored objects and in crowds get the label that samplers pass over."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.models.detection.rpn import concat_box_prediction_layers

from sniper.detectors.from_torchvision import fixed, masks
from sniper.detectors.from_torchvision.detector import TorchvisionDetector
from sniper.detectors.from_torchvision.geometry import anchors_of
from sniper.detectors.from_torchvision.unlearned import unlearned_anchors, unlearned_regions
from sniper.detectors.one_pass import Proposes
from sniper.detectors.protocol import FixedOutputs, Outputs
from sniper.errors import RecipeError
from sniper.nn.class_rows import ClassRows, RowsOf
from sniper.nn.evaluating import evaluating
from sniper.structures import Batch, Images

PASSED_OVER = -1  # label that the library's samplers draw from neither positives nor negatives


class _FirstStage(NamedTuple):
    """What the proposal network says of the A anchors of B inputs."""

    objectness: Tensor  # (B * A, 1) logits
    deltas: Tensor  # (B * A, 4)
    anchors: Tensor  # (A, 4) network px
    per_map: list[int]  # anchors of each map
    images: int


class TorchvisionRCNN(Proposes, TorchvisionDetector):
    """``torchvision.models.detection.FasterRCNN`` or ``MaskRCNN`` on chips; it proposes regions, too."""

    first_label = 1

    @property
    def class_layers(self) -> dict[str, ClassRows]:
        """Background has the first row; boxes have four rows a class."""
        layers: dict[str, ClassRows] = {
            "net.roi_heads.box_predictor.cls_score": RowsOf(True),
            "net.roi_heads.box_predictor.bbox_pred": RowsOf(True, width=4),
        }
        if self.predicts_masks:
            layers["net.roi_heads.mask_predictor.mask_fcn_logits"] = RowsOf(True)
        return layers

    @property
    def predicts_masks(self) -> bool:
        """Whether there is a mask branch."""
        return bool(self.net.roi_heads.has_mask())

    def proposal_losses(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of the proposal network alone, for training proposals before negatives are mined."""
        return self._proposal_losses(self._first_stage(self.maps(batch)), batch)

    @torch.no_grad()
    def predict_masks(self, features: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        """(N, 28, 28) probabilities in (N, 4) ``boxes`` (network px) of the padded input of ``features`` (F, h, w)."""
        with evaluating(self):
            heads = self.net.roi_heads
            strides = [one.stride for one in self.geometry[: len(heads.mask_roi_pool.featmap_names)]]
            return masks.predicted(heads, features, strides, boxes, labels + self.first_label)

    @torch.no_grad()
    def fixed_outputs(self, images: Images) -> FixedOutputs:
        """For ``sniper export``; ``detectors.protocol.ExportableDetector``."""
        return fixed.faster_rcnn(self, images)

    def half_precision(self) -> None:
        """Maps and heads in half precision; regions are cut out, scored and moved in single."""
        heads = self.net.roi_heads
        fixed.halve((self.net.backbone, self.net.rpn.head, heads.box_head, heads.box_predictor, self.focus))

    def _losses(self, maps: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        padded_hw, first = self.padded_hw(batch), self._first_stage(maps)
        losses = self._proposal_losses(first, batch)
        return self._region_losses(maps, self._proposed(first, padded_hw)[0], batch, padded_hw) | losses

    def _first_stage(self, maps: dict[str, Tensor]) -> _FirstStage:
        rpn, levels = self.net.rpn, list(maps.values())
        objectness, deltas = rpn.head(levels)
        per_map = [one[0].numel() for one in objectness]
        objectness, deltas = concat_box_prediction_layers(objectness, deltas)
        anchors = torch.cat(anchors_of(rpn.anchor_generator, levels, self.geometry))
        return _FirstStage(objectness.float(), deltas.float(), anchors, per_map, len(levels[0]))

    def _proposed(self, first: _FirstStage, padded_hw: tuple[int, int]) -> tuple[list[Tensor], list[Tensor]]:
        """Boxes and their objectness in [0, 1] of each input, best first."""
        boxes = self.net.rpn.box_coder.decode(first.deltas.detach(), [first.anchors] * first.images)
        found: tuple[list[Tensor], list[Tensor]] = self.net.rpn.filter_proposals(
            boxes.view(first.images, -1, 4), first.objectness, [padded_hw] * first.images, first.per_map
        )
        return found

    def _proposal_losses(self, first: _FirstStage, batch: Batch) -> dict[str, Tensor]:
        rpn, anchors = self.net.rpn, [first.anchors] * first.images
        labels, boxes = rpn.assign_targets_to_anchors(anchors, batch.targets(self.first_label))
        neither = unlearned_anchors(first.anchors, batch, self.rule)
        labels = [one.masked_fill(left_out, PASSED_OVER) for one, left_out in zip(labels, neither, strict=True)]
        losses = rpn.compute_loss(first.objectness, first.deltas, labels, rpn.box_coder.encode(boxes, anchors))
        nothing = (torch.stack(labels) == PASSED_OVER).all()  # then the library's means are of nothing
        return {
            name: loss.masked_fill(nothing, 0.0)
            for name, loss in zip(("loss_objectness", "loss_rpn_box_reg"), losses, strict=True)
        }

    def _region_losses(
        self, maps: dict[str, Tensor], proposals: list[Tensor], batch: Batch, padded_hw: tuple[int, int]
    ) -> dict[str, Tensor]:
        heads, targets = self.net.roi_heads, batch.targets(self.first_label)
        boxes = [one["boxes"] for one in targets]
        regions = heads.add_gt_proposals(proposals, boxes)
        matched, labels = heads.assign_targets_to_proposals(regions, boxes, [one["labels"] for one in targets])
        labels = [
            one.masked_fill(unlearned_regions(own, one > 0, objects, state, self.rule), PASSED_OVER)
            for one, own, objects, state in zip(labels, regions, batch.boxes, batch.state, strict=True)
        ]
        chosen = heads.subsample(labels)
        regions, labels, matched = (
            [one[some] for one, some in zip(column, chosen, strict=True)] for column in (regions, labels, matched)
        )
        if not sum(map(len, regions)):
            return self._no_region_losses(maps)
        learned = [
            own[one] if len(own) else own.new_zeros(len(one), 4) for own, one in zip(boxes, matched, strict=True)
        ]
        logits, deltas = self._of_regions(maps, regions, padded_hw)
        losses = fastrcnn_loss(logits, deltas, labels, heads.box_coder.encode(learned, regions))
        found = dict(zip(("loss_classifier", "loss_box_reg"), losses, strict=True))
        if self.predicts_masks:
            if batch.polygons is None:
                raise RecipeError(
                    "the training data have no masks, and this detector learns them; give data with outlines, or "
                    "another model.name"
                )
            found["loss_mask"] = masks.loss(heads, maps, masks.Learned(regions, labels, matched), batch, padded_hw)
        return found

    def _no_region_losses(self, maps: dict[str, Tensor]) -> dict[str, Tensor]:
        """Zeros, for a batch in which no region trains."""
        zero = torch.stack([one.sum() for one in maps.values()]).sum() * 0.0
        names = ["loss_classifier", "loss_box_reg", *(["loss_mask"] if self.predicts_masks else [])]
        return dict.fromkeys(names, zero)

    def _of_regions(
        self, maps: dict[str, Tensor], regions: list[Tensor], padded_hw: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Class logits and box deltas of all regions, one input after the other."""
        heads = self.net.roi_heads
        pooled = heads.box_roi_pool(maps, regions, [padded_hw] * len(regions))
        logits, deltas = heads.box_predictor(heads.box_head(pooled))
        return logits.float(), deltas.float()

    def _regions(self, maps: dict[str, Tensor], images: Images, *, detections: bool, proposals: bool) -> Outputs:
        if not detections and not proposals:
            return Outputs()
        padded_hw = self.padded_hw(images)
        boxes, scores = self._proposed(self._first_stage(maps), padded_hw)
        found = self._second_stage(maps, boxes, padded_hw) if detections else []
        proposed = [
            {"boxes": own, "scores": one, "labels": torch.full_like(one, self.first_label, dtype=torch.int64)}
            for own, one in zip(boxes, scores, strict=True)
        ]
        return Outputs(
            self._all_shown(found, images) if detections else None,
            self._all_shown(proposed, images) if proposals else None,
        )

    def _found(self, maps: dict[str, Tensor], padded_hw: tuple[int, int]) -> list[dict[str, Tensor]]:
        return self._second_stage(maps, self._proposed(self._first_stage(maps), padded_hw)[0], padded_hw)

    def _second_stage(
        self, maps: dict[str, Tensor], proposals: list[Tensor], padded_hw: tuple[int, int]
    ) -> list[dict[str, Tensor]]:
        logits, deltas = self._of_regions(maps, proposals, padded_hw)
        columns = self.net.roi_heads.postprocess_detections(logits, deltas, proposals, [padded_hw] * len(proposals))
        return [dict(zip(("boxes", "scores", "labels"), one, strict=True)) for one in zip(*columns, strict=True)]

    def _mask_features(self, maps: dict[str, Tensor]) -> list[Tensor] | None:
        return list(masks.packed(self.net.roi_heads, maps)) if self.predicts_masks else None
