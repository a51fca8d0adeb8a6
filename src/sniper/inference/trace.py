"""Which windows inference has run, for those who want to see it: focus maps and chips of each level of an image."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sniper.inference.autofocus import CoarseToFine
from sniper.inference.windows import WindowTask


@dataclass(frozen=True, slots=True)
class LevelTrace:
    """One level of one image."""

    level: int  # 0 the finest
    scale: float  # network px per original px
    chips_xyxy: NDArray[np.float64]  # (K, 4) where the level was run, original px: the image, or its focus chips
    pixels: int  # padded input pixels that the network saw
    pixels_full: int  # padded input pixels of the whole level
    focus: NDArray[np.float32] | None  # (rows, columns) focus probability by cell; None where nothing finer follows
    cell_px: float  # side of a cell, original px
    threshold: float  # the next finer level covers cells with at least this probability


@dataclass(frozen=True, slots=True)
class ImageTrace:
    """All levels of one image."""

    key: int  # as in ``ImageInput``
    size_wh: tuple[int, int]  # original px
    levels: tuple[LevelTrace, ...]  # coarsest first; those that were not run have no chips

    @property
    def share(self) -> float:
        """Pixels of padded inputs that the network saw, of those of the full pyramid."""
        return sum(one.pixels for one in self.levels) / sum(one.pixels_full for one in self.levels)


OnTrace = Callable[[ImageTrace], None]


class TraceRecorder:
    """Takes down what a plan for a group of images leads to."""

    def __init__(self, plan: CoarseToFine) -> None:
        self.plan = plan
        self._tasks: dict[tuple[int, int], list[WindowTask]] = defaultdict(list)  # by image and level
        self._maps: dict[tuple[int, int], NDArray[np.float32]] = {}

    def watching(self, rounds: Iterable[list[WindowTask]]) -> Iterator[list[WindowTask]]:
        """The same rounds; each is taken down when the next is asked for, and its maps are complete."""
        for number, tasks in enumerate(rounds):
            yield tasks
            for task in tasks:
                self._tasks[task.window.image, task.window.level].append(task)
            level = self.plan.coarsest - number
            if level > 0:
                self._maps.update({(image, level): one for image, one in enumerate(self.plan.maps)})

    def traces(self, keys: list[int]) -> list[ImageTrace]:
        """The levels of each image; ``keys`` are theirs, in the order of the plan."""
        levels = range(self.plan.coarsest, -1, -1)
        return [
            ImageTrace(key, self.plan.sizes_wh[image], tuple(self._level(image, level) for level in levels))
            for image, key in enumerate(keys)
        ]

    def _level(self, image: int, level: int) -> LevelTrace:
        plan, tasks = self.plan, self._tasks[image, level]
        whole = (0.0, 0.0, *map(float, plan.sizes_wh[image]))
        # A chip of several windows is one chip; dict keeps the order, best chips first.
        chips = dict.fromkeys(whole if task.chip_xyxy is None else task.chip_xyxy for task in tasks)
        scale = float(plan.scales[image, level])
        return LevelTrace(
            level,
            scale,
            np.asarray(list(chips), np.float64).reshape(-1, 4),
            sum(task.window.padded_pixels for task in tasks),
            int(plan.full_pixels[image, level]),
            self._maps.get((image, level)),
            plan.stride / scale,
            plan.config.threshold_of(plan.coarsest - level),
        )
