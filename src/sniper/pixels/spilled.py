"""Decoded pixels in a temporary file, for images whose format can only be decoded from its beginning.

The file has no name, or goes with the process. ``docs/method.md``, "Huge images".
"""

import tempfile
from collections.abc import Callable, Iterator
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from sniper.errors import StorageError

Pixels = NDArray[np.uint8]


class SpilledPixels:
    """(H, W, 3) uint8 RGB on disk, decoded when something is first read."""

    def __init__(self, size_wh: tuple[int, int], decode: Callable[[], Iterator[Pixels]], place: str) -> None:
        """``decode`` gives all rows, top first, in any number of (h, W, 3) pieces; ``place`` names the image."""
        self.size_wh = size_wh
        self._decode, self._place, self._lock = decode, place, Lock()
        self._file = tempfile.TemporaryFile(prefix="sniper-")  # noqa: SIM115  closed by ``close``
        self._filled = False

    def read(self, x1: int, y1: int, x2: int, y2: int) -> Pixels:
        """(y2 - y1, x2 - x1, 3), inside the image.

        Raises:
            DataError: the image cannot be decoded.
            StorageError: there is no room for the decoded pixels.
        """
        width, height = self.size_wh
        with self._lock:
            if not self._filled:
                self._fill()
            # Mapped for as long as it takes to copy: pages of a file that stay mapped count as memory in use.
            return np.array(np.memmap(self._file, np.uint8, "r", shape=(height, width, 3))[y1:y2, x1:x2])

    def close(self) -> None:
        """Give the disk back."""
        self._file.close()

    def _fill(self) -> None:
        width, height = self.size_wh
        self._file.seek(0)
        for piece in self._decode():
            try:
                self._file.write(np.ascontiguousarray(piece).data)
            except OSError as error:
                raise StorageError(
                    f"no room for the decoded pixels of {self._place} ({3 * width * height / 1e9:.1f} GB) in "
                    f"{tempfile.gettempdir()}: {error.strerror or error}; set TMPDIR to a folder with more"
                ) from error
        self._file.flush()
        self._filled = True
