"""Files read by windows give what they give decoded whole, whatever their form; and what is wrong is said."""

import struct
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from facts import facts
from forked import Python
from sniper.errors import DataError, StorageError
from sniper.files import write_text
from sniper.pixels import open as opening
from sniper.pixels.decode import read_image
from sniper.pixels.open import has_random_access, image_size, open_pixels
from sniper.pixels.rasters import Raster
from sniper.pixels.sample_map import SampleMap
from sniper.pixels.spilled import SpilledPixels
from sniper.pixels.survey import survey

rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

WIDTH, HEIGHT = 301, 233
RNG = np.random.default_rng(0)
SMOOTH = np.asarray(
    Image.fromarray(RNG.integers(0, 256, (30, 40, 3), dtype=np.uint8)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
)


def write_tiff(path: Path, bands: np.ndarray, **profile: object) -> Path:
    """``bands`` (B, H, W) as a TIFF."""
    count, height, width = bands.shape
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=count, dtype=bands.dtype, **profile
    ) as file:
        file.write(bands)
    return path


def planes(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


TILED = {"tiled": True, "blockxsize": 64, "blockysize": 64}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, np.ndarray]]:
    """Files of every kind, with the pixels they show."""
    folder = tmp_path_factory.mktemp("forms")
    rgb, grey = planes(SMOOTH), SMOOTH[:, :, :1]
    wide = rgb.astype(np.uint16) * 256 + 77
    as_grey = np.repeat(grey, 3, axis=2)
    write = lambda name, bands, **profile: write_tiff(folder / f"{name}.tif", bands, **profile)  # noqa: E731
    made = {
        "tiled": (write("tiled", rgb, compress="deflate", **TILED), SMOOTH),
        "striped": (write("striped", rgb, compress="lzw", blockysize=16), SMOOTH),
        "plain": (write("plain", rgb), SMOOTH),
        "one strip": (write("one", rgb, compress="deflate", blockysize=HEIGHT), SMOOTH),
        "big": (write("big", rgb, BIGTIFF="YES", **TILED), SMOOTH),
        "planar": (write("planar", rgb, interleave="band", **TILED), SMOOTH),
        "16 bit": (write("wide", wide, **TILED), SMOOTH),
        "one band": (write("grey", planes(grey), photometric="MINISBLACK", **TILED), as_grey),
        "two bands": (write("two", planes(SMOOTH[:, :, :2]), photometric="MINISBLACK", **TILED), as_grey),
        "alpha": (write("alpha", np.concatenate([rgb, rgb[:1] // 2]), photometric="RGB", alpha="YES", **TILED), SMOOTH),
        "four bands": (write("four", np.concatenate([rgb, rgb[:1]]), photometric="RGB", alpha="NO", **TILED), SMOOTH),
        "five bands": (write("five", np.concatenate([rgb, rgb[:2]]), **TILED), SMOOTH),
        "zstd": (write("zstd", rgb, compress="zstd", **TILED), SMOOTH),
        "webp inside": (write("webp", rgb, compress="webp", WEBP_LOSSLESS=True, **TILED), SMOOTH),
        "lerc": (write("lerc", rgb, compress="lerc", **TILED), SMOOTH),
        "no data": (write("nodata", rgb, nodata=0, **TILED), SMOOTH),
    }
    with rasterio.open(
        folder / "a.jp2", "w", driver="JP2OpenJPEG", width=WIDTH, height=HEIGHT, count=3, dtype="uint8",
        QUALITY="100", REVERSIBLE="YES",
    ) as file:  # fmt: skip
        file.write(rgb)
    made["jp2"] = folder / "a.jp2", SMOOTH
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource><SourceFilename relativeToVRT="1">tiled.tif'
        f"</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
        for band in (1, 2, 3)
    )
    (folder / "a.vrt").write_text(f'<VRTDataset rasterXSize="{WIDTH}" rasterYSize="{HEIGHT}">{bands}</VRTDataset>')
    made["vrt"] = folder / "a.vrt", SMOOTH
    palette = Image.fromarray(SMOOTH).quantize(40)
    palette.save(folder / "palette.tif")
    made["palette"] = folder / "palette.tif", np.asarray(palette.convert("RGB"))
    bits = Image.fromarray(SMOOTH).convert("1")
    bits.save(folder / "bits.tif")
    made["one bit"] = folder / "bits.tif", np.asarray(bits.convert("RGB"))
    for number in (3, 6):
        exif = Image.Exif()
        exif[0x0112] = number
        for name in ("turned.tif", "turned.png", "turned.jpg"):
            path = folder / f"{number}{name}"
            Image.fromarray(SMOOTH).save(path, exif=exif)
            made[path.name] = path, read_image(path)
    Image.fromarray(SMOOTH).convert("CMYK").save(folder / "inks.tif")
    made["inks.tif"] = folder / "inks.tif", read_image(folder / "inks.tif")
    for name, options in {"a.jpg": {}, "a.png": {}, "a.webp": {"lossless": True}, "grey.jpg": {}}.items():
        image = Image.fromarray(SMOOTH)
        (image.convert("L") if name.startswith("grey") else image).save(folder / name, **options)
        made[name] = folder / name, read_image(folder / name)
    return made


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_window_of_any_file_is_that_part_of_it(files, data):
    path, pixels = files[data.draw(st.sampled_from(sorted(files)))]
    opened = open_pixels(path, whole_pixels=0)
    assert not isinstance(opened, np.ndarray)
    height, width = pixels.shape[:2]
    assert opened.size_wh == (width, height)
    for _ in range(2):
        x1, y1 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
        x2, y2 = data.draw(st.integers(x1 + 1, width)), data.draw(st.integers(y1 + 1, height))
        np.testing.assert_array_equal(opened.read(x1, y1, x2, y2), pixels[y1:y2, x1:x2])
    opened.close()


def test_every_file_agrees_with_what_is_decoded_whole(files):
    for name, (path, pixels) in files.items():
        small = open_pixels(path, whole_pixels=WIDTH * HEIGHT)
        whole = small if isinstance(small, np.ndarray) else small.read(0, 0, *small.size_wh)
        np.testing.assert_array_equal(whole, pixels, err_msg=name)


@pytest.mark.parametrize("reduction", [2, 8])
def test_a_reduced_image_is_the_same_by_either_decoder(files, reduction):
    for name in ("tiled", "five bands", "zstd", "webp inside", "lerc", "16 bit", "jp2", "6turned.tif", "palette"):
        path, pixels = files[name]
        for size_wh in (None, (pixels.shape[1], pixels.shape[0])):
            small = open_pixels(path, whole_pixels=1e9, reduction=reduction, size_wh=size_wh)
            expected = np.asarray(Image.fromarray(pixels).reduce(reduction))
            np.testing.assert_array_equal(small, expected, err_msg=name)


def test_a_jpeg_counts_at_the_size_it_is_decoded_at(files):
    path, _ = files["a.jpg"]
    limit = WIDTH * HEIGHT // 10
    assert isinstance(open_pixels(path, whole_pixels=limit, reduction=2), SpilledPixels)
    small = open_pixels(path, whole_pixels=limit, reduction=4)
    np.testing.assert_array_equal(small, read_image(path, reduction=4))
    # A source is of full size, and what is not decoded at a reduced scale is no smaller for it.
    source = open_pixels(files["tiled"][0], whole_pixels=limit, reduction=4)
    assert source.size_wh == (WIDTH, HEIGHT)


def test_sizes_of_files_of_any_kind(files):
    for name, (path, pixels) in files.items():
        assert image_size(path) == (pixels.shape[1], pixels.shape[0]), name


def test_strips_are_decoded_once_where_windows_come_in_any_order(files):
    path, pixels = files["striped"]
    by_rows, by_chance = (open_pixels(path, whole_pixels=0, in_order=in_order) for in_order in (True, False))
    assert (by_rows.is_spilled, by_chance.is_spilled) == (False, True)
    for x1, y1, x2, y2 in ((200, 150, 300, 233), (0, 0, 30, 60)):
        for opened in (by_rows, by_chance):
            np.testing.assert_array_equal(opened.read(x1, y1, x2, y2), pixels[y1:y2, x1:x2])


def test_which_files_many_may_read_at_once(files, tmp_path):
    shared = {name for name in files if has_random_access(files[name][0])}
    assert {"tiled", "plain", "big", "planar", "16 bit", "five bands", "zstd"} <= shared
    assert not shared & {"striped", "a.jpg", "a.png", "a.webp", "inks.tif"}
    (tmp_path / "a.tif").write_text("no image at all")
    assert not has_random_access(tmp_path / "a.tif")
    assert not has_random_access(tmp_path / "gone.tif")


def test_inks_that_only_gdal_can_decode_become_colours(tmp_path):
    inks = np.asarray(Image.fromarray(SMOOTH).convert("CMYK"))
    for compression in ("lerc", "deflate"):
        write_tiff(tmp_path / f"{compression}.tif", planes(inks), photometric="CMYK", compress=compression)
    shown = open_pixels(tmp_path / "lerc.tif", whole_pixels=1e6)
    assert np.abs(shown.astype(int) - read_image(tmp_path / "deflate.tif")).max() <= 1


def test_how_each_is_read(files):
    def kind(name: str) -> type:
        return type(open_pixels(files[name][0], whole_pixels=0))

    assert kind("a.jpg") is kind("inks.tif") is SpilledPixels
    assert kind("tiled") is kind("a.png") is Raster
    spilled = {name for name in files if kind(name) is Raster and Raster(files[name][0])._spilled is not None}
    assert {"a.png", "a.webp", "one strip"} >= spilled - {"3turned.png", "6turned.png"}
    assert {"a.png", "3turned.png"} <= spilled
    assert "tiled" not in spilled
    assert "plain" not in spilled


def test_a_very_large_jpeg_is_decoded_line_by_line(files, monkeypatch):
    monkeypatch.setattr(opening, "WHOLE_JPEG_PX", 0)
    path, pixels = files["a.jpg"]
    opened = open_pixels(path, whole_pixels=0)
    assert isinstance(opened, Raster)
    part = opened.read(20, 30, 200, 180).astype(int)
    # Other arithmetic for the subsampled colours.
    assert np.abs(part - pixels[30:180, 20:200]).mean() <= 3


def test_annotated_sizes_are_checked(files):
    path, _ = files["tiled"]
    assert open_pixels(path, whole_pixels=0, size_wh=(WIDTH, HEIGHT)).size_wh == (WIDTH, HEIGHT)
    with pytest.raises(DataError, match=facts("tiled.tif", "image id 7", "301x233", "5x6")):
        open_pixels(path, whole_pixels=0, size_wh=(5, 6), image_id=7)
    turned, _ = files["6turned.jpg"]
    assert open_pixels(turned, whole_pixels=0, size_wh=(WIDTH, HEIGHT)).size_wh == (WIDTH, HEIGHT)


def _one_sentence(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert not text.endswith(".")
    return text


def _read_all(path: Path) -> None:
    opened = open_pixels(path, whole_pixels=0)
    opened.read(0, 0, *opened.size_wh)


def test_damaged_files_are_named(files, tmp_path):
    for name, start in (("tiled", "cut.tif"), ("a.png", "cut.png"), ("a.jpg", "cut.jpg"), ("striped", "strip.tif")):
        content = files[name][0].read_bytes()
        broken = tmp_path / start
        # A TIFF has its directory at the end or at the beginning: what is in between goes.
        broken.write_bytes(
            content[: len(content) // 2] if not start.endswith("tif") else content[:4000] + b"\xff" * 30000
        )
        with pytest.raises(DataError) as error:
            _read_all(broken)
        assert start in _one_sentence(error)
        assert "replace the file" in str(error.value)


@pytest.mark.parametrize("kind", ["float32", "uint32", "int16", "complex64"])
def test_samples_that_are_no_pixels_are_refused(tmp_path, kind):
    path = write_tiff(tmp_path / "a.tif", np.zeros((1, 40, 50), kind))
    with pytest.raises(DataError) as error:
        open_pixels(path, whole_pixels=0)
    assert f"a.tif has {kind} samples, not uint8 or uint16" in _one_sentence(error)


def test_what_is_no_image_is_no_image(tmp_path):
    (tmp_path / "a.tif").write_text("no image at all")
    (tmp_path / "empty.tif").touch()
    for name, what in (("a.tif", "is not an image"), ("empty.tif", "is empty"), ("gone.tif", "cannot read")):
        with pytest.raises(DataError, match=what):
            open_pixels(tmp_path / name, whole_pixels=0)


def test_a_full_disk_is_told(files, monkeypatch):
    opened = open_pixels(files["a.jpg"][0], whole_pixels=0)
    opened._file.close()
    opened._file = Path("/dev/full").open("r+b")  # noqa: SIM115
    with pytest.raises(StorageError, match="set TMPDIR"):
        opened.read(0, 0, 5, 5)


def _without_rasterio(python: Python, code: str) -> str:
    blocker = """
        import sys
        class Gone:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] == "rasterio":
                    raise ImportError(name)
        sys.meta_path.insert(0, Gone())
    """
    program = textwrap.dedent(blocker) + textwrap.dedent(code)
    done = python.run("-c", program)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_without_rasterio(python: Python, files):
    """Decoded whole with a hint, refused with the same where memory is short; TIFFs of five bands need it."""
    said = _without_rasterio(
        python,
        f"""
        import logging, sys
        logging.basicConfig(format="%(message)s", stream=sys.stdout)
        from sniper.pixels import open as opening
        from sniper.errors import DataError
        import numpy as np
        path, five = {str(files["tiled"][0])!r}, {str(files["five bands"][0])!r}
        opened = opening.open_pixels(path, whole_pixels=0)
        print("part", opened.read(3, 4, 9, 9).shape)
        opening.psutil.virtual_memory = lambda: type("Memory", (), dict(available=1000))
        for file in (path, five):
            try:
                opening.open_pixels(file, whole_pixels=0)
            except DataError as error:
                print("refused", error)
        print("ground", opening.where_on_ground(path))
    """,
    ).splitlines()
    extra = 'pip install "sniper-detection[geotiff]"'
    assert "tiled.tif has 0 megapixels and is decoded whole" in said[0]
    assert extra in said[0]
    assert said[1] == "part (5, 6, 3)"
    assert "to read it by windows: " + extra in said[2]
    assert "five.tif" in said[3]
    assert extra in said[3]
    assert said[4] == "ground None"


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    """JSON may hold a NUL, which ends names."""
    name = tmp_path / "a\0.tif"
    for read in (
        lambda: open_pixels(name, whole_pixels=1e6),
        lambda: open_pixels(name, whole_pixels=1e6, size_wh=(4, 4), image_id=7),
        lambda: image_size(name),
    ):
        with pytest.raises(DataError, match=facts("cannot read", "null byte", "restore", "remove")):
            read()
    with pytest.raises(StorageError, match="null byte"):
        write_text(name, "x")


@pytest.mark.parametrize("bits", [8, 16])
def test_pixels_that_no_file_of_its_length_can_hold_are_refused_from_the_header(tmp_path: Path, bits: int) -> None:
    """Found by benchmarks/fuzz.py: it took 3 to 5 GB and 11 to 25 s."""
    kind = "I;16" if bits == 16 else "L"
    Image.new(kind, (60, 47)).save(tmp_path / "a.tif")
    content = (tmp_path / "a.tif").read_bytes()
    width, width_then = struct.pack("<HHIHH", 256, 3, 1, 60, 0), struct.pack("<HHII", 256, 4, 1, 1_996_488_765)
    short = struct.pack("<HHII", 256, 4, 1, 60)
    assert width in content or short in content
    (tmp_path / "a.tif").write_bytes(content.replace(width, width_then).replace(short, width_then))
    for read in (
        lambda file: open_pixels(file, whole_pixels=1e6),
        lambda file: open_pixels(file, whole_pixels=1e6, sample_map=SampleMap(bands=(1, 1, 1))),
        image_size,
        read_image,
        Raster,
    ):
        with pytest.raises(DataError, match=facts("a.tif", "1996488765x47 px", "header") + r".* \d+ bytes"):
            read(tmp_path / "a.tif")
    assert survey([tmp_path / "a.tif"]).deep == 0


def test_a_mosaic_of_parts_is_a_short_file_of_many_pixels(tmp_path: Path) -> None:
    Image.new("L", (60, 47)).save(tmp_path / "a.tif")
    (tmp_path / "a.vrt").write_text(
        '<VRTDataset rasterXSize="2000000" rasterYSize="2000000"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        '<SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )
    raster = Raster(tmp_path / "a.vrt")
    assert raster.size_wh == (2_000_000, 2_000_000)
    raster.close()
