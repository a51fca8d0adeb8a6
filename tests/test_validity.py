"""The rule of validity: one for training and inference, and cheap for millions of boxes."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.auto_levels import derive_pyramid
from sniper.chips.config import ChipConfig
from sniper.chips.positive import valid_objects
from sniper.chips.uniform import whole_images
from sniper.data.building import ObjectRows, build_table
from sniper.inference.merge import range_keep
from sniper.pyramid import Level, Pyramid
from sniper.validity import ScaledImages, boxes_in_range, valid_sizes

BOXES = 2_000_000


@pytest.fixture(scope="module")
def many() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes, images and image sizes of two million objects."""
    rng = np.random.default_rng(0)
    object_wh = np.exp(rng.uniform(np.log(3), np.log(900), (BOXES, 2)))
    return object_wh, rng.integers(0, 1000, BOXES), np.full((1000, 2), 1000)


def peak_bytes(call) -> int:
    """The most that NumPy held during a call, what the call was given left out."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_levels_are_derived_in_bounded_memory(many) -> None:
    derive_pyramid(many[0][:10], many[1][:10], many[2], object_px=64)  # compiled outside the measurement
    assert peak_bytes(lambda: derive_pyramid(*many, object_px=64)) < 80 * BOXES


def test_the_rule_takes_a_byte_for_an_object_and_level(many) -> None:
    pyramid = Pyramid(levels=tuple(Level(scale=scale) for scale in (4.0, 2.0, 1.0, 0.5)))
    images = ScaledImages.of(many[2], pyramid)
    valid_sizes(many[0][:10], many[1][:10], images, stride_max=59, min_side_px=2)
    measured = peak_bytes(lambda: valid_sizes(*many[:2], images, stride_max=59, min_side_px=2))
    assert measured < 4 * BOXES + 100_000


@given(
    size=st.sampled_from([1.0, 15.5, 16.0, 79.75, 80.0, 300.0]),
    bounds=st.sampled_from([(0.0, None), (16.0, 80.0), (0.0, 16.0), (80.0, None)]),
)
@settings(max_examples=24, deadline=None)
def test_training_and_inference_have_the_same_bounds(size: float, bounds: tuple[float, float | None]) -> None:
    level = Level(scale=1.0, train_range_px=bounds, infer_range_px=bounds)
    pyramid = Pyramid(levels=(level,))
    box = np.array([[0, 0, size, size]])
    table = build_table(
        ObjectRows(np.zeros(1, np.int64), box, np.zeros(1, np.int32)), source="made", root=Path(), file_names=["a.jpg"],
        image_ids=None, sizes_wh=np.array([[400, 400]]), class_names=["thing"],
    )  # fmt: skip
    images, rule = ScaledImages.of(table.sizes_wh, pyramid), ChipConfig(min_side_px=0).size_rule(512)
    expected = bounds[0] <= size < (bounds[1] or np.inf)
    assert range_keep(box, *pyramid.infer_ranges_px()[0]).tolist() == [expected]
    assert valid_objects(table, images, rule).tolist() == [[expected]]
    assert len(whole_images(table, ScaledImages.of(table.sizes_wh, pyramid)).object_rows) == expected


def test_boxes_in_range_take_bounds_of_their_own_and_no_box_is_fine() -> None:
    boxes = np.asarray([[0, 0, 0, 0], [0, 0, 4, 4], [5, 5, 2, 2], [0, 0, 8, 8.1]])
    assert boxes_in_range(boxes, 0, np.inf).all(), "inverted boxes count as empty ones"
    assert boxes_in_range(boxes, np.asarray([1, 4, 0, 8]), np.asarray([2, 5, 1, 8.1])).tolist() == [
        False,
        True,
        True,
        True,
    ]
    assert boxes_in_range(np.zeros((0, 4)), 0, 1).tolist() == []
    assert boxes_in_range(boxes.astype(np.float32), 4, 8).tolist() == [False, True, False, False]


def test_settings_of_the_pyramid_come_without_numba() -> None:
    code = "import sys, sniper.pyramid; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
