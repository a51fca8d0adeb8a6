"""Box arithmetic: the recorded numbers of the original, and what must hold for any boxes.

Recorded boxes have inclusive corners (width = x2 - x1 + 1): the half-open box with x2 + 1, y2 + 1 has the same areas.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recorded import Golden
from sniper import boxes

RTOL = 1e-12  # of golden/README.md, in double precision


def half_open(boxes_inclusive: np.ndarray) -> np.ndarray:
    return boxes_inclusive.astype(np.float64) + np.asarray([0, 0, 1, 1])


def test_recorded_overlaps(golden: Golden) -> None:
    data = golden.load("ops/boxes.npz")
    some, query = half_open(data["overlaps/boxes"]), half_open(data["overlaps/query"])
    np.testing.assert_allclose(boxes.iou(some, query), data["overlaps/iou"], rtol=RTOL, atol=RTOL)


@st.composite
def box_arrays(draw: st.DrawFn, min_count: int = 0) -> np.ndarray:
    """Integer boxes (exact arithmetic), empty ones too, partly outside any image."""
    n = draw(st.integers(min_count, 6))
    numbers = draw(st.lists(st.tuples(*[st.integers(-9, 30)] * 2, *[st.integers(0, 20)] * 2), min_size=n, max_size=n))
    xywh = np.asarray(numbers, dtype=np.float32).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


@settings(max_examples=100, deadline=None)
@given(box_arrays(), box_arrays())
def test_overlaps_count_pixels(some: np.ndarray, others: np.ndarray) -> None:
    def painted(box: np.ndarray) -> np.ndarray:
        picture = np.zeros((80, 80), dtype=bool)
        x1, y1, x2, y2 = (box + 10).astype(int)
        picture[y1:y2, x1:x2] = True
        return picture

    shared, overlap = boxes.intersection(some, others), boxes.iou(some, others)
    assert shared.shape == overlap.shape == (len(some), len(others))
    for i, box in enumerate(some):
        assert boxes.area(some)[i] == painted(box).sum()
        for j, other in enumerate(others):
            both, either = (painted(box) & painted(other)).sum(), (painted(box) | painted(other)).sum()
            assert shared[i, j] == both
            assert overlap[i, j] == pytest.approx(both / either if either else 0)


@settings(max_examples=50, deadline=None)
@given(box_arrays(), box_arrays())
def test_overlap_is_symmetric_and_within_bounds(some: np.ndarray, others: np.ndarray) -> None:
    overlap = boxes.iou(some, others)
    np.testing.assert_array_equal(overlap, boxes.iou(others, some).T)
    assert ((overlap >= 0) & (overlap <= 1)).all()
    assert (np.diag(boxes.iou(some, some)) == (boxes.area(some) > 0)).all()


@settings(max_examples=30, deadline=None)
@given(box_arrays())
def test_the_conversion_can_be_undone_and_leaves_the_input(some: np.ndarray) -> None:
    before = some.copy()
    corner, size = np.split(boxes.xyxy_to_xywh(some), 2, axis=1)
    np.testing.assert_array_equal(np.concatenate([corner, corner + size], axis=1), some)
    np.testing.assert_array_equal(some, before)
    np.testing.assert_allclose(boxes.sqrt_area(some) ** 2, boxes.area(some), rtol=1e-6)


def test_zero_boxes_and_inverted_boxes() -> None:
    none, one = np.zeros((0, 4), dtype=np.float32), np.asarray([[1, 1, 2, 2]], dtype=np.float32)
    assert boxes.iou(none, one).shape == (0, 1)
    assert boxes.iou(one, none).shape == (1, 0)
    assert boxes.area(none).shape == (0,)
    assert boxes.area(np.asarray([[5, 5, 2, 2.0]])).tolist() == [0]
    assert boxes.intersection(np.asarray([[5, 5, 2, 2.0]]), np.asarray([[0, 0, 9, 9.0]])).tolist() == [[0]]
    assert boxes.iou(np.asarray([[3, 3, 3, 3.0]]), np.asarray([[3, 3, 3, 3.0]])).tolist() == [[0]]
