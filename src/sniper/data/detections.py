"""The detection table: boxes with scores for the images of a dataset, and its COCO results file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from sniper.boxes import xyxy_to_xywh
from sniper.data.run_lengths import RunLengths
from sniper.files import replacing

_ROWS_A_PIECE = 20_000


@dataclass(frozen=True, slots=True, eq=False)
class DetectionTable:
    """Boxes with scores for the images of a dataset: predictions, or class-free proposals (labels 0).

    I images, N boxes; ``boxes_xyxy[offsets[i]:offsets[i + 1]]`` are those of image ``i``, in no promised order.
    """

    image_ids: NDArray[np.int64]  # (I,)
    offsets: NDArray[np.int64]  # (I + 1,)
    boxes_xyxy: NDArray[np.float32]  # (N, 4) original px
    scores: NDArray[np.float32]  # (N,)
    labels: NDArray[np.int32]  # (N,)
    levels: NDArray[np.int16]  # (N,) pyramid level each was found at; -1 where that is not known
    masks: RunLengths | None = None  # N; None where none were predicted

    def __len__(self) -> int:
        return len(self.image_ids)

    @classmethod
    def from_arrays(
        cls,
        image_row: Sequence[int] | NDArray[np.integer],
        boxes_xyxy: NDArray[np.floating],
        scores: NDArray[np.floating],
        labels: NDArray[np.integer],
        levels: NDArray[np.integer] | None,
        image_ids: NDArray[np.integer],
        masks: RunLengths | None = None,
    ) -> Self:
        """Group N detections by image, keeping their order within each.

        ``image_row`` (N,) are rows of ``image_ids`` (I,), as in the annotation table; ``levels`` None means unknown.
        """
        rows = np.asarray(image_row, np.int64)
        order = np.argsort(rows, kind="stable")
        offsets = np.zeros(len(image_ids) + 1, np.int64)
        np.cumsum(np.bincount(rows, minlength=len(image_ids)), out=offsets[1:])
        found_at = np.full(len(rows), -1) if levels is None else np.asarray(levels)
        return cls(
            np.asarray(image_ids, np.int64),
            offsets,
            np.asarray(boxes_xyxy, np.float32).reshape(-1, 4)[order],
            np.asarray(scores, np.float32)[order],
            np.asarray(labels, np.int32)[order],
            found_at[order].astype(np.int16),
            None if masks is None else masks.take(order),
        )

    @property
    def num_objects(self) -> int:
        """N."""
        return len(self.scores)

    def objects(self, image_row: int) -> slice:
        """Rows of the boxes of an image."""
        return slice(int(self.offsets[image_row]), int(self.offsets[image_row + 1]))

    def of_one_class(self) -> Self:
        """The same detections, all of label 0."""
        return replace(self, labels=np.zeros_like(self.labels))

    def to_coco_results(self, class_ids: NDArray[np.integer]) -> list[dict[str, Any]]:
        """Entries of a COCO results file: ``image_id``, ``category_id``, ``bbox`` (x, y, w, h) and ``score``.

        Detections with masks also have ``segmentation``, run lengths of the image's size.
        ``class_ids`` (C,) are the dataset's ids of the labels. Boxes are rounded to 0.001 px;
        scores are not, so that ranks stay.
        """
        return [entry for piece in self._pieces(class_ids) for entry in piece]

    def write_coco_results(self, path: Path | str, class_ids: NDArray[np.integer]) -> None:
        """Write ``to_coco_results`` as JSON, ready for an evaluation server, completely or not at all.

        Raises:
            StorageError: the file cannot be written.
        """
        with replacing(path) as partial, partial.open("wb") as file:
            file.write(b"[")
            for number, piece in enumerate(self._pieces(class_ids)):
                file.write((b",\n" if number else b"") + b",\n".join(map(msgspec.json.encode, piece)))
            file.write(b"]\n")

    def _pieces(self, class_ids: NDArray[np.integer]) -> Iterator[list[dict[str, Any]]]:
        image_ids = np.repeat(self.image_ids, np.diff(self.offsets))
        categories = np.asarray(class_ids)[self.labels]
        for start in range(0, self.num_objects, _ROWS_A_PIECE):
            rows = slice(start, start + _ROWS_A_PIECE)
            columns = (
                image_ids[rows].tolist(),
                categories[rows].tolist(),
                np.round(xyxy_to_xywh(self.boxes_xyxy[rows].astype(np.float64)), 3).tolist(),
                self.scores[rows].tolist(),
            )
            names = ("image_id", "category_id", "bbox", "score")
            piece = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
            if self.masks is not None:
                for row, entry in enumerate(piece, start):
                    entry["segmentation"] = self.masks[row]
            yield piece
