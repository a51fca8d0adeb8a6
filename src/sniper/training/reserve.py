"""Disk space that saving will need, held from the first step on, so that a disk that fills up costs no weights."""

import errno
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from sniper.errors import StorageError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_BLOCK = bytes(2**20)


class DiskReserve:
    """A file without a name in a folder: its space is free again when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def hold(self, size: int) -> bool:
        """Hold ``size`` bytes of the disk in place of what is held; False: they are not there, and nothing is held.

        Raises:
            StorageError: the folder cannot be written.
        """
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
            self._file.truncate(0)
            _allocate(self._file, size)
        except OSError as error:
            self.release()
            if error.errno in _NO_ROOM:
                return False
            # No file may be so large (ulimit, FAT): each of those that are to be written may still be.
            if error.errno != errno.EFBIG:
                raise StorageError(
                    f"cannot write in {self._folder}: {error.strerror or error}; free space or choose another folder"
                ) from error
        return True

    def release(self) -> None:
        """Free what is held, for the files that are written now."""
        if self._file is not None:
            self._file.truncate(0)


def _allocate(file: IO[bytes], size: int) -> None:
    """Give an empty file ``size`` bytes of the disk."""
    if size and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
    file.seek(0)
    while size > 0:
        size -= file.write(_BLOCK[:size])
