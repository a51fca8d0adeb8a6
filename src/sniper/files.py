"""Files that matter: there when they are read, and written completely under their final name or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sniper.errors import DataError, StorageError


def existing(path: Path | str, instead: str) -> Path:
    """The path of a file or folder that is there, ``~`` resolved.

    Raises:
        DataError: it is not there; ``instead`` says what to give.
    """
    place = Path(path).expanduser()
    if not is_there(place):
        raise DataError(f"{place} is not there; {instead}")
    return place


def is_there(path: Path) -> bool:
    """Whether a file or folder is there; False too for names that none can have: too long, or with a NUL."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def is_file(path: Path) -> bool:
    """Whether a file is there; False too for names that none can have."""
    return is_there(path) and path.is_file()


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it is synced and renamed to ``path``.

    A reader sees the old file or the new one, never a part, whatever kills the process. On an error the
    temporary file is removed, with the folders that were made for it, and the old file stays.

    Raises:
        StorageError: the folder cannot be written or the disk is full.
    """
    final = Path(path)
    made = [folder for folder in final.parents if not folder.exists()]
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{final.name}.", suffix=".part", dir=final.parent)
        os.close(handle)
    except (OSError, ValueError) as error:  # ValueError: there is a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else None
        raise StorageError(f"cannot write {final}: {reason or error}; free space or choose another folder") from error
    partial = Path(name)
    try:
        yield partial
        with partial.open("r+b" if os.name == "nt" else "rb") as written:  # Windows syncs only what may be written
            os.fsync(written.fileno())
        partial.chmod(0o644)
        partial.replace(final)
    except OSError as error:
        raise StorageError(
            f"cannot write {final}: {error.strerror or error}; free space or choose another folder"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
        with suppress(OSError):  # the first one that holds something stays, and those above it
            for folder in made:
                folder.rmdir()


def require_new_folder(folder: Path) -> None:
    """Refuse a folder that holds something, or a file.

    Raises:
        StorageError: it does, or is one.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StorageError(f"{folder} exists and is not empty; choose another folder")


@contextmanager
def new_folder(path: Path | str) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; on success it gets that name, on an error it is removed.

    So a folder under its name is complete, whatever stops the process.

    Raises:
        StorageError: ``path`` holds something, or cannot be made.
    """
    final = Path(path)
    require_new_folder(final)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".part", dir=final.parent))
    except (OSError, ValueError) as error:  # ValueError: there is a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else None
        raise StorageError(f"cannot make {final}: {reason or error}; choose another folder") from error
    try:
        yield partial
        partial.chmod(0o755)
        if final.exists():
            final.rmdir()  # it was empty
        partial.rename(final)
    except OSError as error:
        raise StorageError(f"cannot write {final}: {error.strerror or error}; choose another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path``, completely or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write ``content`` to ``path``, completely or not at all."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_parts(folder: Path | str, files: Iterable[tuple[str, bytes]]) -> None:
    """Write many small files by their names in ``folder``, none of them synced: write what refers to them afterwards.

    Raises:
        StorageError: the folder cannot be written or the disk is full.
    """
    made: set[Path] = set()
    for name, content in files:
        path = Path(folder) / name
        try:
            if path.parent not in made:
                path.parent.mkdir(parents=True, exist_ok=True)
                made.add(path.parent)
            path.write_bytes(content)
        except OSError as error:
            raise StorageError(
                f"cannot write {path}: {error.strerror or error}; free space or choose another folder"
            ) from error
