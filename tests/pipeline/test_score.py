"""Detections of any tool, measured by the command line: COCO results, WIDER FACE's layout, our own tables."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import Done
from rectangle_set import make_set
from sniper.data.detection_files import save_detections
from sniper.data.detections import DetectionTable
from sniper.data.source import load_dataset
from sniper.data.wider_detections import write_wider_detections
from sniper.pipeline.score import score
from tables_by_hand import found_in
from wider_cases import write_mat_files

Sniper = Callable[..., Done]


@pytest.fixture
def truth(tmp_path: Path) -> tuple[Path, DetectionTable]:
    """A dataset, and what finds all of its objects."""
    file = make_set(tmp_path / "data")
    table = load_dataset(file)
    scores = np.linspace(0.9, 0.5, table.num_objects)
    rows = table.image_rows_of_objects()
    return file, DetectionTable.from_arrays(rows, table.boxes_xyxy, scores, table.labels, None, table.image_ids)


def test_coco_results_and_our_tables(truth: tuple[Path, DetectionTable], tmp_path: Path, sniper: Sniper) -> None:
    file, found = truth
    table = load_dataset(file)
    found.write_coco_results(tmp_path / "results.json", table.class_ids)
    both = "--protocol", "coco", "--protocol", "voc"
    done = sniper("score", tmp_path / "results.json", file, *both, "-o", tmp_path / "out")
    assert done.code == 0, done.lines
    assert f"COCO: {len(table)} images, {table.num_objects} objects, {table.num_objects} detections" in done.out
    assert "Pascal VOC" in done.out
    numbers = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (numbers["AP"], numbers["VOC_AP50"]) == (pytest.approx(1), pytest.approx(1))
    save_detections(tmp_path / "found.safetensors", found)
    assert score(tmp_path / "found.safetensors", file).as_dict()["AP50"] == pytest.approx(1)


def test_wider_faces_need_no_images(tmp_path: Path, sniper: Sniper) -> None:
    folder = write_mat_files(tmp_path / "ground_truth")
    table = load_dataset(folder)
    found = found_in(table, [(0, (10, 10, 50, 60), 0.9, 0), (2, (0, 0, 30, 30), 0.5, 0)])
    write_wider_detections(tmp_path / "found", table, found)
    done = sniper("score", tmp_path / "found", folder, "--protocol", "wider")
    assert done.code == 0, done.lines
    assert " ".join(done.out.split()).startswith("WIDER FACE, IoU 0.5: 3 images, 4 faces, 2 detections")
    assert score(tmp_path / "found", folder, protocols=("wider",)).as_dict()["WIDER_easy"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"image_id": 1, "category_id": 77, "bbox": [0, 0, 9, 9], "score": 1}, "entry 1 has category_id 77"),
        ({"image_id": 1, "bbox": [0, 0, 9, 9], "score": 1}, "entry 1 has category_id None"),
        ({"image_id": 77, "category_id": 10, "bbox": [0, 0, 9, 9], "score": 1}, "has boxes of none of the images"),
        ({"image_id": 1, "category_id": 1, "score": 1}, "is not a COCO results file"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    truth: tuple[Path, DetectionTable], tmp_path: Path, sniper: Sniper, entry: dict[str, object], said: str
) -> None:
    (tmp_path / "results.json").write_text(json.dumps([entry]))
    done = sniper("score", tmp_path / "results.json", truth[0])
    assert (done.code, said in done.lines[-1]) == (2, True), done.lines
    assert sniper("score", tmp_path / "none.json", truth[0]).lines[-1].startswith("error: ")
