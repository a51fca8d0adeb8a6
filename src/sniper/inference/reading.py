"""Canvases of the windows to look at, made in a thread while the network looks at those before.

Of pictures that are not in memory, only the windows of two batches are. ``docs/method.md``, "Huge images".
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from sniper.errors import DataError
from sniper.inference.pictures import Picture
from sniper.inference.windows import Look
from sniper.loader.windowed import cut_from
from sniper.structures import Images

IN_MEMORY_PX = 128_000_000  # decoded pixels of one group; one picture always fits

# Told the key of a picture that can no longer be read, and why; its detections will not come. May raise.
Lost = Callable[[int, DataError], None]


def groups_of(pictures: Iterable[Picture], most: int) -> Iterator[list[Picture]]:
    """Up to ``most`` pictures at a time, fewer where they are large."""
    group: list[Picture] = []
    for picture in pictures:
        group.append(picture)
        if len(group) == most or sum(one.in_memory for one in group) >= IN_MEMORY_PX:
            yield group
            group = []
    if group:
        yield group


def batches_of(looks: Iterable[Look], batch_pixels: int) -> Iterator[list[Look]]:
    """Windows of equal canvas, as many together as ``batch_pixels`` allows; those of an image row by row.

    Focus chips come best first: strips of a file would be decoded again and again.
    """
    shapes: dict[tuple[int, int], list[Look]] = defaultdict(list)
    for look in looks:
        shapes[look.window.canvas_wh].append(look)
    for (width, height), members in shapes.items():
        members.sort(key=lambda look: (look.window.image, look.window.level, look.window.origin_xy[::-1]))
        size = max(1, batch_pixels // (width * height))
        yield from (members[start : start + size] for start in range(0, len(members), size))


class Reader:
    """Reads windows of a group of pictures, and remembers which of these can no longer be read."""

    def __init__(self, group: list[Picture], lost: Lost | None) -> None:
        """``lost`` is told of a picture that cannot be read, once; None: the error is raised."""
        self.group, self._tell = group, lost
        self.lost: set[int] = set()  # positions in the group

    def read(self, batches: Iterable[list[Look]]) -> Iterator[tuple[list[Look], Images]]:
        """Each batch with its canvases, without the windows of lost pictures; one batch is read ahead."""
        with ThreadPoolExecutor(1) as pool:
            ahead = None
            try:
                for batch in [*batches, None]:
                    ready, ahead = ahead, None if batch is None else pool.submit(self._canvases, batch)
                    if ready is None:
                        continue
                    looks, images, errors = ready.result()
                    for position, error in errors.items():
                        self._lose(position, error)
                    if images is not None:
                        yield looks, images
            finally:
                if ahead is not None:
                    ahead.cancel()

    def _lose(self, position: int, error: DataError) -> None:
        if self._tell is None:
            raise error
        if position not in self.lost:
            self.lost.add(position)
            self._tell(self.group[position].key, error)

    def _canvases(self, batch: list[Look]) -> tuple[list[Look], Images | None, dict[int, DataError]]:
        """The windows that can be read, their canvases, and what went wrong with the others, by picture."""
        canvases, looks, errors = [], [], {}
        for look in batch:
            window = look.window
            if window.image in self.lost or window.image in errors:
                continue
            pixels = self.group[window.image].pixels
            try:
                canvas = cut_from(pixels, window.origin_xy, window.scale, window.canvas_wh, window.content_wh)
            except DataError as error:
                errors[window.image] = error
                continue
            canvases.append(canvas)
            looks.append(look)
        if not canvases:
            return [], None, errors
        windows = [look.window for look in looks]
        images = Images(
            pixels=torch.from_numpy(np.stack(canvases)).permute(0, 3, 1, 2),
            content_hw=torch.tensor([window.content_wh[::-1] for window in windows]),
            scale=torch.tensor([window.scale for window in windows], dtype=torch.float32),
        )
        return looks, images, errors
