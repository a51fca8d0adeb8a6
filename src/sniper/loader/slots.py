"""Room for chips in memory that a worker process and this one share: written once, read where they lie."""

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PAGE = mmap.PAGESIZE


class Slots:
    """Memory for ``count`` chips of up to ``chip_bytes``, made before a worker is forked and shared with it.

    The worker fills slots, this process frees them: a slot is free again when the last array that shows it is gone.
    The lowest free one is taken, so that only as much memory is ever touched as was in use at once, however many
    slots there are. A file descriptor or a size of ``/dev/shm`` plays no part.
    """

    def __init__(self, count: int, chip_bytes: int) -> None:
        self._bytes = -(-max(chip_bytes, 1) // _PAGE) * _PAGE
        flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
        self._pixels = np.frombuffer(mmap.mmap(-1, count * self._bytes, flags=flags), np.uint8)
        self._taken = np.frombuffer(mmap.mmap(-1, count), np.bool_)

    def fill(self, pixels: NDArray[np.uint8]) -> int | None:
        """Copy a chip into a free slot, and say which; None if there is none, or the chip is too large."""
        slot = int(self._taken.argmin())
        if self._taken[slot] or pixels.nbytes > self._bytes:
            return None
        self._taken[slot] = True
        start = slot * self._bytes
        self._pixels[start : start + pixels.nbytes].reshape(pixels.shape)[...] = pixels
        return slot

    def show(self, slot: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """The chip in a slot, not copied; without any reference to it the slot is free."""
        start = slot * self._bytes
        return np.asarray(_Shown(self._pixels[start : start + int(np.prod(shape))].reshape(shape), self._taken, slot))


class _Shown:
    """What an array of a slot is based on: it goes when the array and all of its views are gone."""

    def __init__(self, chip: NDArray[np.uint8], taken: NDArray[np.bool_], slot: int) -> None:
        self._chip, self._taken, self._slot = chip, taken, slot

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self._chip.__array_interface__

    def __del__(self) -> None:
        self._taken[self._slot] = False
