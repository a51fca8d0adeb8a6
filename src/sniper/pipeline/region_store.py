"""Described regions of photos, kept on disk: what was computed once is read when the classes are learned again."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from sniper.errors import StorageError
from sniper.fetch import cache_folder
from sniper.files import replacing

MAX_BYTES = 500_000_000
_FORM = 1  # part of every key: what a file holds, and how regions are found


class RegionStore:
    """One file a photo, named by a hash of its content, of the networks and of all settings of inference.

    A photo that changed has another key, so nothing stale is ever read. ``trim`` removes what was not used for longest.
    """

    def __init__(self, folder: Path | None = None, max_bytes: int = MAX_BYTES) -> None:
        """``folder`` is ``regions`` in the cache folder where none is given."""
        self.folder = folder or cache_folder() / "regions"
        self.max_bytes = max_bytes

    def get(self, key: str) -> dict[str, NDArray[Any]] | None:
        """The columns kept under a key; None: there are none, or they are damaged."""
        path = self._path(key)
        try:
            columns: dict[str, NDArray[Any]] = load_file(path)
            os.utime(path)
        except (OSError, SafetensorError):
            return None
        return columns

    def put(self, key: str, columns: Mapping[str, NDArray[Any]]) -> None:
        """Keep columns. A folder that cannot be written is no reason to stop: nothing is kept."""
        with suppress(StorageError), replacing(self._path(key)) as partial:
            save_file({name: np.ascontiguousarray(column) for name, column in columns.items()}, partial)

    def trim(self) -> int:
        """Remove the files not used for longest until all together are small enough; how many were removed."""
        files = []
        for path in self.folder.glob("*/*.safetensors"):
            with suppress(OSError):
                found = path.stat()
                files.append((found.st_mtime, found.st_size, path))
        total, removed = sum(size for _, size, _ in files), 0
        for _, size, path in sorted(files, key=lambda one: (one[0], str(one[2]))):
            if total <= self.max_bytes:
                break
            path.unlink(missing_ok=True)
            total, removed = total - size, removed + 1
        return removed

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"


def store_key(content: str, networks: tuple[str, ...], settings: Mapping[str, Any]) -> str:
    """SHA-256, as hexadecimal: of a photo's content, the digests of networks and plain settings."""
    plain = json.dumps([_FORM, content, networks, dict(settings)], sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()
