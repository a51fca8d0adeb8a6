"""Detections of many windows on the way to one list an image, and the masks of what is left."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sniper.data.run_lengths import RunLengths
from sniper.inference.backend import Backend
from sniper.inference.config import MergeConfig
from sniper.inference.feature_cache import FeatureCache
from sniper.inference.images import ImageDetections, ImageInput
from sniper.inference.masks import encode_masks
from sniper.inference.merge import merge_images
from sniper.inference.windows import Window
from sniper.pyramid import Pyramid


def in_image(boxes: NDArray, window: Window) -> NDArray[np.float64]:
    """Boxes of a window in original px."""
    in_image: NDArray[np.float64] = (boxes + np.tile(np.asarray(window.origin_xy, dtype=np.float64), 2)) / window.scale
    return in_image


class DetectionAccumulator:
    """Detections of a group of images as they come in, in original px."""

    def __init__(self) -> None:
        self.windows: list[Window] = []
        self.columns: list[tuple[NDArray, NDArray, NDArray]] = []
        self.features: list[int | None] = []  # of each window, to predict masks from: numbers in the cache
        self._cache = FeatureCache()
        self._order: list[int] = []  # windows by image, level and place
        self._ends = np.zeros(0, np.int64)  # (windows) rows up to and with each window, in that order
        self._sizes_wh: list[tuple[int, int]] = []

    def add(
        self,
        window: Window,
        boxes: NDArray,
        scores: NDArray,
        labels: NDArray,
        features: NDArray[np.floating] | None = None,
    ) -> None:
        """Add the detections of one window, network px."""
        self.windows.append(window)
        self.features.append(None if features is None else self._cache.put(features))
        self.columns.append((in_image(boxes, window), scores, labels))

    def merged(
        self,
        group: list[ImageInput],
        sizes_wh: list[tuple[int, int]],
        pyramid: Pyramid,
        config: MergeConfig,
        full_pixels: NDArray[np.int64],
    ) -> Iterator[tuple[ImageDetections, NDArray[np.int64]]]:
        """One merged result an image, and the row of all boxes that each of its detections was."""
        # By image, level and place, and not as batches came: equal scores must not depend on the batching.
        order = sorted(range(len(self.windows)), key=self.windows.__getitem__)
        windows, columns = [self.windows[k] for k in order], [self.columns[k] for k in order]
        counts = np.asarray([len(scores) for _, scores, _ in columns], np.int64)
        self._order, self._ends, self._sizes_wh = order, np.cumsum(counts), sizes_wh
        image = np.repeat(np.asarray([window.image for window in windows], np.int64), counts)
        level = np.repeat(np.asarray([window.level for window in windows], np.int16), counts)
        nothing = np.zeros((0, 4)), np.zeros(0, np.float32), np.zeros(0, np.int64)
        boxes, scores, labels = (np.concatenate(column) for column in zip(nothing, *columns, strict=True))
        limits = np.tile(np.asarray(sizes_wh, dtype=np.float64), (1, 2))[image]
        boxes = np.clip(boxes, 0, limits).astype(np.float32)
        offsets = np.searchsorted(image, np.arange(len(group) + 1))
        result = merge_images(
            offsets, boxes, scores, labels, level, pyramid.infer_ranges_px(), config, sizes_wh=np.asarray(sizes_wh)
        )
        pixels = np.zeros(len(group), dtype=np.int64)
        for window in self.windows:
            pixels[window.image] += window.padded_pixels
        for index, image_input in enumerate(group):
            rows = slice(result.offsets[index], result.offsets[index + 1])
            kept = result.keep[rows]
            one = ImageDetections(
                image_input.key,
                boxes[kept],
                result.scores[rows],
                labels[kept].astype(np.int32),
                level[kept],
                int(pixels[index]),
                int(full_pixels[index]),
                cut_score=float(result.cut_scores[index]),
            )
            yield one, kept

    def masks(self, backend: Backend, one: ImageDetections, rows: NDArray[np.int64]) -> RunLengths:
        """Masks of merged detections, each from the window it was found in; ``rows`` as ``merged`` gives them.

        Window by window, and not batched over images: an image gives the same masks whatever it is batched with.
        """
        if not len(rows):
            return RunLengths.join([])
        place = np.searchsorted(self._ends, rows, side="right")
        parts, order = [], np.argsort(place, kind="stable")
        for number in np.unique(place).tolist():
            own = order[np.searchsorted(place[order], number) : np.searchsorted(place[order], number, side="right")]
            window, cached = self.windows[self._order[number]], self.features[self._order[number]]
            assert cached is not None
            boxes = one.boxes_xyxy[own].astype(np.float64)
            inside = boxes * window.scale - np.tile(np.asarray(window.origin_xy, np.float64), 2)
            grids = backend.masks(self._cache.take(cached), inside, one.labels[own])
            parts.append(encode_masks(grids, boxes, self._sizes_wh[window.image]))
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return RunLengths.join(parts).take(back)
