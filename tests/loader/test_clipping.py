"""Outlines cut to a rectangle keep the area inside it."""

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.loader.clipping import clipped_ring

FINE = 4  # pixels of the drawing per px


def _drawn(ring: np.ndarray, width: int, height: int) -> np.ndarray:
    canvas = np.zeros((height * FINE, width * FINE), np.uint8)
    if len(ring):
        cv2.fillPoly(canvas, [np.round(ring * FINE - 0.5).astype(np.int32)], 1)
    return canvas


@settings(max_examples=30, deadline=None)
@given(
    points=st.lists(st.tuples(st.integers(-20, 50), st.integers(-20, 50)), min_size=3, max_size=9),
    size=st.tuples(st.integers(4, 30), st.integers(4, 30)),
)
def test_what_is_left_is_what_lies_inside(points, size):
    ring = np.asarray(points, np.float64)
    cut = clipped_ring(ring, size)
    assert cut.size == 0 or (cut.min() >= 0 and (cut <= size).all())
    shift = 21  # the whole ring on a larger canvas
    whole = _drawn(ring + shift, 80, 80)[shift * FINE :, shift * FINE :][: size[1] * FINE, : size[0] * FINE]
    edges = (len(ring) + 4) * max(size) * FINE * 2  # pixels that rounding may move
    assert np.count_nonzero(_drawn(cut, *size) != whole) <= edges


def test_a_square_beside_around_and_across():
    square = np.array([[0.0, 0.0], [10, 0], [10, 10], [0, 10]])
    assert len(clipped_ring(square + 30, (20, 20))) == 0
    assert sorted(clipped_ring(square * 9 - 20, (20, 16)).tolist()) == [[0, 0], [0, 16], [20, 0], [20, 16]]
    assert sorted(clipped_ring(square + 15, (20, 20)).tolist()) == [[15, 15], [15, 20], [20, 15], [20, 20]]
    np.testing.assert_array_equal(clipped_ring(square, (10, 10)), square)
