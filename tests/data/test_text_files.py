"""Lists that come with datasets."""

from pathlib import Path

import pytest

from facts import facts
from sniper.data.text_files import lines_of
from sniper.errors import DataError


def test_lines_are_those_that_are_not_blank(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_bytes(b"\xef\xbb\xbf a.jpg \r\n\r\n b c.jpg")
    assert lines_of(file, "images") == ["a.jpg", "b c.jpg"]
    file.write_bytes(b"")
    assert lines_of(file, "images") == []


@pytest.mark.parametrize("content", [b"a\n\xff", None])
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "list.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=facts("list.txt", "one a line", "UTF-8")):
        lines_of(file, "images")
