"""Reading MXNet parameter files (``.params``, ``.params.xz``) without MXNet.

A file is a list of arrays and a list of their names, little endian::

    u64 0x112, u64 0, u64 n, n arrays, u64 n, n names {u64 length, bytes}
    array: u32 magic, [i32 storage type], shape, i32 device type, i32 device id, i32 data type, data

The magic tells the version: 0xF993FAC9 (MXNet 1.0 to 1.5, and later unless NumPy shapes are on) and 0xF993FACA have a
storage type and 64-bit dimensions, 0xF993FAC8 has no storage type, and in the oldest files the "magic" is the number
of dimensions, 32 bits each. Nothing in a file is executed; every length is checked before it is believed.
"""

import lzma
import math
import struct
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from sniper.errors import CheckpointError

_LIST_MAGIC = 0x112
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_TYPES = {0: "<f4", 1: "<f8", 2: "<f2", 3: "u1", 4: "<i4", 5: "i1", 6: "<i8"}
_MAX_DIMS = 32
_MAX_ARRAYS = 1_000_000
_MAX_NAME = 4096
_CHUNK = 1 << 24  # bytes read at once: a length that lies costs no more memory than the file has
_WHAT_TO_DO = "use an intact file written by MXNet"


class Params(NamedTuple):
    """The arrays of a parameter file by name, without the prefixes ``arg:`` and ``aux:``."""

    arg: dict[str, NDArray]  # learned weights
    aux: dict[str, NDArray]  # statistics of batch norm


def read_params(path: Path | str) -> Params:
    """All arrays of an MXNet parameter file, in its order; names without a prefix count as ``arg``.

    Raises:
        CheckpointError: the file is missing, cut short or something else; the first place that differs is named.
    """
    with _Reader(Path(path)) as reader:
        reader.expect("<Q", _LIST_MAGIC, "the number 0x112 that begins an MXNet parameter file")
        reader.expect("<Q", 0, "0, the reserved number")
        count = reader.number("<Q", "the number of arrays", 1, _MAX_ARRAYS)
        arrays = [reader.array() for _ in range(count)]
        reader.expect("<Q", count, f"{count}, as many names as arrays")
        found = Params({}, {})
        for array in arrays:
            position = reader.position
            kind, _, name = reader.name().rpartition(":")
            if kind not in ("", "arg", "aux"):
                reader.refuse(position, "a name that begins with arg: or aux:", repr(f"{kind}:{name}"))
            group = found.aux if kind == "aux" else found.arg
            if name in group:
                reader.refuse(position, "a name that has not occurred yet", repr(name))
            group[name] = array
        reader.expect_end()
    return found


class _Reader:
    """Reads numbers and arrays in turn and knows where it is, in bytes of the unpacked file."""

    def __init__(self, path: Path) -> None:
        self.path, self.position = path, 0

    def __enter__(self) -> Self:
        try:
            packed = self.path.suffix == ".xz"
            self._file: IO[bytes] = lzma.open(self.path) if packed else self.path.open("rb")
        except OSError as error:
            raise CheckpointError(f"cannot read {self.path}: {error.strerror or error}; check the path") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def refuse(self, position: int, expected: str, found: str) -> NoReturn:
        """Raise the one sentence about the first place that is not as it should be."""
        raise CheckpointError(f"{self.path}, byte {position}: expected {expected}, found {found}; {_WHAT_TO_DO}")

    def read(self, size: int, what: str) -> bytearray:
        """Exactly ``size`` bytes."""
        start, content = self.position, bytearray()
        while len(content) < size:
            piece = self._some(min(_CHUNK, size - len(content)), what)
            if not piece:
                self.refuse(start, f"{what} ({size} bytes)", f"the end of the file after {len(content)} bytes")
            content += piece
        self.position += size
        return content

    def _some(self, size: int, what: str) -> bytes:
        try:
            return self._file.read(size)
        except EOFError:
            return b""  # packed and cut short
        except (OSError, lzma.LZMAError) as error:
            reason = str(error).rstrip(".") or type(error).__name__
            raise CheckpointError(
                f"{self.path}, byte {self.position}: expected {what}, but it cannot be unpacked or read ({reason}); "
                f"{_WHAT_TO_DO}"
            ) from error

    def unpack(self, form: str, what: str) -> int:
        """One number."""
        value: int = struct.unpack(form, self.read(struct.calcsize(form), what))[0]
        return value

    def number(self, form: str, what: str, low: int, high: int) -> int:
        """One number from ``low`` to ``high``."""
        position = self.position
        value = self.unpack(form, what)
        if not low <= value <= high:
            self.refuse(position, f"{what} from {low} to {high}", str(value))
        return value

    def expect(self, form: str, wanted: int, what: str) -> None:
        """The one number that can stand here."""
        position = self.position
        value = self.unpack(form, what)
        if value != wanted:
            self.refuse(position, what, hex(value) if wanted == _LIST_MAGIC else str(value))

    def expect_end(self) -> None:
        """Nothing comes after the names, and a packed file ends as such files do."""
        try:
            more = self._file.read(1)
        except (EOFError, OSError, lzma.LZMAError) as error:
            raise CheckpointError(
                f"{self.path}, byte {self.position}: expected the end, but the packed file is cut short or damaged; "
                f"{_WHAT_TO_DO}"
            ) from error
        if more:
            self.refuse(self.position, "the end of the file", "more bytes")

    def name(self) -> str:
        """One UTF-8 text with its length before it."""
        size = self.number("<Q", "the length of a name", 1, _MAX_NAME)
        position = self.position
        content = bytes(self.read(size, "a name"))
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            self.refuse(position, "a name in UTF-8", repr(content[:40]))

    def array(self) -> NDArray:
        """One array of any version."""
        position = self.position
        magic = self.unpack("<I", "the number that begins an array")
        dims_form = "<q"
        if magic in (_V2, _V3):
            self.expect("<i", 0, "0, the storage type of a dense array")
            dims = self.number("<i", "a number of dimensions", 0 if magic == _V3 else 1, _MAX_DIMS)
        elif magic == _V1:
            dims = self.number("<I", "a number of dimensions", 1, _MAX_DIMS)
        elif 1 <= magic <= _MAX_DIMS:
            dims, dims_form = magic, "<I"
        else:
            self.refuse(position, f"the number that begins an array ({_V2:#x})", hex(magic))
        shape = [self.number(dims_form, "a dimension", 0, 1 << 40) for _ in range(dims)]
        self.number("<i", "a device type", 1, 6)
        self.number("<i", "a device number", 0, 1 << 16)
        dtype = np.dtype(_TYPES[self.number("<i", "a data type", min(_TYPES), max(_TYPES))])
        size = math.prod(shape) * dtype.itemsize
        return np.frombuffer(self.read(size, f"the data of an array of shape {tuple(shape)}"), dtype).reshape(shape)
