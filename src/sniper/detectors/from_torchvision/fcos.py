"""FCOS: a point inside an ignored object of its level, or in a crowd, that learns no object trains nothing.

The library's focal loss knows no such points: it is the loss of every logit. Theirs are replaced by a constant that is
surely background, whose loss is 0 and through which no gradient goes.
"""

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection import FCOS

from sniper.detectors.from_torchvision.detector import as_float
from sniper.detectors.from_torchvision.retinanet import TorchvisionRetinaNet
from sniper.nn.class_rows import ClassRows, RowsOf
from sniper.nn.ignore import ignored_points
from sniper.structures import Batch

SURELY_BACKGROUND = -100.0  # logit: its focal loss is 0 in single precision


class TorchvisionFCOS(TorchvisionRetinaNet):
    """``torchvision.models.detection.FCOS`` on chips; its anchors are squares of one stride around each point."""

    @property
    def class_layers(self) -> dict[str, ClassRows]:
        """One row a class."""
        return {"net.head.classification_head.cls_logits": RowsOf()}

    def class_scores(self, head: dict[str, Tensor]) -> Tensor:
        """(B, A, C): the class where the point is central."""
        return (head["cls_logits"].sigmoid() * head["bbox_ctrness"].sigmoid()).sqrt()

    def decoded(self, anchors: Tensor, deltas: Tensor) -> Tensor:
        """(B, K, 4) boxes, network px: distances of their sides from the point."""
        boxes: Tensor = self.net.box_coder.decode(deltas, anchors)
        return boxes

    def _losses(self, maps: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        head = as_float(self.net.head(list(maps.values())))
        anchors = self._anchors(maps)
        every = torch.cat(anchors)
        # The library's points are the corners of cells: those on the left and upper side of the chip are in no box.
        boxes = torch.where(batch.boxes <= 0, -1.0, batch.boxes)
        neither = ignored_points((every[:, :2] + every[:, 2:]) / 2, boxes, batch.state, _ranges_px(anchors))
        # The library matches points to objects and hands both to its head: this one leaves points out in between.
        parts = SimpleNamespace(
            center_sampling_radius=self.net.center_sampling_radius, head=_LeavingOut(self.net.head, neither)
        )
        targets, per_map = batch.targets(self.first_label), [len(one) for one in anchors]
        losses: dict[str, Tensor] = FCOS.compute_loss(parts, targets, head, [every] * len(targets), per_map)
        return losses


class _LeavingOut:
    """The library's head, whose losses leave out (B, A) points that learn no object."""

    def __init__(self, head: Any, neither: Tensor) -> None:
        self.head, self.neither = head, neither

    def compute_loss(
        self, targets: list[dict[str, Tensor]], outputs: dict[str, Tensor], anchors: list[Tensor], matched: list[Tensor]
    ) -> dict[str, Tensor]:
        left_out = self.neither & (torch.stack(matched) < 0)
        logits = outputs["cls_logits"].masked_fill(left_out.unsqueeze(-1), SURELY_BACKGROUND)
        losses: dict[str, Tensor] = self.head.compute_loss(targets, outputs | {"cls_logits": logits}, anchors, matched)
        return losses


def _ranges_px(anchors: list[Tensor]) -> Tensor:
    """(A, 2) distances from a point to the farthest side of an object that its level learns, network px."""
    found = []
    for level, squares in enumerate(anchors):
        size = squares[:, 2] - squares[:, 0]
        low = torch.zeros_like(size) if level == 0 else size * 4
        high = torch.full_like(size, math.inf) if level == len(anchors) - 1 else size * 8
        found.append(torch.stack((low, high), dim=-1))
    return torch.cat(found)
