"""The cache folder, and what lies complete in it."""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from sniper.errors import DownloadError, StorageError
from sniper.fetch.folder import cache_folder
from sniper.fetch.names import Source, resolve
from sniper.fetch.transfer import PATIENCE, OnProgress, Patience, transfer
from sniper.files import write_text


class Downloaded(NamedTuple):
    """A complete file in the cache."""

    path: Path
    size: int  # bytes
    sha256: str
    fresh: bool  # fetched now; else it was there
    verified: bool  # compared with a checksum that the user, the name or the server told


def cached(name: str | Path) -> Path | None:
    """The complete file in the cache that a name of weights means; None: it was not fetched, or is no such name."""
    try:
        path = _path(resolve(str(name)))
        return path if path.stat().st_size == _record(path)["size"] else None
    except (DownloadError, OSError, KeyError):
        return None


def download(
    name: str,
    *,
    sha256: str | None = None,
    patience: Patience = PATIENCE,
    on_progress: OnProgress | None = None,
) -> Downloaded:
    """Fetch weights into the cache folder, unless they are there; the file is never opened as weights.

    A transfer that breaks off goes on where it stopped, now or the next time. The file appears under its name when it
    is complete and, where a checksum is known, the right one.

    Args:
        name: a network of torchvision, ``timm/<model>``, ``hf:OWNER/REPO[/FILE][@REVISION]`` or an https address.
        sha256: the checksum it must have, 64 hexadecimal digits.
        patience: when to give up.
        tick: called with the bytes that are here and the size of the file, or None where it is not known.

    Raises:
        DownloadError: no such name, no such file, no network, or the wrong checksum (the file is removed).
        StorageError: the folder cannot be written or the disk is full; what is there is kept to go on from.
    """
    source = resolve(name, sha256)
    path = _path(source)
    here = _complete(path, source)
    if here is not None:
        return here
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"cannot write {path.parent}: {error.strerror or error}; set SNIPER_CACHE to another folder"
        ) from error
    done = transfer(source, path, patience, on_progress or (lambda here, total: None))
    write_text(
        _record_path(path),
        json.dumps({"name": name, "url": source.url, "size": done.size, "sha256": done.sha256, "told": done.verified}),
    )
    return Downloaded(path, done.size, done.sha256, fresh=True, verified=done.verified)


def _path(source: Source) -> Path:
    return cache_folder() / "weights" / source.place


def _record_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _record(path: Path) -> dict:
    """What was written down when the file was complete; empty: nothing."""
    try:
        found = json.loads(_record_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _complete(path: Path, source: Source) -> Downloaded | None:
    """The file, if it is there with the checksum that is asked for and that it was written with."""
    record = _record(path)
    wanted = source.sha256 or record.get("sha256")
    if not isinstance(wanted, str) or not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}; remove it or change its rights") from error
    if not found.startswith(wanted) or record.get("sha256", found) != found:
        return None
    told = source.sha256 is not None or record.get("told") is True
    if not record:  # the process ended between the file and its record
        size = path.stat().st_size
        write_text(
            _record_path(path),
            json.dumps({"name": source.name, "url": source.url, "size": size, "sha256": found, "told": told}),
        )
    return Downloaded(path, path.stat().st_size, found, fresh=False, verified=told)
