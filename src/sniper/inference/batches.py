"""Canvases of the windows to look at, made in a thread while the network looks at those before.

Of pictures that are not in memory, only the windows of two batches are. ``docs/method.md``, "Huge images".
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from sniper.errors import DataError
from sniper.inference.images import ImageInput
from sniper.inference.windows import WindowTask
from sniper.pixels.windowed import cut_from
from sniper.structures import Images

IN_MEMORY_PX = 128_000_000  # decoded pixels of one group; one picture always fits

# Told the key of a picture that can no longer be read, and why; its detections will not come. May raise.
OnError = Callable[[int, DataError], None]


def groups_of(pictures: Iterable[ImageInput], max_count: int) -> Iterator[list[ImageInput]]:
    """Up to ``max_count`` pictures at a time, fewer where they are large."""
    group: list[ImageInput] = []
    for picture in pictures:
        group.append(picture)
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
    """Reads windows of a group of pictures, and remembers which of these can no longer be read."""

    def __init__(self, group: list[ImageInput], on_error: OnError | None) -> None:
        """``on_error`` is told of a picture that cannot be read, once; None: the error is raised."""
        self.group, self._tell = group, on_error
        self.failed: set[int] = set()  # positions in the group

    def read(self, batches: Iterable[list[WindowTask]]) -> Iterator[tuple[list[WindowTask], Images]]:
        """Each batch with its padded inputs, without the windows of lost pictures; one batch is read ahead."""
        with ThreadPoolExecutor(1) as pool:
            ahead = None
            try:
                for batch in [*batches, None]:
                    ready, ahead = ahead, None if batch is None else pool.submit(self._inputs, batch)
                    if ready is None:
                        continue
                    tasks, images, errors = ready.result()
                    for position, error in errors.items():
                        self._fail(position, error)
                    if images is not None:
                        yield tasks, images
            finally:
                if ahead is not None:
                    ahead.cancel()

    def _fail(self, position: int, error: DataError) -> None:
        if self._tell is None:
            raise error
        if position not in self.failed:
            self.failed.add(position)
            self._tell(self.group[position].key, error)

    def _inputs(self, batch: list[WindowTask]) -> tuple[list[WindowTask], Images | None, dict[int, DataError]]:
        """The windows that can be read, their padded inputs, and what went wrong with the others, by picture."""
        inputs, tasks, errors = [], [], {}
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
            return [], None, errors
        windows = [task.window for task in tasks]
        images = Images(
            pixels=torch.from_numpy(np.stack(inputs)).permute(0, 3, 1, 2),
            valid_hw=torch.tensor([window.valid_wh[::-1] for window in windows]),
            scale=torch.tensor([window.scale for window in windows], dtype=torch.float32),
        )
        return tasks, images, errors
