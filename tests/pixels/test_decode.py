"""Decoding: colour forms, orientations, reductions and damage."""

import struct
import zlib

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from facts import facts
from sniper.errors import DataError
from sniper.pixels.decode import read_image
from sniper.pixels.open import image_size

ORIENTATIONS = range(1, 9)


def image_of(width=48, height=32):
    """Smooth and unsymmetric, so that JPEG hardly changes it and every turn shows."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 / width, y * 255 / height, 40 + (x + y) * 90 / (width + height)], axis=2).astype(np.uint8)


def save(path, pixels, orientation=None, **options):
    if orientation is not None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    if path.suffix == ".jpg":
        options = {"quality": 95, "subsampling": 0} | options
    Image.fromarray(pixels).save(path, **options)
    return path


def stored_for(upright, orientation):
    """What a camera stores, so that a viewer that follows the orientation shows ``upright``."""
    turn = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    return np.ascontiguousarray(turn(upright))


def block_means(pixels, factor):
    height, width = pixels.shape[:2]
    rows, columns = np.arange(0, height, factor), np.arange(0, width, factor)
    sums = np.add.reduceat(np.add.reduceat(pixels.astype(np.float64), rows, axis=0), columns, axis=1)
    counts = np.outer(np.minimum(factor, height - rows), np.minimum(factor, width - columns))
    return sums / counts[:, :, None]


def close(found, expected, tolerance):
    assert found.shape == expected.shape
    assert found.dtype == np.uint8
    return np.abs(found.astype(float) - expected.astype(float)).max() <= tolerance


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm"])
def test_lossless_formats_are_exact(tmp_path, suffix):
    path = save(tmp_path / f"a{suffix}", image_of())
    assert np.array_equal(read_image(path), image_of())
    assert image_size(path) == (48, 32)


def test_webp_and_jpeg(tmp_path):
    assert np.array_equal(read_image(save(tmp_path / "a.webp", image_of(), lossless=True)), image_of())
    assert close(read_image(save(tmp_path / "a.jpg", image_of())), image_of(), 4)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_grey(tmp_path, suffix):
    grey = image_of()[:, :, 0]
    found = read_image(save(tmp_path / f"a{suffix}", grey))
    assert close(found, np.repeat(grey[:, :, None], 3, axis=2), 3)


def test_alpha_is_dropped_and_colours_stay(tmp_path):
    alpha = np.dstack([image_of(), np.zeros((32, 48), np.uint8)])
    assert np.array_equal(read_image(save(tmp_path / "a.png", alpha)), image_of())
    grey_alpha = Image.merge("LA", [Image.fromarray(image_of()[:, :, 0]), Image.new("L", (48, 32), 7)])
    grey_alpha.save(tmp_path / "la.png")
    assert np.array_equal(read_image(tmp_path / "la.png")[:, :, 1], image_of()[:, :, 0])


def test_palette_one_bit_and_gif(tmp_path):
    indexed = Image.fromarray(image_of()).quantize(16)
    expected = np.asarray(indexed.convert("RGB"))
    indexed.save(tmp_path / "p.png")
    indexed.save(tmp_path / "t.png", transparency=0)
    indexed.save(tmp_path / "p.gif")
    for name in ("p.png", "t.png", "p.gif"):
        assert np.array_equal(read_image(tmp_path / name), expected)
    bits = image_of()[:, :, 0] > 100
    Image.fromarray(bits).save(tmp_path / "b.png")
    assert np.array_equal(read_image(tmp_path / "b.png")[:, :, 2], bits * np.uint8(255))


def test_16_bit_keeps_the_high_byte(tmp_path):
    values = np.arange(32 * 48, dtype=np.uint16).reshape(32, 48) * 42
    for suffix in (".png", ".tif"):
        found = read_image(save(tmp_path / f"a{suffix}", values))
        assert np.array_equal(found, np.repeat((values >> 8).astype(np.uint8)[:, :, None], 3, axis=2))


def write_png(path, header, lines):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    pixels = chunk(b"IDAT", zlib.compress(lines))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b""))


def test_16_bit_rgb_png(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    write_png(tmp_path / "a.png", struct.pack(">IIBBBBB", 7, 5, 16, 2, 0, 0, 0), lines)
    assert np.array_equal(read_image(tmp_path / "a.png"), values >> 8)


def test_float_and_32_bit_samples_are_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "f.tif")
    Image.fromarray(np.full((4, 4), 1 << 20, np.int32)).save(tmp_path / "i.tif")
    with pytest.raises(DataError, match=r"f\.tif .*floating-point"):
        read_image(tmp_path / "f.tif")
    with pytest.raises(DataError, match=r"i\.tif .*32-bit"):
        read_image(tmp_path / "i.tif")


def without_adobe(content):
    """The same JPEG without its APP14 marker."""
    start = content.index(b"\xff\xee")
    return content[:start] + content[start + 2 + int.from_bytes(content[start + 2 : start + 4], "big") :]


def test_cmyk_with_and_without_adobe_inversion(tmp_path):
    inks = Image.fromarray(image_of()).convert("CMYK")
    expected = np.asarray(inks.convert("RGB"))
    inks.save(tmp_path / "adobe.jpg", quality=98)
    assert close(read_image(tmp_path / "adobe.jpg"), expected, 6)
    # Stored the other way round and without the marker, the image is the same.
    Image.fromarray(255 - np.asarray(inks), "CMYK").save(tmp_path / "b.jpg", quality=98)
    (tmp_path / "plain.jpg").write_bytes(without_adobe((tmp_path / "b.jpg").read_bytes()))
    assert close(read_image(tmp_path / "plain.jpg"), expected, 6)
    assert close(read_image(tmp_path / "adobe.jpg", reduction=4), block_means(expected, 4), 6)
    Image.fromarray(np.asarray(inks), "CMYK").save(tmp_path / "a.tif")
    assert np.array_equal(read_image(tmp_path / "a.tif"), expected)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_exif_orientation(tmp_path, suffix, orientation):
    upright = image_of()
    options = {"lossless": True} if suffix == ".webp" else {}
    path = save(tmp_path / f"a{suffix}", stored_for(upright, orientation), orientation, **options)
    assert close(read_image(path), upright, 4 if suffix == ".jpg" else 0)
    assert image_size(path) == (48, 32)
    assert close(read_image(path, size_wh=(48, 32)), upright, 4 if suffix == ".jpg" else 0)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_annotated_size_decides_whether_to_turn(tmp_path, orientation):
    stored = stored_for(image_of(), orientation)
    path = save(tmp_path / "a.jpg", stored, orientation)
    if orientation >= 5:  # annotated on the pixels as stored, by a tool that does not know EXIF
        assert close(read_image(path, size_wh=(32, 48)), stored, 4)
    with pytest.raises(DataError, match=facts("a.jpg", "image id 9", "48x32", "50x32")):
        read_image(path, size_wh=(50, 32), image_id=9)


@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("size", [(96, 64), (99, 61)])
def test_reduced_pixels_cover_their_blocks(tmp_path, name, size, orientation, reduction):
    upright = image_of(*size)
    path = save(tmp_path / name, stored_for(upright, orientation), orientation)
    found = read_image(path, reduction=reduction, size_wh=size)
    assert close(found, block_means(upright, reduction), 5 if name == "a.jpg" else 1)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([2, 4, 8]), st.sampled_from(["a.jpg", "a.png"]))
def test_reduced_shape_is_rounded_up(tmp_path_factory, width, height, reduction, name):
    path = save(tmp_path_factory.mktemp("reduced") / name, image_of(width, height))
    assert read_image(path, reduction=reduction).shape == (-(-height // reduction), -(-width // reduction), 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_one_pixel(tmp_path, suffix):
    path = save(tmp_path / f"a{suffix}", np.full((1, 1, 3), 77, np.uint8))
    for reduction in (1, 2, 4, 8):
        assert close(read_image(path, reduction=reduction), np.full((1, 1, 3), 77), 2)


def test_missing_empty_and_foreign_files(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    (tmp_path / "half.jpg").write_bytes(b"\xff\xd8\xff")
    for name, said in (
        ("none.jpg", "No such file"),
        ("empty.jpg", "empty"),
        ("page.jpg", "not an image"),
        ("half.jpg", ""),
    ):
        for read in (read_image, image_size):
            with pytest.raises(DataError, match=rf"{name} \(image id 3\).*{said}"):
                read(tmp_path / name, image_id=3)
    with pytest.raises(DataError, match="Is a directory"):
        read_image(tmp_path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".bmp", ".webp"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_files_are_refused(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / f"a{suffix}", noise)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=r"a\."):
        read_image(path)
    with pytest.raises(DataError, match=r"a\."):
        read_image(path, reduction=4)


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_with_a_hole_but_an_end_is_refused(tmp_path, progressive):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / "a.jpg", noise, progressive=progressive)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + b"\xff\xd9")
    with pytest.raises(DataError, match=r"a\.jpg is damaged or cut off"):
        read_image(path)


def test_harmless_stray_bytes_are_forgiven(tmp_path):
    path = save(tmp_path / "a.jpg", image_of())
    content = path.read_bytes()
    place = content.index(b"\xff\xdb")
    for changed in (
        content + b"trailing",
        content[:-2] + b"\0\0" + content[-2:],
        content[:place] + b"\0" * 4 + content[place:],
    ):
        path.write_bytes(changed)
        assert close(read_image(path), image_of(), 4)


def test_damaged_exif_leaves_the_pixels(tmp_path):
    path = save(tmp_path / "a.jpg", image_of(), orientation=6)
    content = bytearray(path.read_bytes())
    place = content.index(b"Exif\0\0")
    content[place + 6 : place + 14] = b"garbage!"
    path.write_bytes(content)
    assert read_image(path).shape == (32, 48, 3)


def test_very_large_images_are_not_taken_for_an_attack(tmp_path):
    side = 20_000  # 400 megapixels, beyond Pillow's limit
    write_png(tmp_path / "a.png", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0), b"")
    assert image_size(tmp_path / "a.png") == (side, side)


def test_agrees_with_the_decoder_on_photos(shared_data):
    for path in sorted((shared_data / "coco_subset" / "val2017").glob("*.jpg"))[:20]:
        found = read_image(path)
        assert np.array_equal(found, simplejpeg.decode_jpeg(path.read_bytes(), "RGB"))
        assert image_size(path) == found.shape[1::-1]
        reduced = read_image(path, reduction=4)
        assert np.abs(reduced - block_means(found, 4)).mean() < 6


def test_frames_that_are_not_read_are_told_once(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("sniper.pixels.decode._told_of_frames", set())
    first, *others = [Image.fromarray(np.full((20, 30, 3), value, np.uint8)) for value in (10, 120, 250)]
    for form in ("gif", "webp", "tiff", "png"):
        caplog.clear()
        for name in ("one", "two"):
            first.save(tmp_path / f"{name}.{form}", save_all=True, append_images=others)
            assert abs(int(read_image(tmp_path / f"{name}.{form}").mean()) - 10) < 3
        (told,) = caplog.messages
        assert "one." in told
        assert "has 3 frames or pages, and the first is read" in told
    caplog.clear()
    first.save(tmp_path / "still.gif")
    read_image(tmp_path / "still.gif")
    assert not caplog.messages


def test_a_webp_that_claims_a_gigapixel_is_refused(tmp_path):  # found by benchmarks/fuzz.py
    file = save(tmp_path / "a.webp", image_of(), lossless=True, exif=Image.Exif().tobytes() + b"x")
    content = bytearray(file.read_bytes())
    assert content[12:16] == b"VP8X"
    content[24:30] = b"\xff\x7f\0\xff\x7f\0"  # the canvas, less one
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.webp"):
        read_image(file)


def test_a_second_page_without_dimensions_is_refused_in_one_sentence(tmp_path):  # found by benchmarks/fuzz.py
    pages = [Image.fromarray(np.full((20, 30, 3), value, np.uint8)) for value in (10, 120)]
    file = tmp_path / "a.tif"
    pages[0].save(file, save_all=True, append_images=pages[1:])
    content = bytearray(file.read_bytes())

    def entries(directory):
        count = int.from_bytes(content[directory : directory + 2], "little")
        return [directory + 2 + 12 * k for k in range(count)], directory + 2 + 12 * count

    after_first = entries(int.from_bytes(content[4:8], "little"))[1]
    second = int.from_bytes(content[after_first : after_first + 4], "little")
    for at in entries(second)[0]:
        if content[at : at + 2] == (256).to_bytes(2, "little"):  # the tag of the width
            content[at : at + 2] = (65000).to_bytes(2, "little")
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tif cannot be decoded"):
        read_image(file)
