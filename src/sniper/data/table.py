"""The annotation table and its twin, the detection table: flat columns, grouped by image through offsets."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class AnnotationTable:
    """All images and boxes of a dataset. I images, N boxes, C classes.

    ``boxes_xyxy[offsets[i]:offsets[i + 1]]`` are the boxes of image ``i``. Boxes satisfy
    ``0 <= x1 < x2 <= width`` and ``0 <= y1 < y2 <= height``. Images without boxes are legal.
    """

    root: Path  # file names are relative to this folder
    file_names: tuple[str, ...]  # I
    image_ids: NDArray[np.int64]  # (I,) ids of the dataset, or 1..I where it has none
    sizes_wh: NDArray[np.int32]  # (I, 2) width and height, original px
    offsets: NDArray[np.int64]  # (I + 1,)
    boxes_xyxy: NDArray[np.float32]  # (N, 4) original px
    labels: NDArray[np.int32]  # (N,) index into class_names
    crowd: NDArray[np.bool_]  # (N,) crowd or difficult: an ignored region, never learned
    areas: NDArray[np.float32]  # (N,) area by the annotation (of the mask where there is one), square px
    annotation_ids: NDArray[np.int64]  # (N,)
    class_names: tuple[str, ...]  # C
    class_ids: NDArray[np.int64]  # (C,) ids of the dataset, for results files

    def __len__(self) -> int:
        return len(self.image_ids)


@dataclass(frozen=True, slots=True)
class DetectionTable:
    """Boxes with scores for the images of a dataset: predictions, or class-free proposals (labels 0)."""

    image_ids: NDArray[np.int64]  # (I,)
    offsets: NDArray[np.int64]  # (I + 1,)
    boxes_xyxy: NDArray[np.float32]  # (N, 4) original px
    scores: NDArray[np.float32]  # (N,)
    labels: NDArray[np.int32]  # (N,)
    levels: NDArray[np.int16]  # (N,) pyramid level each was found at
