"""AutoFocus: the coarsest level whole, and at every finer one only where small objects may be.

AutoFocus (arXiv 1812.01600); ``docs/method.md``, "AutoFocus". This module decides where to look; ``pyramid`` looks,
and merges what is found as it always does.
"""

import math
from collections.abc import Iterator
from typing import Annotated, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from sniper.chips.focus import chips_of_cells, enclosed_cells
from sniper.chips.focus_cover import Looking, covering_chips
from sniper.config import Config
from sniper.inference.windows import (
    CHIP_STEP,
    Look,
    Window,
    overlap_for,
    windows_of,
    windows_of_chip,
    with_rivals,
    zoomed_size,
)
from sniper.scales import Pyramid

Share = Annotated[float, Field(ge=0, le=1)]
SMALL_PX = 5.0, 64.0  # sizes that speak for a closer look, network px: as the focus branch is taught
_SLACK = 1e-6
CHIP_PIXELS = 128 * 256  # what one more chip costs, whatever its size, in canvas pixels; 23 ms of a CPU are 45,000


class AutoFocusConfig(Config):
    """Where to look closer. Higher thresholds and smaller budgets are faster and find less."""

    threshold: Share | tuple[Share, ...] = Field(
        0.1,
        description="cells with at least this focus probability are looked at one level finer; several: one for each "
        "step, coarsest first, the last for all others; 0 looks at everything",
    )
    pixel_budget: float | None = Field(
        None, gt=0, le=1, description="most pixels of an image, as a share of its full pyramid, best regions first"
    )
    chips: Literal["cheapest", "joined"] = Field(
        "cheapest",
        description="cheapest: chips may overlap, and become one only where that costs no more pixels; joined: chips "
        "that overlap or touch become one (the original)",
    )
    dilation: int = Field(
        1, ge=1, description="odd; cells within dilation // 2 of such a cell are looked at too (the original: 3)"
    )
    min_chip_px: int = Field(
        128, ge=1, description="least side of a focus chip, network px of the level that looks at it"
    )
    prune_cells: float = Field(
        0.5, ge=0, description="detections this close to a chip's border are cut, cells of the level before"
    )

    @field_validator("dilation")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"dilation is an odd number of cells, not {value}")
        return value

    @field_validator("threshold")
    @classmethod
    def _at_least_one(cls, value: float | tuple[float, ...]) -> float | tuple[float, ...]:
        if value == ():
            raise ValueError("threshold needs at least one number")
        return value

    @property
    def looks_everywhere(self) -> bool:
        """Whether this is plain multi-scale inference."""
        thresholds = self.threshold if isinstance(self.threshold, tuple) else (self.threshold,)
        return self.pixel_budget is None and not any(thresholds)

    def threshold_of(self, step: int) -> float:
        """The threshold of a step, the coarsest level's being number 0."""
        if isinstance(self.threshold, tuple):
            return self.threshold[min(step, len(self.threshold) - 1)]
        return self.threshold


class CoarseToFine:
    """Where to look in a group of images, level by level, from what the levels before have shown."""

    def __init__(
        self,
        sizes_wh: list[tuple[int, int]],
        pyramid: Pyramid,
        config: AutoFocusConfig,
        *,
        stride: int,
        window_px: int,
        overlap: float,
    ) -> None:
        self.sizes_wh, self.config, self.stride = sizes_wh, config, stride
        self.window_px, self.overlap = window_px, overlap
        self.scales = pyramid.scales(np.asarray(sizes_wh))  # (I, L)
        self.largest_px = pyramid.infer_ranges_px()[:, 1]
        self.coarsest = len(pyramid.levels) - 1
        whole = [[self._whole(image, level) for level in range(len(pyramid.levels))] for image in range(len(sizes_wh))]
        pixels = [[sum(look.window.canvas_pixels for look in looks) for looks in one] for one in whole]
        self.full_pixels = np.asarray(pixels, dtype=np.int64)  # (I, L) of the full pyramid
        self._spent = np.zeros(len(sizes_wh), dtype=np.int64)
        self.maps: list[NDArray[np.float32]] = []  # of the level looked at last, one an image

    def everything(self) -> list[Look]:
        """Every window of the full pyramid: plain multi-scale inference."""
        return [
            look
            for image in range(len(self.sizes_wh))
            for level in range(self.coarsest + 1)
            for look in self._whole(image, level)
        ]

    def rounds(self) -> Iterator[list[Look]]:
        """What to look at, coarsest level first; ``add`` must have seen a round's maps before the next is asked for."""
        for level in range(self.coarsest, -1, -1):
            looks = [look for image in range(len(self.sizes_wh)) for look in self._looks(image, level)]
            for look in looks:
                self._spent[look.window.image] += look.window.canvas_pixels
            self.maps = [self._empty(image, level) for image in range(len(self.sizes_wh))]
            yield looks

    def add(self, looks: list[Look], probability: NDArray[np.float32]) -> None:
        """Remember the focus probability (B, h, w) of the canvases of a batch."""
        for look, one in zip(looks, probability, strict=True):
            self._paste(look.window, one)

    def _paste(self, window: Window, probability: NDArray[np.float32]) -> None:
        """Put the map of one window into that of its image.

        Windows begin anywhere, the cells of the image do not: each gets the highest of those that reach into it.
        """
        whole = self.maps[window.image]
        shown = (math.ceil(window.content_wh[1] / self.stride), math.ceil(window.content_wh[0] / self.stride))
        part = probability[: shown[0], : shown[1]]
        (x, dx), (y, dy) = (divmod(origin, self.stride) for origin in window.origin_xy)
        for row in (y, y + 1) if dy else (y,):
            for column in (x, x + 1) if dx else (x,):
                place = whole[row : row + part.shape[0], column : column + part.shape[1]]
                np.maximum(place, part[: place.shape[0], : place.shape[1]], out=place)

    def _empty(self, image: int, level: int) -> NDArray[np.float32]:
        width, height = zoomed_size(self.sizes_wh[image], float(self.scales[image, level]))
        return np.zeros((math.ceil(height / self.stride), math.ceil(width / self.stride)), dtype=np.float32)

    def _overlap(self, image: int, level: int) -> int:
        scale = float(self.scales[image, level])
        return overlap_for(float(self.largest_px[level]), scale, window_px=self.window_px, overlap=self.overlap)

    def _whole(self, image: int, level: int) -> list[Look]:
        overlap_px, scale = self._overlap(image, level), float(self.scales[image, level])
        windows = windows_of(image, self.sizes_wh[image], level, scale, window_px=self.window_px, overlap_px=overlap_px)
        return [Look(window, overlap_px) for window in windows]

    def _looks(self, image: int, level: int) -> list[Look]:
        if level == self.coarsest:
            return self._whole(image, level)
        probability = self.maps[image]
        content_wh = zoomed_size(self.sizes_wh[image], float(self.scales[image, level + 1]))
        threshold = self.config.threshold_of(self.coarsest - 1 - level)
        cells = enclosed_cells(probability, content_wh, threshold=threshold, stride=self.stride)
        looks = self._enclosing(image, level, cells)
        budget = self.config.pixel_budget
        if budget is None:
            return looks
        # What is left is shared among the levels to come like the pixels of the full pyramid.
        left = budget * self.full_pixels[image].sum() - self._spent[image]
        allowed = left * self.full_pixels[image, level] / self.full_pixels[image, : level + 1].sum()
        return looks if _pixels(looks) <= allowed else self._affordable(image, level, cells, float(allowed))

    def _enclosing(self, image: int, level: int, cells: NDArray[np.bool_]) -> list[Look]:
        """The windows at a level of the focus chips around cells of the level before."""
        size_wh, scale, before = self.sizes_wh[image], self.scales[image, level], self.scales[image, level + 1]
        boxes = (self._cheapest if self.config.chips == "cheapest" else self._joined)(image, level, cells)
        looks = [
            look
            for x1, y1, x2, y2 in boxes.astype(int).tolist()
            for look in windows_of_chip(
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
        dearer = _pixels(looks) + CHIP_PIXELS * len(boxes) >= self.full_pixels[image, level] + CHIP_PIXELS
        return self._whole(image, level) if dearer else with_rivals(looks)

    def _cheapest(self, image: int, level: int, cells: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(K, 4) network px of the level."""
        scale, before = self.scales[image, level], self.scales[image, level + 1]
        looking = Looking(
            cell_px=float(self.stride * scale / before),
            margin_px=float(self.config.prune_cells * self.stride * scale / before),
            size_wh=zoomed_size(self.sizes_wh[image], float(scale)),
            least_px=self.config.min_chip_px,
            step_px=CHIP_STEP,
            window_px=self.window_px,
            overlap_px=self._overlap(image, level),
            whole_pixels=int(self.full_pixels[image, level]),
            chip_pixels=CHIP_PIXELS,
        )
        shared = math.ceil(SMALL_PX[1] / self.stride) + 1  # so that one a little longer than wide is whole in a chip
        return covering_chips(
            cells, self.maps[image], looking, dilation=self.config.dilation, shared_cells=shared
        ).boxes_xyxy

    def _joined(self, image: int, level: int, cells: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(K, 4) network px of the level, disjoint."""
        size_wh, scale, before = self.sizes_wh[image], self.scales[image, level], self.scales[image, level + 1]
        chips = chips_of_cells(
            cells,
            self.maps[image],
            zoomed_size(size_wh, float(before)),
            stride=self.stride,
            dilation=self.config.dilation,
            min_cells=self._min_cells(image, level),
        ).boxes_xyxy * (scale / before)
        low, high = np.floor(chips[:, :2] + _SLACK), np.ceil(chips[:, 2:] - _SLACK)
        limit = np.asarray(zoomed_size(size_wh, float(scale)))
        return np.concatenate([np.minimum(low, limit - 1), np.minimum(high, limit)], axis=1)

    def _min_cells(self, image: int, level: int) -> int:
        seen_px = self.config.min_chip_px * self.scales[image, level + 1] / self.scales[image, level]
        return max(math.ceil(seen_px / self.stride - _SLACK), 1)

    def _affordable(self, image: int, level: int, cells: NDArray[np.bool_], allowed: float) -> list[Look]:
        """The windows around as many cells as ``allowed`` canvas pixels can show, cells of the best regions first.

        A region is what the smallest chip around a cell shows, and its worth the focus probability in it.
        """
        probability, side = self.maps[image], self._min_cells(image, level)
        worth = cv2.boxFilter(
            np.where(cells, probability, 0).astype(np.float64), -1, (side, side), borderType=cv2.BORDER_CONSTANT
        )
        chosen = np.flatnonzero(cells)
        order = chosen[np.lexsort((chosen, -probability.flat[chosen], -np.round(worth.flat[chosen], 9)))]
        best: list[Look] = []
        fits, too_many = 0, len(order)
        while too_many - fits > 1:
            count = (fits + too_many) // 2
            some = np.zeros(cells.shape, dtype=bool)
            some.flat[order[:count]] = True
            looks = self._enclosing(image, level, some)
            if _pixels(looks) <= allowed:
                fits, best = count, looks
            else:
                too_many = count
        return best


def _pixels(looks: list[Look]) -> int:
    return sum(look.window.canvas_pixels for look in looks)
