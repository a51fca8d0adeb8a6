"""Candidate origins, and which of them hold a box."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.chips.grid import HOLD_SLACK, axis_first, axis_last, origins
from sniper.pyramid import Level
from sniper.validity import scaled_sizes


def test_zoomed_sizes_are_those_of_the_original_rounded_up() -> None:
    size = np.asarray([[640, 480]])
    levels = [Level(scale=3.0), Level(scale=1.667), Level(long_px=512), Level(short_px=1400, long_px=2000)]
    scale = np.stack([level.scales(size) for level in levels], axis=1)
    assert scaled_sizes(size, scale).tolist() == [[[1920, 1440], [1067, 801], [512, 384], [1867, 1400]]]


def test_a_pixel_never_vanishes() -> None:
    assert scaled_sizes(np.asarray([[1, 1]]), np.asarray([1e-9])).tolist() == [[1, 1]]
    assert scaled_sizes(np.zeros((0, 2), np.int32), np.zeros(0)).shape == (0, 2)


def test_origins_end_at_the_border() -> None:
    assert origins(100, 512, 56).tolist() == [0]
    assert origins(512, 512, 56).tolist() == [0]
    assert origins(513, 512, 56).tolist() == [0, 1]
    assert origins(624, 512, 56).tolist() == [0, 56, 112]
    assert origins(630, 512, 56).tolist() == [0, 56, 112, 118]


@given(
    extent=st.integers(1, 400),
    window=st.integers(20, 100),
    stride=st.integers(1, 19),
    ends=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
@settings(max_examples=300, deadline=None)
def test_first_and_last_bound_the_origins_that_hold_a_box(
    extent: int, window: int, stride: int, ends: tuple[float, float]
) -> None:
    low, high = sorted(extent * end for end in ends)
    x = origins(extent, window, stride)
    holds = np.flatnonzero((x <= low + HOLD_SLACK) & (high <= x + window + HOLD_SLACK))
    first, last = axis_first(high, extent, window, stride), axis_last(low, extent, window, stride)
    assert list(range(first, last + 1)) == holds.tolist()
    if high - low <= window - stride or extent <= window:
        assert len(holds) > 0
