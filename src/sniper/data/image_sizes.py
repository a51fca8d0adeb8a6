"""Sizes of images whose annotations do not tell them: read once from the files' headers, and kept.

They are kept in the cache folder under a hash of the list of files. A file that is replaced by another of the same name
is not in that hash: so some headers are compared each time, and where one differs all are read again.
"""

import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.errors import DataError, StorageError
from sniper.fetch.folder import cache_folder
from sniper.files import replacing
from sniper.pixels.quick_look import quick_size

logger = logging.getLogger("sniper")

_THREADS = 8  # most of the time goes to waiting for the disk
_TASK = 512  # files
_KEPT_FROM = 2_000  # files; fewer are read anew in less than a second
_COMPARED = 64  # files


class Sizes(NamedTuple):
    """What headers say of I files."""

    sizes_wh: NDArray[np.int32]  # (I, 2) px, 0 where the file cannot be used
    unreadable: list[DataError]  # of those


def sizes_of_images(folder: Path, names: Sequence[str]) -> Sizes:
    """The sizes of the images of these names in a folder, kept from before or read now in parallel."""
    if len(names) < _KEPT_FROM:
        return _read(folder, names)
    digest = hashlib.sha256("\n".join([str(folder.resolve()), *names]).encode("utf-8", "surrogateescape")).hexdigest()
    kept = cache_folder() / "image-sizes" / f"{digest[:32]}.npy"
    sizes = _kept(kept, folder, names)
    if sizes is not None:
        logger.info("sizes of %d images: from %s", len(names), kept)
        return Sizes(sizes, [])
    logger.info("reading the sizes of %d images in %s, which are then kept", len(names), folder)
    found = _read(folder, names)
    if not found.unreadable:  # else the files may be mended
        try:
            with replacing(kept) as partial, partial.open("wb") as file:
                np.save(file, found.sizes_wh, allow_pickle=False)
        except StorageError as error:
            logger.warning("the sizes of images are not kept: %s", error)
    return found


def _kept(file: Path, folder: Path, names: Sequence[str]) -> NDArray[np.int32] | None:
    """What is kept, if it is whole and agrees with some files."""
    try:
        sizes = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if sizes.shape != (len(names), 2) or sizes.dtype != np.int32:
        return None
    rows = np.unique(np.linspace(0, len(names) - 1, _COMPARED).astype(int))
    now = _read(folder, [names[row] for row in rows.tolist()])
    return sizes if (now.sizes_wh == sizes[rows]).all() else None


def _read(folder: Path, names: Sequence[str]) -> Sizes:
    sizes = np.zeros((len(names), 2), np.int32)

    def some(start: int) -> list[DataError]:
        errors = []
        for row in range(start, min(start + _TASK, len(names))):
            try:
                sizes[row] = quick_size(os.path.join(folder, names[row]))  # noqa: PTH118  as in quick_size
            except DataError as error:
                errors.append(error)
        return errors

    with ThreadPoolExecutor(_THREADS) as pool:
        return Sizes(sizes, [error for errors in pool.map(some, range(0, len(names), _TASK)) for error in errors])
