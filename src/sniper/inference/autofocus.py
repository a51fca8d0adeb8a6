"""AutoFocus: the coarsest level whole, and every finer one only where small objects may be.

AutoFocus (arXiv 1812.01600); ``docs/method.md``, "AutoFocus". This module plans the windows; ``detect`` runs the
network on them, and merges the detections as it always does.
"""

import math
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from sniper.focus.cells import chips_of_cells, enclosed_cells
from sniper.focus.cover import LevelCost, covering_chips
from sniper.inference.config import AutoFocusConfig
from sniper.inference.windows import (
    CHIP_STEP,
    Window,
    WindowTask,
    overlap_for,
    scaled_size,
    windows_of,
    windows_of_chip,
    with_rivals,
)
from sniper.pyramid import FOCUS_PX, Pyramid

_SLACK = 1e-6
CHIP_PIXELS = (
    128 * 256
)  # what one more chip costs, whatever its size, in padded input pixels; 23 ms of a CPU are 45,000


class CoarseToFine:
    """The windows of a group of images, level by level, from the focus maps of the levels before."""

    def __init__(
        self,
        sizes_wh: list[tuple[int, int]],
        pyramid: Pyramid,
        config: AutoFocusConfig,
        *,
        stride: int,
        window_px: int,
        overlap: float,
        learned: bool = True,
    ) -> None:
        """Plan for images of ``sizes_wh``; ``stride`` px per cell of the maps, ``learned`` if a branch makes them."""
        self.sizes_wh, self.config, self.stride, self.learned = sizes_wh, config, stride, learned
        self.window_px, self.overlap = window_px, overlap
        self.scales = pyramid.scales(np.asarray(sizes_wh))  # (I, L)
        self.largest_px = pyramid.infer_ranges_px()[:, 1]
        self.coarsest = len(pyramid.levels) - 1
        whole = [[self._whole(image, level) for level in range(len(pyramid.levels))] for image in range(len(sizes_wh))]
        pixels = [[sum(task.window.padded_pixels for task in tasks) for tasks in one] for one in whole]
        self.full_pixels = np.asarray(pixels, dtype=np.int64)  # (I, L) of the full pyramid
        self._spent = np.zeros(len(sizes_wh), dtype=np.int64)
        self.maps: list[NDArray[np.float32]] = []  # of the level run last, one an image

    def everything(self) -> list[WindowTask]:
        """Every window of the full pyramid: plain multi-scale inference."""
        return [
            task
            for image in range(len(self.sizes_wh))
            for level in range(self.coarsest + 1)
            for task in self._whole(image, level)
        ]

    def rounds(self) -> Iterator[list[WindowTask]]:
        """The windows to run, coarsest level first; ``add`` must see a round's maps before the next is asked for."""
        for level in range(self.coarsest, -1, -1):
            tasks = [task for image in range(len(self.sizes_wh)) for task in self._tasks(image, level)]
            for task in tasks:
                self._spent[task.window.image] += task.window.padded_pixels
            self.maps = [self._empty(image, level) for image in range(len(self.sizes_wh))]
            yield tasks

    def add(self, tasks: list[WindowTask], probability: NDArray[np.float32]) -> None:
        """Remember the focus probability (B, h, w) of the padded inputs of a batch."""
        for task, one in zip(tasks, probability, strict=True):
            self._paste(task.window, one)

    def _paste(self, window: Window, probability: NDArray[np.float32]) -> None:
        """Put the map of one window into that of its image.

        Windows begin anywhere, the cells of the image do not: each gets the highest of those that reach into it.
        """
        whole = self.maps[window.image]
        shown = (math.ceil(window.valid_wh[1] / self.stride), math.ceil(window.valid_wh[0] / self.stride))
        part = probability[: shown[0], : shown[1]]
        (x, dx), (y, dy) = (divmod(origin, self.stride) for origin in window.origin_xy)
        for row in (y, y + 1) if dy else (y,):
            for column in (x, x + 1) if dx else (x,):
                place = whole[row : row + part.shape[0], column : column + part.shape[1]]
                np.maximum(place, part[: place.shape[0], : place.shape[1]], out=place)

    def _empty(self, image: int, level: int) -> NDArray[np.float32]:
        width, height = scaled_size(self.sizes_wh[image], float(self.scales[image, level]))
        return np.zeros((math.ceil(height / self.stride), math.ceil(width / self.stride)), dtype=np.float32)

    def _overlap(self, image: int, level: int) -> int:
        scale = float(self.scales[image, level])
        return overlap_for(float(self.largest_px[level]), scale, window_px=self.window_px, overlap=self.overlap)

    def _whole(self, image: int, level: int) -> list[WindowTask]:
        overlap_px, scale = self._overlap(image, level), float(self.scales[image, level])
        windows = windows_of(image, self.sizes_wh[image], level, scale, window_px=self.window_px, overlap_px=overlap_px)
        return [WindowTask(window, overlap_px) for window in windows]

    def _tasks(self, image: int, level: int) -> list[WindowTask]:
        if level == self.coarsest:
            return self._whole(image, level)
        probability = self.maps[image]
        valid_wh = scaled_size(self.sizes_wh[image], float(self.scales[image, level + 1]))
        threshold = self.config.threshold_of(self.coarsest - 1 - level)
        cells = enclosed_cells(probability, valid_wh, threshold=threshold, stride=self.stride)
        budget = self.config.pixel_budget
        if not (self.learned or cells.any()):
            # Objects below the range of a level were ignored when it was trained: no region of it says nothing.
            if budget is None:
                return self._whole(image, level)
            cells = np.ones_like(cells)
        tasks = self._enclosing(image, level, cells)
        if budget is None:
            return tasks
        # What is left is shared among the levels to come like the pixels of the full pyramid.
        left = budget * self.full_pixels[image].sum() - self._spent[image]
        allowed = left * self.full_pixels[image, level] / self.full_pixels[image, : level + 1].sum()
        return tasks if _pixels(tasks) <= allowed else self._affordable(image, level, cells, float(allowed))

    def _enclosing(self, image: int, level: int, cells: NDArray[np.bool_]) -> list[WindowTask]:
        """The windows at a level of the focus chips around cells of the level before."""
        size_wh, scale, before = self.sizes_wh[image], self.scales[image, level], self.scales[image, level + 1]
        boxes = (self._cheapest if self.config.chips == "cheapest" else self._joined)(image, level, cells)
        tasks = [
            task
            for x1, y1, x2, y2 in boxes.astype(int).tolist()
            for task in windows_of_chip(
                image,
                size_wh,
                level,
                float(scale),
                (x1, y1, x2, y2),
                window_px=self.window_px,
                overlap_px=self._overlap(image, level),
                margin_px=float(self.config.prune_cells * self.stride / before),
            )
        ]
        dearer = _pixels(tasks) + CHIP_PIXELS * len(boxes) >= self.full_pixels[image, level] + CHIP_PIXELS
        return self._whole(image, level) if dearer else with_rivals(tasks)

    def _cheapest(self, image: int, level: int, cells: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(K, 4) network px of the level."""
        scale, before = self.scales[image, level], self.scales[image, level + 1]
        level_cost = LevelCost(
            cell_px=float(self.stride * scale / before),
            margin_px=float(self.config.prune_cells * self.stride * scale / before),
            size_wh=scaled_size(self.sizes_wh[image], float(scale)),
            min_px=self.config.min_chip_px,
            step_px=CHIP_STEP,
            window_px=self.window_px,
            overlap_px=self._overlap(image, level),
            whole_pixels=int(self.full_pixels[image, level]),
            chip_pixels=CHIP_PIXELS,
        )
        shared = math.ceil(FOCUS_PX[1] / self.stride) + 1  # so that one a little longer than wide is whole in a chip
        return covering_chips(
            cells, self.maps[image], level_cost, dilation=self.config.dilation, shared_cells=shared
        ).boxes_xyxy

    def _joined(self, image: int, level: int, cells: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(K, 4) network px of the level, disjoint."""
        size_wh, scale, before = self.sizes_wh[image], self.scales[image, level], self.scales[image, level + 1]
        chips = chips_of_cells(
            cells,
            self.maps[image],
            scaled_size(size_wh, float(before)),
            stride=self.stride,
            dilation=self.config.dilation,
            min_cells=self._min_cells(image, level),
        ).boxes_xyxy * (scale / before)
        low, high = np.floor(chips[:, :2] + _SLACK), np.ceil(chips[:, 2:] - _SLACK)
        limit = np.asarray(scaled_size(size_wh, float(scale)))
        return np.concatenate([np.minimum(low, limit - 1), np.minimum(high, limit)], axis=1)

    def _min_cells(self, image: int, level: int) -> int:
        seen_px = self.config.min_chip_px * self.scales[image, level + 1] / self.scales[image, level]
        return max(math.ceil(seen_px / self.stride - _SLACK), 1)

    def _affordable(self, image: int, level: int, cells: NDArray[np.bool_], allowed: float) -> list[WindowTask]:
        """The windows around as many cells as ``allowed`` padded input pixels can show, cells of the best regions
        first.

        A region is what the smallest chip around a cell shows, and its worth the focus probability in it.
        """
        probability, side = self.maps[image], self._min_cells(image, level)
        worth = cv2.boxFilter(
            np.where(cells, probability, 0).astype(np.float64), -1, (side, side), borderType=cv2.BORDER_CONSTANT
        )
        chosen = np.flatnonzero(cells)
        order = chosen[np.lexsort((chosen, -probability.flat[chosen], -np.round(worth.flat[chosen], 9)))]
        best: list[WindowTask] = []
        fits, too_many = 0, len(order)
        while too_many - fits > 1:
            count = (fits + too_many) // 2
            some = np.zeros(cells.shape, dtype=bool)
            some.flat[order[:count]] = True
            tasks = self._enclosing(image, level, some)
            if _pixels(tasks) <= allowed:
                fits, best = count, tasks
            else:
                too_many = count
        return best


def _pixels(tasks: list[WindowTask]) -> int:
    return sum(task.window.padded_pixels for task in tasks)
