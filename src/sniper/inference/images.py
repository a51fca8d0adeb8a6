"""What inference takes and gives: images in memory or not, and what was found in each."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sniper.data.run_lengths import RunLengths
from sniper.pixels.windowed import PixelSource, size_of


@dataclass(frozen=True, slots=True)
class ImageInput:
    """An image and the key its detections are filed under."""

    key: int
    pixels: NDArray[np.uint8] | PixelSource  # (H, W, 3) RGB, or what gives windows of them

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height, original px."""
        return size_of(self.pixels)

    @property
    def in_memory(self) -> int:
        """Pixels that are held for it."""
        return self.pixels.shape[0] * self.pixels.shape[1] if isinstance(self.pixels, np.ndarray) else 0

    def close(self) -> None:
        """Close the file that the pixels come from, if they do."""
        if not isinstance(self.pixels, np.ndarray):
            self.pixels.close()


@dataclass(frozen=True, slots=True)
class ImageDetections:
    """Merged detections of one image, best first."""

    key: int
    boxes_xyxy: NDArray[np.float32]  # (N, 4) original px, inside the image
    scores: NDArray[np.float32]  # (N,)
    labels: NDArray[np.int32]  # (N,)
    levels: NDArray[np.int16]  # (N,) level each was found at
    pixels_processed: int  # padded input pixels that the network saw for this image
    pixels_full: int  # padded input pixels of its full pyramid
    masks: RunLengths | None = None  # N, of the image's size; None where the detector predicts none
    cut_score: float = 0.0  # best score that ``merge.max_per_image`` cut off; 0: none

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, min_score: float) -> Self:
        """Those with at least this score."""
        kept = np.flatnonzero(self.scores >= min_score)
        return replace(
            self,
            boxes_xyxy=self.boxes_xyxy[kept],
            scores=self.scores[kept],
            labels=self.labels[kept],
            levels=self.levels[kept],
            masks=None if self.masks is None else self.masks.take(kept),
        )
