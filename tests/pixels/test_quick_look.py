"""A quick look finds files that are cut off, and takes no sound one for bad."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facts import facts
from sniper.errors import DataError
from sniper.pixels.open import open_pixels
from sniper.pixels.quick_look import FileFacts, quick_look, quick_size
from sniper.pixels.windowed import close

SIZE = 160, 120
FORMS = {
    "jpg": {"quality": 90},
    "progressive.jpg": {"progressive": True},
    "exif.jpg": {},
    "thumbnail.jpg": {},
    "png": {},
    "webp": {"quality": 80},
    "gif": {},
    "bmp": {},
    "tif": {},
    "deflate.tif": {"compression": "tiff_adobe_deflate"},
    "jp2": {},
}


def put(folder: Path, form: str) -> Path:
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8))
    path = folder / f"a.{form}"
    options = dict(FORMS[form])
    if form == "exif.jpg":
        exif = Image.Exif()
        exif[0x0112] = 6
        image, options = image.transpose(Image.Transpose.ROTATE_90), {"exif": exif}
    image.save(path, **options)
    if form == "thumbnail.jpg":  # an application segment that is a whole JPEG
        inner = folder / "inner.jpg"
        image.resize((16, 12)).save(inner)
        segment = b"\xff\xe1" + (len(inner.read_bytes()) + 8).to_bytes(2, "big") + b"other\0" + inner.read_bytes()
        path.write_bytes(path.read_bytes()[:2] + segment + path.read_bytes()[2:])
    return path


def look(path: Path, size_wh: tuple[int, int] = SIZE) -> FileFacts:
    return quick_look(path, size_wh=size_wh, whole_pixels=64e6, image_id=7)


def decoding_error(path: Path) -> str | None:
    try:
        close(open_pixels(path, whole_pixels=64e6, size_wh=SIZE, image_id=7))
    except DataError as error:
        return str(error)
    return None


@pytest.mark.parametrize("form", FORMS)
def test_sound_files_pass_and_cut_off_ones_are_what_decoding_says(tmp_path: Path, form: str) -> None:
    path = put(tmp_path, form)
    content = path.read_bytes()
    assert look(path).error is None
    path.write_bytes(content + b"\0" * 3000 + b"notes of another program")
    assert look(path).error == decoding_error(path)
    for share in (0.05, 0.4, 0.8, 0.98):
        path.write_bytes(content[: int(share * len(content))])
        assert look(path).error == decoding_error(path), (form, share)


def test_other_files_and_sizes_are_named(tmp_path: Path) -> None:
    path = put(tmp_path, "jpg")
    for content in (b"", b"no image", b"\0" * 5000):
        (tmp_path / "b.jpg").write_bytes(content)
        assert "b.jpg (image id 7)" in str(look(tmp_path / "b.jpg").error)
    assert "No such file" in str(look(tmp_path / "none.jpg").error)
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    assert "No such file" in str(look(tmp_path / "link.jpg").error)
    with pytest.raises(DataError, match=facts("160x120", "100x100")):
        raise DataError(look(path, (100, 100)).error)


def test_links_and_copies_are_known(tmp_path: Path) -> None:
    path = put(tmp_path, "png")
    (tmp_path / "link.png").symlink_to(path)
    (tmp_path / "copy.png").write_bytes(path.read_bytes())
    (tmp_path / "other.png").write_bytes(path.read_bytes()[:-1] + b"x")
    own, link, copy, other = (look(tmp_path / name) for name in ("a.png", "link.png", "copy.png", "other.png"))
    assert own.identity == link.identity != copy.identity
    assert own.mark == copy.mark != other.mark


@pytest.mark.parametrize("form", FORMS)
def test_quick_sizes_are_those_that_are_decoded(tmp_path: Path, form: str) -> None:
    assert quick_size(put(tmp_path, form)) == SIZE


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff", b"no image"])
def test_quick_sizes_of_no_images_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError, match=facts(str(tmp_path / "a.jpg"))):
        quick_size(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="No such file"):
        quick_size(tmp_path / "none.jpg")
