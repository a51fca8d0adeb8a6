"""What reading changed is recorded beside the table, as it was written."""

import logging
from pathlib import Path

import numpy as np

from sniper.data.building import ObjectRows, build_table
from sniper.data.repairs import Repair


def _table():
    boxes = np.array(
        [[10, 10, 20, 20], [-5, 0, 5, 5], [np.nan, 0, 1, 1], [9, 9, 3, 3], [4, 4, 4, 8], [200, 0, 220, 9]], float
    )
    rows = np.array([0, 0, 1, 1, 0, 0])
    return build_table(
        ObjectRows(rows, boxes, np.array([0, 1, 0, 1, 0, 1], np.int32), ids=np.arange(10, 16)),
        source="set", root=Path(), file_names=["a.png", "b.png"], image_ids=None,
        sizes_wh=np.array([[100, 100], [50, 50]]), class_names=["red", "blue"],
    )  # fmt: skip


def test_each_repair_is_recorded(caplog) -> None:
    with caplog.at_level(logging.WARNING):
        repairs = _table().repairs
    assert repairs is not None
    assert repairs.reasons.tolist() == [
        Repair.CLIPPED, Repair.NOT_FINITE, Repair.INVERTED, Repair.EMPTY, Repair.OUTSIDE
    ]  # fmt: skip
    assert repairs.annotation_ids.tolist() == [11, 12, 13, 14, 15]
    assert repairs.image_rows.tolist() == [0, 1, 1, 0, 0]
    assert repairs.boxes_xyxy[0].tolist() == [-5, 0, 5, 5]
    assert np.isnan(repairs.boxes_xyxy[1, 0])


def test_they_follow_the_classes_and_are_no_part_of_the_data() -> None:
    table = _table()
    fewer = table.with_classes(["blue"]).repairs
    assert fewer is not None
    assert fewer.annotation_ids.tolist() == [11, 13, 15]
    assert fewer.labels.tolist() == [0, 0, 0]
    assert table.select([0]).repairs is None
    assert table.share().fingerprint() == table.fingerprint()


def test_objects_are_taken_out_of_their_images() -> None:
    table = _table()
    assert table.annotation_ids.tolist() == [10, 11]
    fewer = table.without_objects(np.array([0])).check()
    assert fewer.annotation_ids.tolist() == [11]
    assert np.diff(fewer.offsets).tolist() == [1, 0]
