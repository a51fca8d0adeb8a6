"""Padded inputs of the windows to run, made in a thread while the network runs on those before.

Of images that are not in memory, only the windows of two batches are. ``docs/method.md``, "Huge images".
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.errors import DataError
from sniper.inference.images import ImageInput
from sniper.inference.windows import WindowTask
from sniper.pixels.windowed import cut_from

IN_MEMORY_PX = 128_000_000  # decoded pixels of one group; one image always fits

# Told the key of an image that can no longer be read, and why; its detections will not come. May raise.
OnError = Callable[[int, DataError], None]


class PaddedInputs(NamedTuple):
    """A batch as ``Backend.look`` takes it."""

    pixels: NDArray[np.uint8]  # (B, H, W, 3) RGB
    valid_hw: NDArray[np.int64]  # (B, 2) rows and columns that show the image
    scale: NDArray[np.float32]  # (B,) network px per original px


class _Prepared(NamedTuple):
    """The windows of a batch that can be read, their padded inputs, and what went wrong with the others, by image."""

    tasks: list[WindowTask]
    inputs: PaddedInputs | None
    errors: dict[int, DataError]


def groups_of(images: Iterable[ImageInput], max_count: int) -> Iterator[list[ImageInput]]:
    """Up to ``max_count`` images at a time, fewer where they are large."""
    group: list[ImageInput] = []
    for image in images:
        group.append(image)
        if len(group) == max_count or sum(one.in_memory for one in group) >= IN_MEMORY_PX:
            yield group
            group = []
    if group:
        yield group


def batches_of(tasks: Iterable[WindowTask], batch_pixels: int) -> Iterator[list[WindowTask]]:
    """Windows of equal padded input, as many together as ``batch_pixels`` allows; those of an image row by row.

    Focus chips come best first: strips of a file would be decoded again and again.
    """
    shapes: dict[tuple[int, int], list[WindowTask]] = defaultdict(list)
    for task in tasks:
        shapes[task.window.padded_wh].append(task)
    for (width, height), members in shapes.items():
        members.sort(key=lambda task: (task.window.image, task.window.level, task.window.origin_xy[::-1]))
        size = max(1, batch_pixels // (width * height))
        yield from (members[start : start + size] for start in range(0, len(members), size))


class Reader:
    """Reads windows of a group of images, and remembers which of these can no longer be read."""

    def __init__(self, group: list[ImageInput], on_error: OnError | None) -> None:
        """``on_error`` is told of an image that cannot be read, once; None: the error is raised."""
        self.group, self._tell = group, on_error
        self.failed: set[int] = set()  # positions in the group

    def read(self, batches: Iterable[list[WindowTask]]) -> Iterator[tuple[list[WindowTask], PaddedInputs]]:
        """Each batch with its padded inputs, without the windows of failed images; one batch is read ahead."""
        with ThreadPoolExecutor(1) as pool:
            ahead = None
            try:
                for batch in [*batches, None]:
                    ready, ahead = ahead, None if batch is None else pool.submit(self._inputs, batch)
                    if ready is None:
                        continue
                    prepared = ready.result()
                    for position, error in prepared.errors.items():
                        self._fail(position, error)
                    if prepared.inputs is not None:
                        yield prepared.tasks, prepared.inputs
            finally:
                if ahead is not None:
                    ahead.cancel()

    def _fail(self, position: int, error: DataError) -> None:
        if self._tell is None:
            raise error
        if position not in self.failed:
            self.failed.add(position)
            self._tell(self.group[position].key, error)

    def _inputs(self, batch: list[WindowTask]) -> _Prepared:
        inputs: list[NDArray[np.uint8]] = []
        tasks: list[WindowTask] = []
        errors: dict[int, DataError] = {}
        for task in batch:
            window = task.window
            if window.image in self.failed or window.image in errors:
                continue
            pixels = self.group[window.image].pixels
            try:
                padded = cut_from(pixels, window.origin_xy, window.scale, window.padded_wh, window.valid_wh)
            except DataError as error:
                errors[window.image] = error
                continue
            inputs.append(padded)
            tasks.append(task)
        if not inputs:
            return _Prepared([], None, errors)
        valid_hw = np.asarray([task.window.valid_wh[::-1] for task in tasks], np.int64)
        scale = np.asarray([task.window.scale for task in tasks], np.float32)
        return _Prepared(tasks, PaddedInputs(np.stack(inputs), valid_hw, scale), errors)
