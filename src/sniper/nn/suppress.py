"""Exact greedy suppression, until enough boxes are kept: on the CPU by numba, on a CUDA device by one Triton kernel.

Neither reads anything back from the device, so a training step does not wait for it.
"""

import logging
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sniper.compiled import compiled

logger = logging.getLogger("sniper")


def keep_greedily(
    boxes: Tensor,
    candidates: Tensor,
    keep: int,
    iou: float,
    *,
    plus_one_sides: bool = False,
    plus_one_areas: bool = False,
) -> tuple[Tensor, Tensor]:
    """Which of (B, K, 4) ``boxes``, best first, stay: (B, keep) indices and (B,) how many of them count.

    Of each image only the first ``candidates`` (B,) take part. A box goes if its IoU with a kept one is above ``iou``.
    Boxes are half-open xyxy. For the inclusive ones of 2018, ``plus_one_sides`` makes intersections those of whole
    pixels, ``plus_one_areas`` areas too (the training operator leaves that out). Indices beyond the count are 0.
    """
    sides, areas = float(plus_one_sides), float(plus_one_areas)
    if boxes.device.type == "cuda" and (kernel := _triton_kernel()) is not None:
        kept: tuple[Tensor, Tensor] = kernel.keep_on_device(boxes, candidates, keep, iou, sides, areas)
        return kept
    of_images = np.zeros((len(boxes), keep), np.int64)
    counts = np.zeros(len(boxes), np.int64)
    _keep_images(
        boxes.float().cpu().contiguous().numpy(), candidates.cpu().numpy(),
        np.float32(iou), np.float32(sides), np.float32(areas), of_images, counts,
    )  # fmt: skip
    return torch.from_numpy(of_images).to(boxes.device), torch.from_numpy(counts).to(boxes.device)


_STATE: dict[str, ModuleType | None] = {}


def _triton_kernel() -> ModuleType | None:
    """The module of the device's kernel; None where Triton is missing or cannot compile here, which is told once."""
    if "kernel" not in _STATE:
        try:
            from sniper.nn import suppress_triton

            suppress_triton.rehearse()
            _STATE["kernel"] = suppress_triton
        except Exception as error:  # no Triton, no C compiler for its launcher, a card that it does not know
            logger.warning("suppression runs on the CPU: Triton's kernel cannot be used here (%s)", error)
            _STATE["kernel"] = None
    return _STATE["kernel"]


@compiled
def _keep_images(
    boxes: NDArray[np.float32],
    candidates: NDArray[np.int64],
    iou: np.float32,
    side_extra: np.float32,
    area_extra: np.float32,
    kept: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> None:
    """Compare each box with the kept ones only: what enters is bounded by what is kept, not by the pairs."""
    zero = np.float32(0)
    max_count = kept.shape[1]
    near = np.empty((5, max_count), np.float32)
    for image in range(len(boxes)):
        count = 0
        for i in range(candidates[image]):
            if count == max_count:
                break
            x1, y1, x2, y2 = boxes[image, i, 0], boxes[image, i, 1], boxes[image, i, 2], boxes[image, i, 3]
            area = (x2 - x1 + area_extra) * (y2 - y1 + area_extra)
            stays = True
            for j in range(count):
                width = max(min(x2, near[2, j]) - max(x1, near[0, j]) + side_extra, zero)
                height = max(min(y2, near[3, j]) - max(y1, near[1, j]) + side_extra, zero)
                shared = width * height
                if shared / (near[4, j] + area - shared) > iou:
                    stays = False
                    break
            if stays:
                near[0, count], near[1, count], near[2, count], near[3, count] = x1, y1, x2, y2
                near[4, count] = area
                kept[image, count] = i
                count += 1
        counts[image] = count
