"""16-bit samples and bands: which become which colours, and how the range of a dataset is found."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from facts import facts
from sniper.errors import DataError
from sniper.pixels.open import open_pixels
from sniper.pixels.sample_map import SampleMap
from sniper.pixels.survey import survey

rasterio = pytest.importorskip("rasterio")

TWELVE_BIT = SampleMap((0, 4095))
RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)
COLOURS[0, 0], COLOURS[0, 1] = 0, 255  # both ends
GREY = COLOURS[:, :, :1]


def _save(path: Path, samples: np.ndarray) -> Path:
    """(H, W, C) 16-bit samples as PNG or TIFF."""
    if path.suffix == ".png":
        assert cv2.imwrite(str(path), samples[:, :, ::-1] if samples.shape[2] == 3 else samples)
        return path
    height, width, count = samples.shape
    with rasterio.open(path, "w", driver="GTiff", width=width, height=height, count=count, dtype=samples.dtype) as file:
        file.write(np.moveaxis(samples, -1, 0))
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("colours", [GREY, COLOURS], ids=["grey", "colours"])
@pytest.mark.parametrize("form", ["png", "tif"])
def test_twelve_bits_are_shown_in_full(tmp_path: Path, form: str, colours: np.ndarray) -> None:
    file = _save(tmp_path / f"a.{form}", colours.astype(np.uint16) * 16)
    expected = np.broadcast_to(colours, COLOURS.shape)
    for whole_pixels in (1e6, 0.0):  # decoded, and by windows
        opened = open_pixels(file, whole_pixels=whole_pixels, sample_map=TWELVE_BIT)
        pixels = opened if isinstance(opened, np.ndarray) else opened.read(0, 0, 50, 40)
        np.testing.assert_array_equal(pixels, expected)
    np.testing.assert_array_equal(open_pixels(file, whole_pixels=1e6), expected >> 4)  # the high byte
    assert survey([file]).value_range == TWELVE_BIT.value_range


def test_values_outside_are_clipped_and_the_whole_range_is_the_high_byte() -> None:
    values = np.arange(65536)
    np.testing.assert_array_equal(SampleMap().to_8_bit(values), values >> 8)
    shown = SampleMap((1000, 1255)).to_8_bit(values)
    np.testing.assert_array_equal(shown[[0, 1000, 1100, 1255, 1256, 65535]], [0, 0, 100, 255, 255, 255])
    # One step below the whole range: the general way agrees with the shift.
    np.testing.assert_array_equal(SampleMap((0, 65534)).to_8_bit(values)[:-1] >> 1, values[:-1] >> 9)


@pytest.mark.filterwarnings("ignore")
def test_the_range_is_of_all_files_and_not_of_a_few_hot_pixels(tmp_path: Path) -> None:
    dark, bright = GREY.astype(np.uint16), GREY.astype(np.uint16) * 16
    hot = bright.copy()
    hot[5, 5] = 65535
    files = [_save(tmp_path / f"{i}.tif", one) for i, one in enumerate((dark, bright, hot))]
    assert survey(files[:1]).value_range == (0, 255)
    assert survey(files).value_range == (0, 4095)
    assert survey([_save(tmp_path / "full.tif", GREY.astype(np.uint16) * 257)]).value_range == (0, 65535)
    low, high = survey([_save(tmp_path / "offset.tif", GREY.astype(np.uint16) + 32768)]).value_range or (0, 0)
    assert 32768 <= low < 32800
    assert 33000 < high <= 33023
    Image.fromarray(COLOURS).save(tmp_path / "eight.png")
    (tmp_path / "broken.tif").write_bytes(b"II*\0nothing more")
    assert survey([tmp_path / "eight.png", tmp_path / "broken.tif", tmp_path / "none.png"]).value_range is None


@pytest.mark.filterwarnings("ignore")
def test_bands_are_chosen(tmp_path: Path) -> None:
    bands = RNG.integers(0, 256, (20, 30, 6), dtype=np.uint8)
    file = _save(tmp_path / "six.tif", bands)
    assert survey([file]).most_bands == (file, 6)
    chosen = SampleMap(bands=(5, 3, 1))
    np.testing.assert_array_equal(open_pixels(file, whole_pixels=1e6, sample_map=chosen), bands[:, :, [4, 2, 0]])
    windows = open_pixels(file, whole_pixels=0, sample_map=chosen)
    assert not isinstance(windows, np.ndarray)
    np.testing.assert_array_equal(windows.read(3, 4, 10, 12), bands[4:12, 3:10][:, :, [4, 2, 0]])
    windows.close()
    with pytest.raises(DataError, match=facts("six.tif", "6 bands", "data.bands", 7)):
        open_pixels(file, whole_pixels=1e6, sample_map=SampleMap(bands=(1, 2, 7)))
    with pytest.raises(DataError, match=facts("six.tif", "30x20 px", "31x20 px")):
        open_pixels(file, whole_pixels=1e6, sample_map=chosen, size_wh=(31, 20))
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=facts("a.png", "PNG", "data.bands", "TIFF")):
        open_pixels(tmp_path / "a.png", whole_pixels=1e6, sample_map=chosen)
