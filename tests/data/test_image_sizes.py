"""Sizes of images from their headers: read in parallel, kept, and read again where files are others."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sniper.data import image_sizes
from sniper.data.image_sizes import sizes_of_images

COUNT = 2_000  # the fewest that are kept


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Links to two images, 30 x 20 and 20 x 30 px by turns, and a cache folder of its own."""
    monkeypatch.setenv("SNIPER_CACHE", str(tmp_path / "cache"))
    images = tmp_path / "images"
    images.mkdir()
    _link(images, ((30, 20), (20, 30)))
    return images


def _link(images: Path, sizes: tuple[tuple[int, int], ...]) -> None:
    for number, size in enumerate(sizes):
        Image.new("RGB", size).save(images.parent / f"{number}.jpg")
    for number in range(COUNT):
        link = images / f"{number:04}.jpg"
        link.unlink(missing_ok=True)
        os.link(images.parent / f"{number % 2}.jpg", link)


def test_sizes_are_kept_and_found_again(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sniper")
    names = sorted(file.name for file in folder.iterdir())
    first = sizes_of_images(folder, names)
    assert first.sizes_wh.tolist() == [[30, 20], [20, 30]] * (COUNT // 2)
    (kept,) = (folder.parent / "cache" / "image-sizes").iterdir()
    again = sizes_of_images(folder, names)
    np.testing.assert_array_equal(again.sizes_wh, first.sizes_wh)
    assert [str(kept) in message for message in caplog.messages] == [False, True]
    fewer = sizes_of_images(folder, names[1:])
    np.testing.assert_array_equal(fewer.sizes_wh, first.sizes_wh[1:])


@pytest.mark.parametrize("change", ["images of another size", "damaged"])
def test_what_is_kept_is_read_again_if_wrong(folder: Path, change: str) -> None:
    names = sorted(file.name for file in folder.iterdir())
    before = sizes_of_images(folder, names)
    (kept,) = (folder.parent / "cache" / "image-sizes").iterdir()
    if change == "damaged":
        kept.write_bytes(kept.read_bytes()[:-1000])
        expected = before.sizes_wh
    else:
        _link(folder, ((15, 10), (10, 15)))
        expected = before.sizes_wh // 2
    np.testing.assert_array_equal(sizes_of_images(folder, names).sizes_wh, expected)


def test_files_that_cannot_be_used_are_told_and_nothing_is_kept(folder: Path) -> None:
    (folder / "0007.jpg").unlink()
    (folder / "0007.jpg").write_bytes(b"\xff\xd8 no more")
    names = sorted(file.name for file in folder.iterdir())
    found = sizes_of_images(folder, names)
    assert np.flatnonzero(found.sizes_wh[:, 0] == 0).tolist() == [7]
    assert len(found.unreadable) == 1
    assert "0007.jpg" in str(found.unreadable[0])
    assert not (folder.parent / "cache").exists()


def test_few_are_not_kept(folder: Path) -> None:
    assert len(sizes_of_images(folder, ["0000.jpg", "0001.jpg"]).sizes_wh) == 2
    assert not (folder.parent / "cache").exists()
    assert image_sizes.sizes_of_images(folder, []).sizes_wh.shape == (0, 2)
