"""Somebody's own detector, which trains, detects and says nothing about itself."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from sniper.structures import Batch, Detections, Images


class Cells(nn.Module):
    """One convolution that tells where objects are, 16 network px a cell."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.Conv2d(3, 1, 16, stride=16, padding=0)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        scores = self.cells(batch.pixels)[:, 0]
        target = torch.zeros_like(scores)
        for number, one in enumerate(batch.targets()):
            x, y = ((one["boxes"][:, :2] + one["boxes"][:, 2:]) / 32).long().unbind(1)
            target[number, y.clamp(max=target.shape[1] - 1), x.clamp(max=target.shape[2] - 1)] = 1
        return {"cells": functional.binary_cross_entropy_with_logits(scores, target)}

    def detect(self, images: Images) -> list[Detections]:
        found = []
        for scores in self.cells(images.pixels)[:, 0].sigmoid():
            best = scores.flatten().topk(3)
            corner = torch.stack([best.indices % scores.shape[1], best.indices // scores.shape[1]], dim=1) * 16.0
            labels = torch.zeros_like(best.indices)
            found.append(Detections(torch.cat([corner, corner + 16], dim=1), best.values, labels))
        return found
