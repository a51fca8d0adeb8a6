"""A window read from a source is, bit for bit, what is cut from the whole image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.pixels import windowed
from sniper.pixels.resample import cut, cut_region
from sniper.pixels.windowed import cut_from, cut_region_from, size_of


class Source:
    """An array that is only given away in pieces."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels, self.size_wh, self.max_count = pixels, (pixels.shape[1], pixels.shape[0]), 0

    def read(self, x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
        assert 0 <= x1 < x2 <= self.size_wh[0]
        assert 0 <= y1 < y2 <= self.size_wh[1]
        self.max_count = max(self.max_count, (x2 - x1) * (y2 - y1))
        return self.pixels[y1:y2, x1:x2].copy()

    def close(self) -> None:
        pass


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(max_examples=200, deadline=None)
@given(
    size=st.tuples(st.integers(1, 260), st.integers(1, 260)),
    scale=st.one_of(st.sampled_from([1.0, 0.5, 0.25, 2.0, 1 / 3]), st.floats(0.02, 4.0)),
    band=st.sampled_from([1, 500, 16 * 1024 * 1024]),
    data=st.data(),
)
def test_any_window_at_any_scale_is_the_same(size, scale, band, data):
    image = noise(*size)
    scaled_wh = [max(1, round(side * scale)) for side in size]
    origin = tuple(data.draw(st.integers(0, side - 1)) for side in scaled_wh)
    valid = tuple(
        data.draw(st.integers(1, min(side - start, 150))) for side, start in zip(scaled_wh, origin, strict=True)
    )
    padded = tuple(side + data.draw(st.sampled_from([0, 7])) for side in valid)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windowed, "BAND_PX", band)
        piece = cut_from(Source(image), origin, scale, padded, valid)
        region = cut_region_from(Source(image), origin, scale, valid)
    np.testing.assert_array_equal(piece, cut(image, origin, scale, padded, valid))
    np.testing.assert_array_equal(region, cut_region(image, origin, scale, valid))


def test_a_whole_image_at_a_small_scale_is_read_in_bands(monkeypatch):
    monkeypatch.setattr(windowed, "BAND_PX", 20_000)
    image = noise(701, 503)
    source = Source(image)
    small = cut_from(source, (0, 0), 0.05, (35, 25), (35, 25))
    np.testing.assert_array_equal(small, cut(image, (0, 0), 0.05, (35, 25), (35, 25)))
    assert source.max_count <= 20_000


def test_an_image_in_memory_is_a_source_too():
    image = noise(40, 30)
    assert size_of(image) == size_of(Source(image)) == (40, 30)
    np.testing.assert_array_equal(cut_from(image, (3, 4), 1.0, (20, 20), (20, 20)), image[4:24, 3:23])
    reduced = cut_region_from(image, (3, 4), 0.5, (20, 20), reduction=2)
    np.testing.assert_array_equal(reduced, cut_region(image, (3, 4), 0.5, (20, 20), reduction=2))
