"""At most one training writes in a run folder."""

import logging
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from sniper.errors import StorageError

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("sniper")

_held: set[int] = set()  # handles of this process


def _let_go() -> None:
    """A forked worker of a loader may outlive a killed training, and must not keep its folder locked."""
    for handle in _held:
        os.close(handle)
    _held.clear()


if fcntl is not None:
    os.register_at_fork(after_in_child=_let_go)


class RunLock:
    """Held from ``take`` until it is left, or until the process ends in whatever way.

    The lock is the system's, on the folder itself: it leaves no file. Where there are none (Windows, some network file
    systems), nothing is locked.
    """

    def __init__(self) -> None:
        self._handle: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            _held.discard(self._handle)
            os.close(self._handle)
            self._handle = None

    def take(self, folder: Path) -> None:
        """Lock an existing folder; of several, the last one stays locked.

        Raises:
            StorageError: another training has it.
        """
        self.__exit__(None, None, None)
        if fcntl is None:
            return
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise StorageError(
                f"{folder} is in use by another training; wait until it ends, or start one under another name"
            ) from error
        except OSError as error:
            os.close(handle)
            logger.debug("%s cannot be locked: %s", folder, error)
            return
        self._handle = handle
        _held.add(handle)


def is_locked(folder: Path) -> bool:
    """Whether a training writes in a folder. Asks, and takes nothing."""
    if fcntl is None:
        return False
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False
