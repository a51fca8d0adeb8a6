"""What prediction gives: detections of one image or frame, and of all."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sniper.data.run_lengths import RunLengths
from sniper.errors import DataError
from sniper.inference.images import ImageDetections
from sniper.pixels.georeference import GeoReference
from sniper.report.masks import trace_masks
from sniper.writers.geojson import feature_collection, write_geojson


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was found in one image or video frame."""

    path: Path
    frame: int | None  # of a video, from 0
    boxes_xyxy: NDArray[np.float32]  # (N, 4) original px
    scores: NDArray[np.float32]  # (N,)
    labels: NDArray[np.int32]  # (N,)
    class_names: tuple[str, ...]
    masks: RunLengths | None = None  # (N,) of the image's size, from a detector that predicts them
    pixels_processed: int = 0  # padded input pixels that the network saw
    pixels_full: int = 0  # padded input pixels of the full pyramid
    geo: GeoReference | None = None  # of a geo-referenced image: the way from its pixels to the ground
    cut_score: float = 0.0  # best score that ``inference.merge.max_per_image`` cut off; 0: none

    @classmethod
    def of(
        cls,
        found: ImageDetections,
        path: Path,
        class_names: tuple[str, ...],
        *,
        min_score: float,
        frame: int | None = None,
        geo: GeoReference | None = None,
    ) -> "Prediction":
        """The detections of an image with at least ``min_score``."""
        kept = np.flatnonzero(found.scores >= min_score)
        masks = None if found.masks is None else found.masks.take(kept)
        columns = found.boxes_xyxy[kept], found.scores[kept], found.labels[kept]
        pixels = found.pixels_processed, found.pixels_full
        return cls(path, frame, *columns, class_names, masks, *pixels, geo, found.cut_score)

    def geojson(self) -> dict[str, Any]:
        """Masks, or boxes where there are none, on the ground, as ``writers.geojson.feature_collection`` gives them.

        Raises:
            DataError: the image does not say where it lies.
        """
        return feature_collection(self._located(), *self._on_ground())

    def write_geojson(self, path: Path | str) -> None:
        """Write ``geojson`` as a file.

        Raises:
            DataError: the image does not say where it lies.
            StorageError: the file cannot be written.
        """
        write_geojson(path, self._located(), *self._on_ground())

    def _located(self) -> GeoReference:
        if self.geo is None:
            raise DataError(
                f"{self.path} does not say where it lies, so there is no GeoJSON of it; give a GeoTIFF, and install "
                "the extra geotiff"
            )
        return self.geo

    def _on_ground(self) -> tuple[Any, ...]:
        names = [self.class_names[label] for label in self.labels]
        outlines = None if self.masks is None else trace_masks(self.masks, self.boxes_xyxy)
        return self.boxes_xyxy, self.scores, names, outlines

    def as_dict(self) -> dict[str, Any]:
        """Plain values, boxes as ``x, y, width, height`` in original px, masks as COCO's compressed run lengths."""
        return {
            "file": str(self.path),
            **({} if self.frame is None else {"frame": self.frame}),
            "detections": [
                {
                    "class": self.class_names[label],
                    "score": round(float(score), 5),
                    "bbox": [round(float(v), 2) for v in (x1, y1, x2 - x1, y2 - y1)],
                    **({} if self.masks is None else {"segmentation": self.masks[row]}),
                }
                for row, ((x1, y1, x2, y2), score, label) in enumerate(
                    zip(self.boxes_xyxy, self.scores, self.labels, strict=True)
                )
            ],
        }


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions in the order of their files, how much they were, and the files left out."""

    items: list[Prediction]  # images, then videos; empty where they were not to be kept
    skipped: list[tuple[str, str]]  # files that could not be read, with the reason
    images: int = 0  # images and frames
    detections: int = 0
    pixels_processed: int = 0  # padded input pixels that the network saw
    pixels_full: int = 0  # padded input pixels of the full pyramids
    cut_images: int = 0  # images and frames in which ``max_per_image`` cut off detections that would be drawn

    @property
    def pixel_share(self) -> float:
        """Padded input pixels that the network saw, of those of the full pyramids; below 1 where AutoFocus saved."""
        return self.pixels_processed / self.pixels_full if self.pixels_full else 1.0

    @classmethod
    def join(cls, parts: "list[Predictions]") -> "Predictions":
        """Those of all parts, one after the other."""
        return cls(
            [item for part in parts for item in part.items],
            [file for part in parts for file in part.skipped],
            sum(part.images for part in parts),
            sum(part.detections for part in parts),
            sum(part.pixels_processed for part in parts),
            sum(part.pixels_full for part in parts),
            sum(part.cut_images for part in parts),
        )
