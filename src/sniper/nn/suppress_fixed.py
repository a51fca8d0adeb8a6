"""Greedy suppression as one operator, for what is exported: a graph cannot hold the loops behind ``keep_greedily``."""

import torch
from torch import Tensor

from sniper.nn.suppress import keep_greedily


@torch.library.custom_op("sniper::keep_greedily", mutates_args=())
def keep_fixed(boxes: Tensor, candidates: Tensor, keep: int, iou: float) -> tuple[Tensor, Tensor]:
    """``keep_greedily`` of half-open boxes; ``sniper.to_onnx`` writes it as ONNX's NonMaxSuppression."""
    return keep_greedily(boxes, candidates, keep, iou)


@keep_fixed.register_fake
def _shapes(boxes: Tensor, candidates: Tensor, keep: int, iou: float) -> tuple[Tensor, Tensor]:
    kept = boxes.new_zeros((boxes.shape[0], keep), dtype=torch.int64)
    return kept, kept.new_zeros(boxes.shape[0])
