"""The same photos through torch and through onnxruntime, and what agreement is."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sniper.inference.backend import Looked


def batch_of(photos: list[Path], size_wh: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Photos in the corners of padded inputs."""
    width, height = size_wh
    inputs = np.zeros((len(photos), height, width, 3), np.uint8)
    valid_hw = np.zeros((len(photos), 2), np.int64)
    for row, path in enumerate(photos):
        pixels = np.asarray(Image.open(path).convert("RGB"))[: height - 9 * row, : width - 5]
        valid_hw[row] = pixels.shape[:2]
        inputs[row, : pixels.shape[0], : pixels.shape[1]] = pixels
    return inputs, valid_hw


class Rows(NamedTuple):
    """Detections in any order."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.integer]


def assert_same(one: Rows, other: Rows) -> None:
    """Each row of one is a row of the other: boxes to 0.05 px, scores to 1e-4, labels exactly."""
    assert len(one.scores) == len(other.scores)
    far = np.abs(one.boxes[:, None] - other.boxes).max(axis=2) > 0.05
    far |= np.abs(one.scores[:, None] - other.scores) > 1e-4
    far |= one.labels[:, None] != other.labels
    assert not far.all(axis=1).any()
    assert not far.all(axis=0).any()


def rows_of(found: Looked, image: int) -> Rows:
    own = found.rows(image)
    return Rows(found.boxes[own], found.scores[own], found.labels[own])
