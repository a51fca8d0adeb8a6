"""The detection table and the COCO results file."""

import json

import numpy as np
import pytest
from test_annotation_table import make_table

from sniper.data.detections import DetectionTable
from sniper.errors import StorageError


def make_detections(table, count, seed=0):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 40, (count, 2))
    return DetectionTable.from_arrays(
        rng.integers(0, len(table), count),
        np.concatenate([corner, corner + rng.uniform(1, 40, (count, 2))], axis=1),
        rng.random(count),
        rng.integers(0, 3, count),
        rng.integers(0, 3, count),
        table.image_ids,
    )


def test_from_arrays_groups_and_keeps_the_order():
    boxes = np.arange(20).reshape(5, 4)
    found = DetectionTable.from_arrays(
        [2, 0, 2, 0, 2], boxes, np.linspace(0, 1, 5), np.arange(5), None, np.array([9, 8, 7, 6])
    )
    assert found.offsets.tolist() == [0, 2, 2, 5, 5]
    assert found.labels.tolist() == [1, 3, 0, 2, 4]
    assert found.boxes_xyxy[found.objects(2)].tolist() == boxes[[0, 2, 4]].tolist()
    assert found.levels.tolist() == [-1] * 5
    assert (found.boxes_xyxy.dtype, found.scores.dtype, found.levels.dtype) == (np.float32, np.float32, np.int16)


@pytest.mark.parametrize("count", [0, 1, 50])
def test_the_results_file_holds_every_detection(tmp_path, count):
    table = make_table()
    found = make_detections(table, count)
    path = tmp_path / "run" / "predictions.json"
    found.write_coco_results(path, table.class_ids)
    entries = json.loads(path.read_text())
    assert entries == found.to_coco_results(table.class_ids)
    assert [entry["image_id"] for entry in entries] == np.repeat(table.image_ids, np.diff(found.offsets)).tolist()
    assert [entry["category_id"] for entry in entries] == table.class_ids[found.labels].tolist()
    xywh = np.array([entry["bbox"] for entry in entries]).reshape(-1, 4)
    assert np.allclose(xywh[:, :2], found.boxes_xyxy[:, :2], atol=1e-3)
    assert np.allclose(xywh[:, :2] + xywh[:, 2:], found.boxes_xyxy[:, 2:], atol=2e-3)
    assert np.array_equal(np.array([entry["score"] for entry in entries], np.float32), found.scores)


def test_results_have_the_form_of_coco():
    table = make_table()
    found = DetectionTable.from_arrays(
        [1], np.array([[1.5, 2, 4, 8]]), np.array([0.25]), np.array([2]), None, table.image_ids
    )
    assert found.to_coco_results(table.class_ids) == [
        {"image_id": 10, "category_id": 9, "bbox": [1.5, 2.0, 2.5, 6.0], "score": 0.25}
    ]


def test_reading_in_pieces_is_no_different(tmp_path, monkeypatch):
    table = make_table()
    found = make_detections(table, 10)
    found.write_coco_results(tmp_path / "whole.json", table.class_ids)
    monkeypatch.setattr("sniper.data.detections._ROWS_A_PIECE", 3)
    found.write_coco_results(tmp_path / "pieces.json", table.class_ids)
    assert json.loads((tmp_path / "whole.json").read_text()) == json.loads((tmp_path / "pieces.json").read_text())


def test_a_results_file_that_cannot_be_written_is_named(tmp_path):
    table = make_table()
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        make_detections(table, 1).write_coco_results(tmp_path / "file" / "p.json", table.class_ids)
