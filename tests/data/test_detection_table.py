"""The detection table and the COCO results file."""

import json

import numpy as np
import pytest
from test_annotation_table import make_table

from sniper.data.detections import DetectionTable, read_coco_results
from sniper.errors import DataError, StorageError


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
def test_results_file_there_and_back(tmp_path, count):
    table = make_table()
    found = make_detections(table, count)
    path = tmp_path / "run" / "predictions.json"
    found.write_coco_results(path, table.class_ids)
    assert json.loads(path.read_text()) == found.to_coco_results(table.class_ids)
    again = read_coco_results(path, table)
    assert again.offsets.tolist() == found.offsets.tolist()
    assert again.labels.tolist() == found.labels.tolist()
    assert np.allclose(again.boxes_xyxy, found.boxes_xyxy, atol=2e-3)
    assert np.array_equal(again.scores, found.scores)


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


def test_bad_results_files_are_named(tmp_path):
    table = make_table()
    entry = {"image_id": 3, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}
    path = tmp_path / "results.json"
    cases = {
        "entry 1: image 4": [entry, entry | {"image_id": 4}],
        "entry 0: category 2": [entry | {"category_id": 2}],
        "not a COCO results file.*score": [{k: v for k, v in entry.items() if k != "score"}],
        "not a COCO results file.*array": {"images": []},
    }
    for said, content in cases.items():
        path.write_text(json.dumps(content))
        with pytest.raises(DataError, match=rf"results\.json.*{said}"):
            read_coco_results(path, table)
    path.write_text(json.dumps([entry])[:-9])
    with pytest.raises(DataError, match="truncated"):
        read_coco_results(path, table)
    with pytest.raises(DataError, match="No such file"):
        read_coco_results(tmp_path / "none.json", table)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        make_detections(table, 1).write_coco_results(tmp_path / "file" / "p.json", table.class_ids)


def test_published_results_are_read(shared_data):
    from sniper.data.readers.coco import read_coco

    folder = shared_data / "coco_eval_reference"
    table = read_coco(folder / "instances_val2014_100.json")
    found = read_coco_results(folder / "instances_val2014_fakebbox100_results.json", table)
    entries = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    assert found.num_objects == len(entries)
    key = lambda e: (e["image_id"], e["category_id"], round(e["score"], 5), *np.round(e["bbox"], 2))  # noqa: E731
    assert sorted(map(key, found.to_coco_results(table.class_ids))) == sorted(map(key, entries))
