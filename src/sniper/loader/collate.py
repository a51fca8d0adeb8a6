"""Samples into a batch."""

from collections.abc import Sequence

import numpy as np
import torch

from sniper.loader.sample import Sample
from sniper.pixels.resample import BORDER_RGB
from sniper.structures import Batch, ObjectState

INPUT_MULTIPLE = 128  # as at inference: few shapes, for each of which a GPU prepares its kernels anew


def collate(samples: Sequence[Sample]) -> Batch:
    """One batch of at least one sample, on the CPU, pixels uint8.

    Objects are padded to the sample with the most (N may be 0). Padded inputs of one size stay as they are;
    otherwise all are padded, at the right and the bottom, to the largest sides rounded up to a multiple of 128.
    """
    count = max(len(sample.boxes) for sample in samples)
    boxes = np.zeros((len(samples), count, 4), dtype=np.float32)
    labels = np.full((len(samples), count), -1, dtype=np.int64)
    state = np.full((len(samples), count), int(ObjectState.EMPTY), dtype=np.int64)
    for row, sample in enumerate(samples):
        own = len(sample.boxes)
        boxes[row, :own] = sample.boxes
        labels[row, :own] = sample.labels
        state[row, :own] = sample.state
    valid_wh = np.asarray([sample.valid_wh for sample in samples], dtype=np.int64)
    return Batch(
        pixels=torch.from_numpy(_inputs(samples)),
        valid_hw=torch.from_numpy(valid_wh[:, ::-1].copy()),
        scale=torch.tensor([sample.scale for sample in samples], dtype=torch.float32),
        boxes=torch.from_numpy(boxes),
        labels=torch.from_numpy(labels),
        state=torch.from_numpy(state),
        range_px=torch.tensor([sample.range_px for sample in samples], dtype=torch.float32),
        chip_index=torch.tensor([sample.chip for sample in samples], dtype=torch.int64),
        polygons=_polygons(samples, count),
        known_classes=_known_classes(samples),
    )


def _known_classes(samples: Sequence[Sample]) -> torch.Tensor | None:
    """(B, C) bool; None where every image was checked for every class. All samples are of one table."""
    known = [sample.known_classes for sample in samples if sample.known_classes is not None]
    return torch.from_numpy(np.stack(known)) if known else None


def _polygons(samples: Sequence[Sample], count: int) -> torch.Tensor | None:
    """(B, N, P) outlines, rows without any having ``k = 0``; None where samples carry none."""
    known = [(row, sample.outlines) for row, sample in enumerate(samples) if sample.outlines is not None]
    if not known:
        return None
    polygons = np.full((len(samples), count, max(own.shape[1] for _, own in known)), -1, dtype=np.float32)
    polygons[:, :, 1] = 0
    for row, own in known:
        polygons[row, : len(own), : own.shape[1]] = own
    return torch.from_numpy(polygons)


def _inputs(samples: Sequence[Sample]) -> np.ndarray:
    """(B, 3, H, W) uint8."""
    shapes = {sample.pixels.shape for sample in samples}
    if len(shapes) == 1:
        return np.stack([sample.pixels for sample in samples])
    height, width = (-(-max(shape[axis] for shape in shapes) // INPUT_MULTIPLE) * INPUT_MULTIPLE for axis in (1, 2))
    inputs = np.empty((len(samples), 3, height, width), dtype=np.uint8)
    inputs[:] = np.asarray(BORDER_RGB, dtype=np.uint8)[:, None, None]
    for padded, sample in zip(inputs, samples, strict=True):
        padded[:, : sample.pixels.shape[1], : sample.pixels.shape[2]] = sample.pixels
    return inputs
