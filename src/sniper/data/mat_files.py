"""MATLAB files of level 5 (``save -v6`` and ``-v7``), as far as datasets use them: numbers, text and cells.

The form is documented by its maker ("MAT-File Format"). SciPy reads it too; it would be needed for nothing else here.
Level 4 and the HDF5 files of ``-v7.3`` are told apart and refused.
"""

import struct
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sniper.errors import DataError

MatValue = NDArray[Any] | str | list["MatValue"]
"""An array of numbers; text; or cells, column after column, each a value."""

_HEADER_BYTES = 128
_MAX_VARIABLE_BYTES = 2**31  # unpacked
_NAME_BYTES = 1024  # size and name of a variable lie in so many, and need no more unpacking
_MATRIX, _COMPRESSED = 14, 15
_CELL, _CHAR = 1, 4
_NUMERIC = range(6, 16)  # classes: double, single, integers of 8 to 64 bits
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXT = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}


def read_mat(path: Path | str, names: Collection[str]) -> dict[str, MatValue]:
    """The variables of these names that the file has; the others are not unpacked.

    Raises:
        DataError: the file cannot be read, is of another version or damaged, or a variable is neither numbers, text nor
            cells of these.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; give a MATLAB file") from error
    order = _byte_order(path, data)
    found: dict[str, MatValue] = {}
    try:
        place = _HEADER_BYTES
        while place + 8 <= len(data):
            kind, size = struct.unpack_from(order + "II", data, place)
            if place + 8 + size > len(data):
                raise ValueError(f"it ends inside a variable, at byte {len(data)}")
            element = memoryview(data)[place + 8 : place + 8 + size]
            if kind not in (_MATRIX, _COMPRESSED):
                raise ValueError(f"byte {place} begins an element of type {kind}, where a variable is expected")
            packed = kind == _COMPRESSED
            matrix = _Matrix(_unpacked(element, _NAME_BYTES)[8:] if packed else element, order)
            if matrix.name in names:
                matrix = _Matrix(_unpacked(element)[8:], order) if packed else matrix
                found[matrix.name] = matrix.value()
            place += 8 + size
    except (ValueError, struct.error, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is damaged: {error}; fetch it again") from error
    return found


def _byte_order(path: Path | str, data: bytes) -> str:
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    version = None if order is None else struct.unpack_from(order + "H", data, 124)[0]
    if order is None or version != 0x0100:
        is_hdf5 = version == 0x0200 or data[1:4] == b"HDF"
        what = "an HDF5 file, as MATLAB 7.3 writes" if is_hdf5 else "another kind of file"
        raise DataError(
            f"{path}: expected a MATLAB file of version 5 to 7 and got {what}; "
            "take the published file, or save it in MATLAB with -v7"
        )
    return order


def _unpacked(element: memoryview, first_bytes: int | None = None) -> memoryview:
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(element, first_bytes or _MAX_VARIABLE_BYTES)
    if first_bytes is None and not unpacker.eof:
        raise ValueError(f"a variable {'is larger than 2 GB' if unpacker.unconsumed_tail else 'ends too early'}")
    return memoryview(data)


class _Matrix:
    """One variable or cell: its class, size and name are read, its value when it is asked for."""

    def __init__(self, data: memoryview, order: str) -> None:
        self._data, self._order, self._place = data, order, 0
        self.name = ""
        if not len(data):  # an empty cell
            self._kind, self._dimensions = 6, (0, 0)
            return
        self._kind = int(self._numbers()[0]) & 0xFF
        self._dimensions = tuple(self._numbers().tolist())
        self.name = bytes(self._element()[1]).decode("ascii")

    def value(self) -> MatValue:
        """The value; once."""
        count = int(np.prod(self._dimensions, dtype=np.int64))
        if self._kind == _CELL:
            if not 0 <= count <= len(self._data) // 8:
                raise ValueError(f"{self.name or 'a cell'} claims {count} cells")
            return [self._cell() for _ in range(count)]
        if self._kind == _CHAR:
            kind, data = self._element()
            if kind not in _TEXT:
                raise ValueError(f"text of type {kind} in {self.name or 'a cell'}")
            encoding = _TEXT[kind] + ("-le" if self._order == "<" else "-be") * (_TEXT[kind] in ("utf-16", "utf-32"))
            return bytes(data).decode(encoding)
        if self._kind not in _NUMERIC:
            raise ValueError(f"{self.name or 'a cell'} is of class {self._kind}, where numbers, text or cells are read")
        values = self._numbers() if count else np.zeros(0)
        if len(values) != count:
            raise ValueError(f"{self.name or 'a cell'} has {len(values)} numbers, and its size is {self._dimensions}")
        return values.reshape(self._dimensions, order="F")

    def _cell(self) -> MatValue:
        kind, data = self._element()
        if kind != _MATRIX:
            raise ValueError(f"{self.name or 'a cell'} has a cell of type {kind}")
        return _Matrix(data, self._order).value()

    def _numbers(self) -> NDArray[Any]:
        kind, data = self._element()
        if kind not in _TYPES:
            raise ValueError(f"numbers of type {kind} in {self.name or 'a cell'}")
        return np.frombuffer(data, self._order + _TYPES[kind])

    def _element(self) -> tuple[int, memoryview]:
        """Type and bytes of the next element; those of up to four bytes lie in its tag."""
        (tag,) = struct.unpack_from(self._order + "I", self._data, self._place)
        if tag >> 16:
            kind, size, start = tag & 0xFFFF, tag >> 16, self._place + 4
            self._place += 8
        else:
            kind, start = tag, self._place + 8
            (size,) = struct.unpack_from(self._order + "I", self._data, self._place + 4)
            self._place = start + (size if kind == _COMPRESSED else -(-size // 8) * 8)
        if start + size > len(self._data):
            raise ValueError(f"{self.name or 'a variable'} ends inside its data")
        return kind, self._data[start : start + size]
