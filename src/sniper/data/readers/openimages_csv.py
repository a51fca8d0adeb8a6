"""The CSV files of OpenImages as columns; a row is never a Python object. Only this module imports pyarrow."""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from sniper.data.flags import ObjectFlag
from sniper.errors import DataError

_CORNERS = ("XMin", "YMin", "XMax", "YMax")
_MARKS = {
    "IsOccluded": ObjectFlag.OCCLUDED,
    "IsTruncated": ObjectFlag.TRUNCATED,
    "IsGroupOf": ObjectFlag.GROUP_OF,
    "IsDepiction": ObjectFlag.DEPICTION,
    "IsInside": ObjectFlag.INSIDE,
}
_CODES = pa.dictionary(pa.int32(), pa.string())
_BLOCK_BYTES = 8 << 20  # of a file in memory for each core


class Names(NamedTuple):
    """A column of R texts: each text once, and which one a row has."""

    texts: pa.StringArray  # U, no order
    codes: NDArray[np.int32]  # (R,) index into texts


class BoxColumns(NamedTuple):
    """The rows of a file of boxes, in its order."""

    images: Names
    classes: Names  # by their MIDs
    shares_xyxy: NDArray[np.float64]  # (R, 4) of the image's sides, as written; NaN where nothing is
    flags: NDArray[np.uint8]  # (R,) bits of ObjectFlag


class LabelColumns(NamedTuple):
    """The rows of a file of image-level labels, in its order."""

    images: Names
    classes: Names
    confidence: NDArray[np.float32]  # (R,)


def read_boxes(file: Path) -> BoxColumns:
    """A file of boxes of any version or of a challenge; columns may come in any order, flags may be missing.

    Raises:
        DataError: it cannot be read, lacks columns, or has a line with other fields.
    """
    there = _header(file, ("ImageID", "LabelName", *_CORNERS))
    marks = {name: flag for name, flag in _MARKS.items() if name in there}
    types = {"ImageID": _CODES, "LabelName": _CODES}
    table = _read(file, types | dict.fromkeys(_CORNERS, pa.float64()) | dict.fromkeys(marks, pa.int8()))
    shares = np.empty((table.num_rows, 4))
    for place, name in enumerate(_CORNERS):
        _fill(table.column(name), shares[:, place], np.nan)
    flags = np.zeros(table.num_rows, np.uint8)
    marked = np.empty(table.num_rows, np.int8)
    for name, flag in marks.items():
        _fill(table.column(name), marked, 0)
        flags |= np.where(marked == 1, np.uint8(flag), np.uint8(0))  # -1 says that nobody looked
    return BoxColumns(_names(table.column("ImageID")), _names(table.column("LabelName")), shares, flags)


def read_labels(file: Path) -> LabelColumns:
    """A file of image-level labels.

    Raises:
        DataError: it cannot be read, lacks columns, or has a line with other fields or a confidence beyond 0 to 1.
    """
    _header(file, ("ImageID", "LabelName", "Confidence"))
    table = _read(file, {"ImageID": _CODES, "LabelName": _CODES, "Confidence": pa.float32()})
    confidence = np.empty(table.num_rows, np.float32)
    _fill(table.column("Confidence"), confidence, np.nan)
    wrong = np.flatnonzero(~((confidence >= 0) & (confidence <= 1)))
    if len(wrong):
        raise DataError(
            f"{file}, line {wrong[0] + 2}: confidence {confidence[wrong[0]]:g} is not 0 (verified absent) to 1 "
            f"(verified present); mend or remove the line ({len(wrong)} such)"
        )
    return LabelColumns(_names(table.column("ImageID")), _names(table.column("LabelName")), confidence)


def places_among(wanted: pa.StringArray, known: Sequence[str]) -> NDArray[np.int64]:
    """(U,) index of each text among the known ones, the first where one is there twice; -1: it is not there."""
    found = pc.index_in(wanted, value_set=pa.array(known, pa.string()))
    return np.asarray(pc.fill_null(found, -1)).astype(np.int64)


def texts_of(names: Sequence[pa.StringArray]) -> list[str]:
    """All texts of some columns, sorted, each once."""
    every = pc.unique(pa.chunked_array(names, pa.string()))
    texts: list[str] = every.take(pc.sort_indices(every)).to_pylist()
    return texts


def _header(file: Path, needed: Sequence[str]) -> list[str]:
    """The names of the columns; the needed ones are among them."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            there = next(csv.reader([opened.readline(10_000)]), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {file}: {error}; expected a CSV file of OpenImages in UTF-8") from error
    absent = [name for name in needed if name not in there]
    if absent:
        raise DataError(
            f"{file}, line 1: column{'s' if len(absent) > 1 else ''} {', '.join(absent)} missing; the first line names "
            f"the columns, {', '.join(needed)} and others, but here it is {','.join(there)[:200] or 'empty'}"
        )
    return there


def _read(file: Path, types: Mapping[str, pa.DataType]) -> pa.Table:
    def read(threads: bool) -> pa.Table:
        return pa.csv.read_csv(
            file,
            read_options=pa.csv.ReadOptions(use_threads=threads, block_size=_BLOCK_BYTES),
            convert_options=pa.csv.ConvertOptions(include_columns=list(types), column_types=dict(types)),
        )

    try:
        return read(threads=True)
    except (pa.ArrowException, OSError):
        pass
    try:
        return read(threads=False)  # which tells the line
    except (pa.ArrowException, OSError) as error:
        said = str(error)
        line = re.search(r"Row #(\d+): ", said)
        place = f"{file}, line {line[1]}" if line else str(file)
        what = said.replace(line[0], "") if line else said
        raise DataError(f"{place}: {what[:300].strip()}; mend or remove the line, or copy the file again") from error


def _fill(column: pa.ChunkedArray, into: NDArray[Any], empty: float) -> None:
    start = 0
    for chunk in column.chunks:
        values = chunk.fill_null(empty) if chunk.null_count else chunk
        into[start : start + len(chunk)] = values.to_numpy(zero_copy_only=False)
        start += len(chunk)


def _names(column: pa.ChunkedArray) -> Names:
    chunks = column.unify_dictionaries().chunks
    if not chunks:
        return Names(pa.array([], pa.string()), np.zeros(0, np.int32))
    codes = [chunk.indices.to_numpy(zero_copy_only=False) for chunk in chunks]
    return Names(chunks[0].dictionary, np.concatenate(codes).astype(np.int32, copy=False))
