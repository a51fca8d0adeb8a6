"""The window that shows most of a box."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.boxes import covered_share
from sniper.chips.assign import assign, enough_left


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 20), k=st.integers(0, 8))
@settings(max_examples=60, deadline=None)
def test_the_largest_share_wins_and_the_lowest_index_among_equals(seed: int, n: int, k: int) -> None:
    rng = np.random.default_rng(seed)

    def draw(count: int) -> np.ndarray:
        low = rng.integers(0, 8, (count, 2))
        return np.hstack([low, low + rng.integers(1, 8, (count, 2))]).astype(np.float64)

    boxes, windows = draw(n), draw(k)
    best = assign(boxes, windows)
    share = np.hstack([np.full((n, 1), 0.0), covered_share(boxes, windows)])
    np.testing.assert_allclose(best.share, share.max(axis=1))
    assert np.array_equal(best.window, share.argmax(axis=1) - 1)
    low, high = np.maximum(boxes[:, :2], windows[best.window, :2]) if k else boxes[:, :2], boxes[:, 2:]
    high = np.minimum(high, windows[best.window, 2:]) if k else high
    met = best.window >= 0
    np.testing.assert_allclose(best.part_wh[met], (high - low)[met])
    assert not best.part_wh[~met].any()


def test_what_is_left_must_be_a_pixel_wide_and_in_range() -> None:
    part = np.asarray([[1, 1], [0.99, 50], [10, 10], [10, 9.9], [20, 20]])
    assert enough_left(part).tolist() == [True, False, True, True, True]
    assert enough_left(part, range_px=(10, 20)).tolist() == [False, False, True, False, False]
    assert enough_left(part, min_part_px=20).tolist() == [False, False, False, False, True]
    assert enough_left(np.zeros((0, 2))).tolist() == []
