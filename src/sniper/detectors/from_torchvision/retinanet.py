"""RetinaNet: anchors on ignored objects and in crowds are between the thresholds, where the library trains none."""

import torch
from torch import Tensor
from torchvision.ops import box_iou

from sniper.detectors.from_torchvision import fixed
from sniper.detectors.from_torchvision.detector import TorchvisionDetector, as_float
from sniper.detectors.from_torchvision.geometry import anchors_of
from sniper.detectors.from_torchvision.unlearned import unlearned_anchors
from sniper.detectors.protocol import FixedOutputs
from sniper.nn import box_deltas
from sniper.nn.class_rows import ClassRows, RowsOf
from sniper.structures import Batch, Images


class TorchvisionRetinaNet(TorchvisionDetector):
    """``torchvision.models.detection.RetinaNet`` on chips."""

    first_label = 0

    @property
    def class_layers(self) -> dict[str, ClassRows]:
        """The class layer has the classes of one anchor after those of another."""
        anchors = self.net.head.classification_head.num_anchors
        return {"net.head.classification_head.cls_logits": RowsOf(repeats=anchors)}

    @torch.no_grad()
    def fixed_outputs(self, images: Images) -> FixedOutputs:
        """For ``sniper export``; ``detectors.protocol.ExportableDetector``."""
        return fixed.one_stage(self, images)

    def class_scores(self, head: dict[str, Tensor]) -> Tensor:
        """(B, A, C) of what the head gives."""
        return head["cls_logits"].sigmoid()

    def decoded(self, anchors: Tensor, deltas: Tensor) -> Tensor:
        """(B, K, 4) boxes, network px, not clipped."""
        return box_deltas.decode(anchors, deltas)

    def half_precision(self) -> None:
        """Maps and heads in half precision; scores and boxes stay single."""
        fixed.halve((self.net.backbone, self.net.head, self.focus))

    def _losses(self, maps: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        head = as_float(self.net.head(list(maps.values())))
        anchors = torch.cat(self._anchors(maps))
        targets = batch.targets(self.first_label)
        neither = unlearned_anchors(anchors, batch, self.rule)
        matched = [
            self._matched(anchors, one["boxes"]).masked_fill(left_out, self.net.proposal_matcher.BETWEEN_THRESHOLDS)
            for one, left_out in zip(targets, neither, strict=True)
        ]
        losses: dict[str, Tensor] = self.net.head.compute_loss(targets, head, [anchors] * len(targets), matched)
        return losses

    def _matched(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """(A,) object of each anchor, or the library's numbers for background and for between the thresholds."""
        if len(boxes) == 0:
            background = self.net.proposal_matcher.BELOW_LOW_THRESHOLD
            return torch.full((len(anchors),), background, dtype=torch.int64, device=anchors.device)
        matched: Tensor = self.net.proposal_matcher(box_iou(boxes, anchors))
        return matched

    def _found(self, maps: dict[str, Tensor], padded_hw: tuple[int, int]) -> list[dict[str, Tensor]]:
        head, anchors = as_float(self.net.head(list(maps.values()))), self._anchors(maps)
        per_map = [len(one) for one in anchors]
        images = len(head["cls_logits"])
        split = {name: list(torch.split(value, per_map, dim=1)) for name, value in head.items()}
        found: list[dict[str, Tensor]] = self.net.postprocess_detections(
            split, [anchors] * images, [padded_hw] * images
        )
        return found

    def _anchors(self, maps: dict[str, Tensor]) -> list[Tensor]:
        return anchors_of(self.net.anchor_generator, list(maps.values()), self.geometry)
