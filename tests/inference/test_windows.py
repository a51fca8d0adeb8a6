"""Windows over a scaled image, and the boxes that their borders cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.inference.windows import (
    INPUT_STEP,
    Window,
    cut_by_border,
    overlap_for,
    pyramid_pixels,
    scaled_size,
    starts,
    windows_of,
)
from sniper.pyramid import Level, Pyramid

WINDOW = 200


@given(length=st.integers(1, 5000), window=st.integers(1, 1600), share=st.floats(0, 0.899))
@settings(max_examples=200, deadline=None)
def test_windows_of_an_axis_cover_it_and_overlap_as_asked(length: int, window: int, share: float) -> None:
    overlap = int(share * window)
    found = starts(length, window, overlap)
    assert found[0] == 0
    assert found[-1] == max(length - window, 0)
    steps = np.diff(found)
    assert (steps > 0).all()
    assert (window - steps >= overlap).all()
    assert len(found) <= 1 + max(0, -(-(length - window) // (window - overlap))), "no more than needed"


@given(
    size=st.tuples(st.integers(1, 900), st.integers(1, 900)),
    scale=st.floats(0.1, 4),
    window=st.integers(128, 700),
)
@settings(max_examples=60, deadline=None)
def test_windows_of_an_image_cover_it(size: tuple[int, int], scale: float, window: int) -> None:
    scaled_wh = scaled_size(size, scale)
    found = windows_of(3, size, 1, scale, window_px=window, overlap_px=window // 5)
    seen = np.zeros(scaled_wh[::-1], bool)
    for one in found:
        (x, y), (width, height) = one.origin_xy, one.valid_wh
        assert (one.image, one.level, one.scale) == (3, 1, scale)
        assert x + width <= scaled_wh[0]
        assert y + height <= scaled_wh[1]
        assert all(padded % INPUT_STEP == 0 for padded in one.padded_wh)
        assert all(0 <= padded - side < INPUT_STEP for padded, side in zip(one.padded_wh, (width, height), strict=True))
        seen[y : y + height, x : x + width] = True
    assert seen.all()
    assert len(set(found)) == len(found)


def test_zoomed_sizes_are_those_of_the_chips() -> None:
    assert scaled_size((640, 480), 0.8) == (512, 384)
    assert scaled_size((1, 1), 0.01) == (1, 1)
    assert scaled_size((100, 33), 1.01) == (101, 34)


def test_boxes_cut_by_a_border_inside_the_image() -> None:
    """A window in the middle of a long image: left and right sides cut, upper and lower are the image's own."""
    window = Window(0, 0, 1.0, (200, 0), (WINDOW, 100))
    boxes = np.array(
        [
            [0, 10, 30, 50],  # cut on the left; the neighbour sees the whole of it
            [170, 10, 200, 50],  # cut on the right
            [1.5, 10, 30, 50],  # touches
            [3, 10, 30, 50],  # does not
            [50, 0, 60, 100],  # touches the image's own border
            [0, 10, 36, 50],  # as long as the overlap: perhaps no window sees the whole of it
            [0, 0, 200, 100],
        ],
        np.float32,
    )
    cut = cut_by_border(boxes, window, (1000, 100), overlap_px=40)
    assert cut.tolist() == [True, True, True, False, False, False, False]
    corner = window._replace(origin_xy=(0, 0))
    assert cut_by_border(boxes, corner, (1000, 100), overlap_px=40).tolist() == [False, True] + [False] * 5
    assert cut_by_border(boxes, corner, (200, 100), overlap_px=40).sum() == 0
    assert cut_by_border(np.zeros((0, 4)), window, (1000, 100), overlap_px=40).shape == (0,)


@given(
    x=st.floats(0, 960),
    y=st.floats(0, 560),
    side=st.tuples(st.floats(1, 39), st.floats(1, 39)),
)
@settings(max_examples=200, deadline=None)
def test_an_object_smaller_than_the_overlap_is_kept_whole_by_some_window(
    x: float, y: float, side: tuple[float, float]
) -> None:
    box = np.array([x, y, min(x + side[0], 1000), min(y + side[1], 600)])
    kept = []
    for window in windows_of(0, (1000, 600), 0, 1.0, window_px=WINDOW, overlap_px=50):
        corner = np.tile(window.origin_xy, 2)
        shown = np.clip(box - corner, 0, np.tile(window.valid_wh, 2))
        if (shown[2:] - shown[:2]).min() > 0 and not cut_by_border(shown[None], window, (1000, 600), overlap_px=50)[0]:
            kept.append(shown + corner)
    assert kept
    assert any(np.allclose(one, box) for one in kept)
    # What is kept besides the whole object is what a border touches by a hair: at most touch_px of it are missing.
    assert all(np.abs(one - box).max() <= 2.0 for one in kept)


@pytest.mark.parametrize("largest_px", [None, 300.0])
def test_pixels_of_many_images_are_those_of_their_windows(largest_px: float | None) -> None:
    sizes = np.array([[1, 1], [640, 512], [512, 640], [4000, 3000], [1537, 1536], [20000, 90]])
    levels = (Level(scale=2.1, infer_range_px=(0, largest_px)), Level(long_px=512), Level(scale=0.3))
    pixels = pyramid_pixels(sizes, Pyramid(levels=levels), window_px=1536, overlap=0.2)
    for (width, height), counted in zip(sizes.tolist(), pixels.tolist(), strict=True):
        windows = []
        for number, level in enumerate(levels):
            scale = float(level.scales(np.array([[width, height]]))[0])
            high = np.inf if level.infer_range_px[1] is None else level.infer_range_px[1]
            shared = overlap_for(high, scale, window_px=1536, overlap=0.2)
            windows += windows_of(0, (width, height), number, scale, window_px=1536, overlap_px=shared)
        assert counted == sum(window.padded_pixels for window in windows)
