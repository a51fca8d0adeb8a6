"""SSD and SSDlite: a default box on an ignored object or in a crowd is no object, and no hard negative either.

The library takes the negatives with the largest loss. The logits of such boxes are replaced by a constant that is
surely background: their loss is 0, they come last among the negatives, and no gradient goes through them.
"""

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from sniper.detectors.from_torchvision.detector import TorchvisionDetector, as_float
from sniper.detectors.from_torchvision.geometry import default_boxes_of
from sniper.detectors.from_torchvision.unlearned import unlearned_anchors
from sniper.nn.class_rows import ClassRows, RowsOf
from sniper.structures import Batch, Images

SURELY_OTHER = -1e4  # logit of every class but background
BACKGROUND = -1  # what the library's matcher says of a box without an object


class TorchvisionSSD(TorchvisionDetector):
    """``torchvision.models.detection.SSD`` on chips. In a chip without objects the library learns nothing."""

    first_label = 1
    min_px = 320  # less leaves no cells for the coarsest maps

    @property
    def class_layers(self) -> dict[str, ClassRows]:
        """Each map has its class layer, with the classes of one default box after those of another."""
        prefix, layers = "net.head.classification_head.module_list", self.net.head.classification_head.module_list
        per_cell = self.net.anchor_generator.num_anchors_per_location()
        return {
            f"{prefix}.{place}{f'.{len(layer) - 1}' if isinstance(layer, nn.Sequential) else ''}": RowsOf(True, boxes)
            for place, (layer, boxes) in enumerate(zip(layers, per_cell, strict=True))
        }

    def padded_hw(self, images: Images) -> tuple[int, int]:
        """Size of the network's input, px; one of the library's own size stays as it is."""
        if tuple(images.pixels.shape[2:]) == (self._own_px, self._own_px):
            return self._own_px, self._own_px
        return super().padded_hw(images)

    @property
    def _own_px(self) -> int:
        """Side of the input that the library resizes images to."""
        return int(self.net.transform.fixed_size[0])

    def _losses(self, maps: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        head = as_float(self.net.head(list(maps.values())))
        anchors = self._default_boxes(maps, self.padded_hw(batch))
        neither = unlearned_anchors(anchors, batch, self.rule)
        background = torch.full((head["cls_logits"].shape[2],), SURELY_OTHER, device=anchors.device)
        background[0] = 0.0
        logits = torch.where(neither.unsqueeze(-1), background, head["cls_logits"])
        targets = batch.targets(self.first_label)
        matched = [
            self._matched(anchors, one["boxes"]).masked_fill(left_out, BACKGROUND)
            for one, left_out in zip(targets, neither, strict=True)
        ]
        losses: dict[str, Tensor] = self.net.compute_loss(
            targets, head | {"cls_logits": logits}, [anchors] * len(targets), matched
        )
        return losses

    def _matched(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """(A,) object of each default box, or -1."""
        if len(boxes) == 0:
            return torch.full((len(anchors),), BACKGROUND, dtype=torch.int64, device=anchors.device)
        matched: Tensor = self.net.proposal_matcher(box_iou(boxes, anchors))
        return matched

    def _found(self, maps: dict[str, Tensor], padded_hw: tuple[int, int]) -> list[dict[str, Tensor]]:
        head, anchors = as_float(self.net.head(list(maps.values()))), self._default_boxes(maps, padded_hw)
        images = len(head["cls_logits"])
        found: list[dict[str, Tensor]] = self.net.postprocess_detections(head, [anchors] * images, [padded_hw] * images)
        return found

    def _default_boxes(self, maps: dict[str, Tensor], padded_hw: tuple[int, int]) -> Tensor:
        generator = self.net.anchor_generator
        return default_boxes_of(generator, list(maps.values()), self.geometry, padded_hw, self._own_px)
