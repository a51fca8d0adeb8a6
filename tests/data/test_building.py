"""Repair and order of objects."""

import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facts import facts
from sniper.data.building import ObjectRows, build_table
from sniper.errors import DataError


def build(boxes, image_row=None, ids=None, areas=None, sizes=((100, 80),), image_ids=None, **options):
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    rows = np.zeros(len(boxes), np.int64) if image_row is None else np.array(image_row)
    return build_table(
        ObjectRows(
            rows,
            boxes,
            np.zeros(len(boxes), np.int32),
            ids=None if ids is None else np.array(ids),
            areas=None if areas is None else np.array(areas, np.float64),
        ),
        source="set.json",
        root=Path(),
        file_names=[f"{i}.jpg" for i in range(len(sizes))],
        image_ids=None if image_ids is None else np.array(image_ids),
        sizes_wh=np.array(sizes).reshape(-1, 2),
        class_names=["thing"],
        **options,
    )


def test_each_repair_is_counted_in_one_warning(caplog):
    boxes = [
        [10, 10, 20, 20],
        [-5, 10, 20, 20],  # clipped
        [90, 70, 120, 90],  # clipped
        [10, 10, 100.05, 20],  # rounding: clipped without a word
        [20, 10, 10, 20],  # inverted
        [10, np.nan, 20, 20],
        [10, 10, np.inf, 20],
        [10, 10, 10, 20],  # empty
        [200, 10, 220, 20],  # outside
        [100, 10, 120, 20],  # touches only
    ]
    with caplog.at_level(logging.WARNING, "sniper"):
        table = build(boxes, ids=[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]).check()
    assert table.annotation_ids.tolist() == [1, 2, 3, 4]
    assert table.boxes_xyxy.tolist() == [[10, 10, 20, 20], [0, 10, 20, 20], [90, 70, 100, 80], [10, 10, 100, 20]]
    assert len(caplog.records) == 1
    assert caplog.messages[0] == (
        "set.json, 10 boxes: boxes clipped to the image: 2; boxes that are not finite dropped: 2; "
        "inverted boxes dropped: 1; empty boxes dropped: 1; boxes outside the image dropped: 2"
    )


def test_a_sound_dataset_says_nothing(caplog):
    assert build([[0, 0, 100, 80]]).check().num_objects == 1
    assert not caplog.records


def test_repeated_ids_are_numbered_anew(caplog):
    table = build([[i, 0, i + 1, 1] for i in range(6)], ids=[4, 7, 4, 9, 7, 4])
    assert table.annotation_ids.tolist() == [4, 7, 10, 9, 11, 12]
    assert "numbered anew: 3" in caplog.text


def test_objects_are_grouped_by_image_in_their_order():
    table = build([[i, 0, i + 1, 1] for i in range(5)], [2, 0, 2, 0, 2], sizes=[(9, 9)] * 4, ids=[50, 40, 30, 20, 10])
    assert table.offsets.tolist() == [0, 2, 2, 5, 5]
    assert table.annotation_ids.tolist() == [40, 20, 50, 30, 10]
    assert table.image_ids.tolist() == [1, 2, 3, 4]
    assert table.image_rows_of_objects().tolist() == [0, 0, 2, 2, 2]


def test_areas_come_from_the_annotation_where_it_has_one():
    table = build([[0, 0, 4, 5], [0, 0, 4, 5], [-4, 0, 4, 5], [0, 0, 4, 5]], areas=[7, np.nan, np.nan, -1])
    assert table.areas.tolist() == [7, 20, 20, 20]


def test_no_objects_and_no_images():
    assert build([], sizes=[(1, 1)]).check().num_objects == 0
    with pytest.raises(DataError, match=r"set\.json has no images"):
        build([], sizes=[])


def test_image_without_size_or_with_a_taken_id():
    with pytest.raises(DataError, match=facts(2, "1.jpg", "0x5")):
        build([], sizes=[(5, 5), (0, 5)])
    with pytest.raises(DataError, match=facts("image id 8", "0.jpg", "2.jpg")):
        build([], sizes=[(5, 5)] * 3, image_ids=[8, 3, 8])


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.floats(-1e6, 1e6) | st.just(float("nan")) | st.integers(-3, 60).map(float)] * 4), max_size=12
    ),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
)
def test_whatever_comes_in_the_table_keeps_its_promises(boxes, size):
    table = build(boxes, sizes=[size]).check()
    inside = [b for b in boxes if 0 <= b[0] < b[2] <= size[0] and 0 <= b[1] < b[3] <= size[1]]
    wide = [b for b in inside if np.float32(b[0]) < np.float32(b[2]) and np.float32(b[1]) < np.float32(b[3])]
    assert table.num_objects >= len(wide)
    found = {tuple(box) for box in table.boxes_xyxy.tolist()}
    assert all(tuple(np.float32(b).tolist()) in found for b in wide)
