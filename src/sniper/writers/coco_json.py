"""``predictions.json``: one entry an image or frame, boxes and masks in COCO's forms."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from sniper.files import replacing

_OPENING, _BETWEEN, _CLOSING = b"[", b",\n", b"]\n"


class PredictionsFile:
    """A JSON list that is being written, one entry a line; ``predictions_file`` opens one."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._count = file, 0

    def add(self, entry: Mapping[str, Any]) -> None:
        """The next image or frame, plain values."""
        self._file.write(_BETWEEN if self._count else b"")
        self._file.write(json.dumps(entry).encode())
        self._count += 1


@contextmanager
def predictions_file(path: Path | str) -> Iterator[PredictionsFile]:
    """A new file, which appears under its name when the block ends well; with an error, none does.

    Raises:
        StorageError: it cannot be written.
    """
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(_OPENING)
        yield PredictionsFile(file)
        file.write(_CLOSING)


def join_predictions(path: Path | str, parts: Iterable[Path]) -> None:
    """One list of the entries of several, in their order; the parts are copied, not read into memory.

    Raises:
        StorageError: it cannot be written.
    """
    with replacing(path) as partial, partial.open("wb") as whole:
        whole.write(_OPENING)
        for part in parts:
            entries = part.stat().st_size - len(_OPENING) - len(_CLOSING)
            if not entries:
                continue
            whole.write(_BETWEEN if whole.tell() > len(_OPENING) else b"")
            with part.open("rb") as file:
                file.seek(len(_OPENING))
                shutil.copyfileobj(file, whole)
            whole.seek(-len(_CLOSING), os.SEEK_CUR)
        whole.write(_CLOSING)
