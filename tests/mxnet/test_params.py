"""Files that MXNet writes, in every version of their arrays, and files that are damaged."""

import lzma
import struct
from pathlib import Path

import numpy as np
import pytest

from sniper.errors import CheckpointError
from sniper.mxnet.params import read_params

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)
MEAN = np.asarray([0.5], dtype=np.float16)
TYPES = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6}


def shape_and_rest(array: np.ndarray, count: str, dims: str) -> bytes:
    shape = struct.pack(count, array.ndim) + b"".join(struct.pack(dims, size) for size in array.shape)
    return shape + struct.pack("<iii", 1, 0, TYPES[str(array.dtype)]) + array.tobytes()


def second(array: np.ndarray, magic: int = 0xF993FAC9) -> bytes:
    return struct.pack("<Ii", magic, 0) + shape_and_rest(array, "<I", "<q")


def first(array: np.ndarray) -> bytes:
    return struct.pack("<I", 0xF993FAC8) + shape_and_rest(array, "<I", "<q")


def oldest(array: np.ndarray) -> bytes:
    return shape_and_rest(array, "<I", "<I")


def file_of(arrays: list[bytes], names: list[str]) -> bytes:
    text = b"".join(struct.pack("<Q", len(name.encode())) + name.encode() for name in names)
    return struct.pack("<QQQ", 0x112, 0, len(arrays)) + b"".join(arrays) + struct.pack("<Q", len(names)) + text


GOOD = file_of([second(WEIGHT), second(MEAN)], ["arg:fc_weight", "aux:bn_moving_mean"])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("version", [second, first, oldest, lambda array: second(array, 0xF993FACA)])
def test_every_version_is_read(tmp_path: Path, version, packed: bool) -> None:
    content = file_of([version(WEIGHT), version(MEAN)], ["arg:fc_weight", "aux:bn_moving_mean"])
    path = tmp_path / ("net-0001.params.xz" if packed else "net-0001.params")
    path.write_bytes(lzma.compress(content) if packed else content)
    params = read_params(path)
    assert list(params.arg) == ["fc_weight"]
    assert list(params.aux) == ["bn_moving_mean"]
    np.testing.assert_array_equal(params.arg["fc_weight"], WEIGHT)
    np.testing.assert_array_equal(params.aux["bn_moving_mean"], MEAN)
    assert params.aux["bn_moving_mean"].dtype == np.float16


def test_all_types_and_names_without_a_prefix(tmp_path: Path) -> None:
    path = tmp_path / "a.params"
    path.write_bytes(file_of([second(np.ones(3, dtype)) for dtype in TYPES], list(TYPES)))
    params = read_params(path)
    assert {name: str(array.dtype) for name, array in params.arg.items()} == {name: name for name in TYPES}
    assert params.aux == {}


@pytest.mark.parametrize("packed", [False, True])
def test_cut_short_anywhere_is_refused(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / ("a.params.xz" if packed else "a.params")
    content = lzma.compress(GOOD) if packed else GOOD
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(CheckpointError, match=r"a\.params.*byte \d+: expected"):
            read_params(path)


def changed(offset: int, form: str, value: int) -> bytes:
    content = bytearray(GOOD)
    struct.pack_into(form, content, offset, value)
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"PK\x03\x04" + GOOD, "byte 0: expected the number 0x112"),
        (changed(8, "<Q", 7), "byte 8: expected 0, the reserved number, found 7"),
        (changed(16, "<Q", 1 << 60), "byte 16: expected the number of arrays"),
        (changed(16, "<Q", 3), "byte 134: expected a device type"),
        (changed(24, "<I", 0x80000002), "byte 24: expected the number that begins an array"),
        (changed(28, "<i", 1), "byte 28: expected 0, the storage type of a dense array, found 1"),
        (changed(32, "<I", 77), "byte 32: expected a number of dimensions"),
        (changed(36, "<q", -2), "byte 36: expected a dimension"),
        (changed(36, "<q", 1 << 39), r"expected the data of an array of shape \(549755813888, 3\)"),
        (changed(60, "<i", 9), "byte 60: expected a data type"),
        (GOOD + b"\0", f"byte {len(GOOD)}: expected the end of the file"),
        (file_of([second(WEIGHT)], ["arg:a", "arg:b"]), "expected 1, as many names as arrays, found 2"),
        (file_of([second(WEIGHT)] * 2, ["arg:a", "a"]), "expected a name that has not occurred yet, found 'a'"),
        (file_of([second(WEIGHT)], ["opt:a"]), "expected a name that begins with arg: or aux:, found 'opt:a'"),
        (GOOD.replace(b"fc_weight", b"fc_\xff\xfeight"), "expected a name in UTF-8"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "a.params"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        read_params(path)
    assert str(caught.value).startswith(str(path))


def test_not_packed_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "a.params.xz"
    path.write_bytes(GOOD)
    with pytest.raises(CheckpointError, match="cannot be unpacked"):
        read_params(path)
    with pytest.raises(CheckpointError, match="cannot read"):
        read_params(tmp_path / "none.params")
    with pytest.raises(CheckpointError, match="cannot read"):
        read_params(tmp_path)
