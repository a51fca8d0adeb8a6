"""MATLAB files: what is read, and what is said of other versions and damaged files."""

import re
from pathlib import Path

import numpy as np
import pytest

from facts import facts
from mat_cases import write_mat
from sniper.data.mat_files import read_mat
from sniper.errors import DataError


@pytest.mark.parametrize("packed", [True, False])
def test_numbers_text_and_cells(tmp_path: Path, packed: bool) -> None:
    table = np.arange(6, dtype=np.int32).reshape(2, 3)
    nested = [[table, np.zeros((0, 1))], ["a", "a longer text, Ω"]]
    file = write_mat(tmp_path / "a.mat", {"table": table, "nested": nested, "other": "x"}, packed=packed)
    found = read_mat(file, ["table", "nested", "absent"])
    assert list(found) == ["table", "nested"]
    np.testing.assert_array_equal(found["table"], table)
    (numbers, texts) = found["nested"]
    np.testing.assert_array_equal(numbers[0], table)
    assert (numbers[1].shape, texts) == ((0, 1), ["a", "a longer text, Ω"])


def test_other_versions_are_told(tmp_path: Path) -> None:
    file = tmp_path / "a.mat"
    for head, what in ((b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM", "HDF5 file"), (b"\x89HDF\r\n", "HDF5 file")):
        file.write_bytes(head + bytes(600))
        with pytest.raises(DataError, match=facts("a.mat", "MATLAB", "version 5 to 7", what)):
            read_mat(file, ["a"])
    file.write_bytes(b"")
    with pytest.raises(DataError, match="got another kind of file"):
        read_mat(file, ["a"])
    with pytest.raises(DataError, match=r"cannot read .*none\.mat"):
        read_mat(tmp_path / "none.mat", ["a"])


@pytest.mark.parametrize("packed", [True, False])
def test_every_damaged_byte_is_told_or_does_no_harm(tmp_path: Path, packed: bool) -> None:
    cells = [np.arange(4, dtype=np.int32), "text", np.arange(9, dtype=np.float64)]
    whole = write_mat(tmp_path / "a.mat", {"cells": cells}, packed=packed).read_bytes()
    file, told = tmp_path / "b.mat", []
    places = range(124, len(whole), 3)
    flipped = [whole[:at] + bytes([whole[at] ^ 0x5A]) + whole[at + 1 :] for at in places]
    for damaged in [*(whole[:at] for at in places), *flipped]:
        file.write_bytes(damaged)
        try:
            read_mat(file, ["cells"])
        except DataError as error:
            told.append(str(error))
    assert len(told) > len(places)
    assert [line for line in told if not re.search(r"b\.mat(:| is damaged:)", line)] == []
