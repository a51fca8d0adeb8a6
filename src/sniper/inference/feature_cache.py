"""Where features of windows wait for the masks that are made of them: in memory, or on disk when they are many."""

import math
import tempfile
from typing import IO

import numpy as np
from numpy.typing import NDArray

from sniper.errors import StorageError

MEMORY_BYTES = 512 * 1024 * 1024


class FeatureCache:
    """Features in half precision, until all levels of their images are merged.

    What goes beyond ``MEMORY_BYTES`` lies in a temporary file.
    """

    def __init__(self) -> None:
        self._held: list[NDArray[np.float16] | tuple[int, tuple[int, ...]]] = []  # or place and shape in the file
        self._in_memory, self._end = 0, 0
        self._file: IO[bytes] | None = None

    def put(self, features: NDArray[np.floating]) -> int:
        """Keep one map; the number that ``take`` wants.

        Raises:
            StorageError: the disk is full.
        """
        half = np.ascontiguousarray(features, np.float16)
        if half is features or half.base is not None:  # a view would keep the maps of the whole batch
            half = half.copy()
        if self._in_memory + half.nbytes <= MEMORY_BYTES:
            self._in_memory += half.nbytes
            self._held.append(half)
            return len(self._held) - 1
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="sniper-")  # noqa: SIM115  goes with the cache
            self._file.seek(self._end)
            self._file.write(half.data)
        except OSError as error:
            raise StorageError(
                f"no room for what masks are made of in {tempfile.gettempdir()}: {error.strerror or error}; "
                "set TMPDIR to a folder with more"
            ) from error
        self._held.append((self._end, half.shape))
        self._end += half.nbytes
        return len(self._held) - 1

    def take(self, number: int) -> NDArray[np.float16]:
        """The map of that number."""
        held = self._held[number]
        if isinstance(held, np.ndarray):
            return held
        place, shape = held
        assert self._file is not None
        self._file.seek(place)
        return np.frombuffer(self._file.read(2 * math.prod(shape)), np.float16).reshape(shape)
