"""One file of read-only columns that several processes map, and that goes when its owner goes."""

import contextlib
import json
import mmap
import os
import shutil
import tempfile
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sniper.errors import DataError, StorageError

try:
    import fcntl
except ImportError:  # Windows has no flock; abandoned files are then left to its own clean-up
    fcntl = None  # type: ignore[assignment]

_PREFIX = "sniper-table-"
_ALIGN = 64
_SETTLED_S = 60  # a younger file may not have its lock yet


class SharedColumns:
    """Named arrays over a file. ``columns`` are views that cannot be written; ``details`` is what came with them."""

    def __init__(self, path: Path, lock: int | None = None) -> None:
        """Map a file that ``share_columns`` wrote. With ``lock``, this process owns the file and will remove it.

        Raises:
            DataError: the owner has removed the file.
        """
        self.path = path
        try:
            mapped: NDArray[np.uint8] = np.memmap(path, np.uint8, mode="r")
        except FileNotFoundError as error:
            raise DataError(f"shared table {path} is gone; keep the table that made it until workers run") from error
        if hasattr(mmap, "MADV_WILLNEED"):
            mapped._mmap.madvise(mmap.MADV_WILLNEED)  # type: ignore[attr-defined]
        size = int(mapped[:8].view(np.int64)[0])
        header = json.loads(mapped[8 : 8 + size].tobytes())
        self.details: dict[str, Any] = header["details"]
        # Plain arrays over the mapping: slices of the memmap subclass cost several times more.
        raw = np.asarray(mapped)
        self.columns: dict[str, NDArray[Any]] = {
            name: raw[start : start + length].view(dtype).reshape(shape)
            for name, (dtype, shape, start, length) in header["columns"].items()
        }
        if lock is not None:
            weakref.finalize(self, _remove, path, os.getpid(), lock)


def share_columns(columns: dict[str, NDArray[Any]], details: dict[str, Any]) -> SharedColumns:
    """Write the columns to shared memory, or to the temporary folder where that has no room, and own the file.

    Raises:
        StorageError: there is no room in either.
    """
    places, start = {}, 0
    for name, column in columns.items():
        places[name] = (column.dtype.str, column.shape, start, column.nbytes)
        start += -(-column.nbytes // _ALIGN) * _ALIGN
    header, base = _header(places, details)
    folder = _folder(base + start)
    _remove_abandoned(folder)
    try:
        handle, name = tempfile.mkstemp(prefix=_PREFIX, dir=folder)
        path = Path(name)
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_SH)
        try:
            with open(handle, "wb", closefd=False) as file:
                file.write(header)
                for column, place in zip(columns.values(), places.values(), strict=True):
                    file.seek(base + place[2])
                    file.write(np.ascontiguousarray(column).data if column.size else b"")
                file.truncate(base + start)
        except OSError:
            _remove(path, os.getpid(), handle)
            raise
    except OSError as error:
        message = f"cannot share {(base + start) / 1e6:.0f} MB through {folder}: {error.strerror}; free space there"
        raise StorageError(message) from error
    return SharedColumns(path, lock=handle)


def _header(places: dict[str, Any], details: dict[str, Any]) -> tuple[bytes, int]:
    """Header bytes and their aligned length; positions in the header are absolute, so its length is found first."""
    base = 0
    while True:
        shifted = {name: (dtype, shape, base + start, length) for name, (dtype, shape, start, length) in places.items()}
        text = json.dumps({"columns": shifted, "details": details}).encode()
        needed = -(-(8 + len(text)) // _ALIGN) * _ALIGN
        if needed <= base:
            return np.int64(len(text)).tobytes() + text, base
        base = needed


def _folder(nbytes: int) -> Path:
    shared_memory = Path("/dev/shm")
    if (
        shared_memory.is_dir()
        and os.access(shared_memory, os.W_OK)
        and shutil.disk_usage(shared_memory).free > 1.1 * nbytes
    ):
        return shared_memory
    return Path(tempfile.gettempdir())


def _remove(path: Path, owner: int, lock: int) -> None:
    if os.getpid() == owner:  # a forked child inherits the object but not the file
        path.unlink(missing_ok=True)
        os.close(lock)


def _remove_abandoned(folder: Path) -> None:
    """Remove files whose owners were killed: nobody holds their lock."""
    if fcntl is None:
        return
    for path in folder.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            if time.time() - os.fstat(file.fileno()).st_mtime > _SETTLED_S:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
