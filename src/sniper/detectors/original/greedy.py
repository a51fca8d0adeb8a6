"""Exact greedy suppression in the original's inclusive convention, until enough boxes are kept."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sniper.compiled import compiled


def keep_greedily(
    boxes: Tensor, candidates: Tensor, keep: int, iou: float, *, plus_one_areas: bool
) -> tuple[Tensor, Tensor]:
    """Which of (B, K, 4) inclusive ``boxes``, best first, stay: (B, keep) indices and (B,) how many of them count.

    Of each image only the first ``candidates`` (B,) take part. A box goes if its IoU with a kept one is above ``iou``.
    Intersections are of whole pixels; areas too only with ``plus_one_areas`` (the training operator leaves the one
    out). Indices beyond the count are 0.

    It runs on the CPU wherever the boxes are. Each kept box depends on the one before: on a GPU these are ``keep``
    rounds of 30 small kernels, two thirds of all that a training step launched (benchmarks/RESULTS.md, "A GPU").
    """
    kept = np.zeros((len(boxes), keep), np.int64)
    counts = np.zeros(len(boxes), np.int64)
    limit, extra = np.float32(iou), np.float32(plus_one_areas)
    _keep_images(boxes.float().cpu().contiguous().numpy(), candidates.cpu().numpy(), limit, extra, kept, counts)
    return torch.from_numpy(kept).to(boxes.device), torch.from_numpy(counts).to(boxes.device)


@compiled
def _keep_images(
    boxes: NDArray[np.float32],
    candidates: NDArray[np.int64],
    iou: np.float32,
    extra: np.float32,
    kept: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> None:
    """Compare each box with the kept ones only: what enters is bounded by what is kept, not by the pairs."""
    one, zero = np.float32(1), np.float32(0)
    max_count = kept.shape[1]
    near = np.empty((5, max_count), np.float32)
    for image in range(len(boxes)):
        count = 0
        for i in range(candidates[image]):
            x1, y1, x2, y2 = boxes[image, i, 0], boxes[image, i, 1], boxes[image, i, 2], boxes[image, i, 3]
            area = (x2 - x1 + extra) * (y2 - y1 + extra)
            stays = True
            for j in range(count):
                width = max(min(x2, near[2, j]) - max(x1, near[0, j]) + one, zero)
                height = max(min(y2, near[3, j]) - max(y1, near[1, j]) + one, zero)
                shared = width * height
                if shared / (near[4, j] + area - shared) > iou:
                    stays = False
                    break
            if stays:
                near[0, count], near[1, count], near[2, count], near[3, count] = x1, y1, x2, y2
                near[4, count] = area
                kept[image, count] = i
                count += 1
                if count == max_count:
                    break
        counts[image] = count
