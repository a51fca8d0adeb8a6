"""Where maps of windows wait for the masks that are made of them: in memory, or on disk when they are many."""

import math
import tempfile
from typing import IO

import numpy as np
import torch

from sniper.errors import StorageError

MEMORY_BYTES = 512 * 1024 * 1024


class FeatureCache:
    """Maps in half precision on the CPU, until all levels of their images are merged.

    What goes beyond ``MEMORY_BYTES`` lies in a temporary file.
    """

    def __init__(self) -> None:
        self._held: list[torch.Tensor | tuple[int, tuple[int, ...]]] = []  # or place and shape in the file
        self._in_memory, self._end = 0, 0
        self._file: IO[bytes] | None = None

    def put(self, maps: torch.Tensor) -> int:
        """Keep one map; the number that ``take`` wants.

        Raises:
            StorageError: the disk is full.
        """
        maps = maps.to("cpu", torch.float16).contiguous()
        size = maps.numel() * maps.element_size()
        if self._in_memory + size <= MEMORY_BYTES:
            self._in_memory += size
            self._held.append(maps)
            return len(self._held) - 1
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="sniper-")  # noqa: SIM115  goes with the shelf
            self._file.seek(self._end)
            self._file.write(maps.numpy().data)
        except OSError as error:
            raise StorageError(
                f"no room for what masks are made of in {tempfile.gettempdir()}: {error.strerror or error}; "
                "set TMPDIR to a folder with more"
            ) from error
        self._held.append((self._end, tuple(maps.shape)))
        self._end += size
        return len(self._held) - 1

    def take(self, number: int) -> torch.Tensor:
        """The map of that number."""
        held = self._held[number]
        if isinstance(held, torch.Tensor):
            return held
        place, shape = held
        assert self._file is not None
        self._file.seek(place)
        content = bytearray(self._file.read(2 * math.prod(shape)))
        return torch.from_numpy(np.frombuffer(content, np.float16).reshape(shape))
