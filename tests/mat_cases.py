"""MATLAB files of level 5 as MATLAB writes them, from numbers, text and nested lists (cells)."""

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_TYPES = {"int32": (5, 12), "uint8": (2, 9), "float64": (9, 6), "uint16": (4, 11)}


def write_mat(path: Path, variables: Mapping[str, Any], *, packed: bool = True) -> Path:
    """Lists are columns of cells, strings text, everything else numbers of two dimensions."""
    data = b"MATLAB 5.0 MAT-file, made by hand".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    for name, value in variables.items():
        element = _matrix(name, value)
        if packed:
            deflated = zlib.compress(element)
            element = struct.pack("<II", 15, len(deflated)) + deflated
        data += element
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _element(kind: int, data: bytes) -> bytes:
    if len(data) <= 4:
        return struct.pack("<HH", kind, len(data)) + data.ljust(4, b"\0")
    return struct.pack("<II", kind, len(data)) + data.ljust(-(-len(data) // 8) * 8, b"\0")


def _matrix(name: str, value: Any) -> bytes:
    if isinstance(value, list):
        shape, kind, content = (len(value), 1), 1, b"".join(_matrix("", one) for one in value)
    elif isinstance(value, str):
        shape, kind, content = (1, len(value)), 4, _element(4, value.encode("utf-16-le"))
    else:
        array = np.atleast_2d(np.asarray(value))
        stored, kind = _TYPES[array.dtype.name]
        shape, content = array.shape, _element(stored, array.tobytes(order="F"))
    head = _element(6, struct.pack("<II", kind, 0)) + _element(5, struct.pack(f"<{len(shape)}i", *shape))
    return struct.pack("<II", 14, len(head) + len(_element(1, name.encode())) + len(content)) + (
        head + _element(1, name.encode()) + content
    )
