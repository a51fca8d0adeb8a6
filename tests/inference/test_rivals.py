"""Objects that several overlapping chips of a level show."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.inference.merge import own_of_chip
from sniper.inference.windows import windows_of_chip, with_rivals


def test_an_object_in_overlapping_chips_counts_where_most_is_around_it() -> None:
    left, right = np.array([0.0, 0, 60, 100]), np.array([40.0, 0, 100, 100])
    boxes = np.array([[41.0, 10, 51, 20], [49, 10, 59, 20], [45, 10, 55, 20], [5, 10, 15, 20]])
    in_left = own_of_chip(boxes, left, right[None], (200, 100), 1.0)
    in_right = own_of_chip(boxes, right, left[None], (200, 100), 1.0)
    assert in_left.tolist() == [True, False, True, True], "borders of the image cut nothing"
    assert in_right.tolist() == [False, True, True, False]
    assert own_of_chip(boxes, left, np.zeros((0, 4)), (200, 100), 1.0).all()
    assert own_of_chip(np.zeros((0, 4)), left, right[None], (200, 100), 1.0).shape == (0,)


@given(seed=st.integers(0, 2**20))
@settings(max_examples=50, deadline=None)
def test_no_object_is_lost_between_chips(seed: int) -> None:
    """Found in every chip, at places that differ by less than is tolerated, it stays in at least one."""
    random = np.random.default_rng(seed)
    chips = random.uniform(0, 100, (5, 4))
    chips[:, 2:] += chips[:, :2]
    box = random.uniform(0, 100, 4)
    box[2:] += box[:2]
    kept = [
        own_of_chip(box + random.uniform(-2, 2, 4), chips[k], np.delete(chips, k, axis=0), (200, 200), 4.0)[0]
        for k in range(5)
    ]
    assert any(kept)


def test_chips_know_those_that_overlap_them() -> None:
    boxes = (0, 0, 256, 256), (192, 0, 448, 256), (448, 0, 512, 640), (900, 900, 964, 964)
    looks = [
        look
        for box in boxes
        for look in windows_of_chip(0, (1000, 1000), 0, 2.0, box, window_px=512, overlap_px=100, margin_px=4.0)
    ]
    assert len(looks) == 5, "the third is seen in two windows"
    first, second, *third, last = with_rivals(looks)
    assert first.rivals_xyxy == ((96, 0, 224, 128),)
    assert second.rivals_xyxy == ((0, 0, 128, 128),), "those that only touch share no object"
    assert all(look.rivals_xyxy == () for look in [*third, last])
    assert with_rivals(looks[:1]) == looks[:1]
