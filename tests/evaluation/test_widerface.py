"""WIDER FACE by hand and against detections of known AP; its layout of detections, written and read."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

from facts import facts
from sniper.data.detections import DetectionTable
from sniper.data.source import load_dataset
from sniper.data.table import AnnotationTable
from sniper.data.wider_detections import read_wider_detections, write_wider_detections
from sniper.errors import DataError
from sniper.evaluation.config import CocoEvalConfig
from sniper.evaluation.protocols import protocols_of
from sniper.evaluation.widerface import WiderProtocol
from tables_by_hand import Box, Thing, found_in, table_of
from wider_cases import write_images, write_mat_files

BIG, MIDDLE, SMALL, OTHER = (10, 10, 50, 60), (60, 10, 72, 22), (80, 60, 85, 66), (0, 0, 30, 30)
NOTHING = (30, 70, 40, 79)


@pytest.fixture
def table(tmp_path: Path) -> AnnotationTable:
    write_images(tmp_path, "val")
    return load_dataset(write_mat_files(tmp_path / "wider_face_split").parent)


def measure(table: AnnotationTable, *rows: tuple[int, Box, float]) -> dict[str, float]:
    return WiderProtocol()(table, found_in(table, [(image, box, score, 0) for image, box, score in rows])).numbers


def test_faces_that_do_not_count_take_detections_out(table: AnnotationTable) -> None:
    found = [(0, BIG, 0.9), (0, MIDDLE, 0.8), (0, SMALL, 0.7), (2, OTHER, 0.1)]
    assert measure(table, *found) == pytest.approx({"WIDER_easy": 1, "WIDER_medium": 1, "WIDER_hard": 1})
    # A duplicate of the face that is easy is wrong; one of those that are only hard is wrong for hard.
    assert measure(table, *found, (0, BIG, 0.85))["WIDER_easy"] == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert measure(table, *found, (0, SMALL, 0.65))["WIDER_medium"] == pytest.approx(1)
    assert measure(table, *found, (0, SMALL, 0.65))["WIDER_hard"] == pytest.approx(0.75 + 0.25 * 4 / 5)
    # An image without a single face is passed over.
    assert measure(table, *found, (1, NOTHING, 0.95))["WIDER_easy"] == pytest.approx(1)
    assert measure(table, *found, (0, NOTHING, 0.95))["WIDER_easy"] == pytest.approx(2 / 3)


def test_scores_are_normalised_and_read_at_a_thousand_thresholds(table: AnnotationTable) -> None:
    # 0.9 and 0.89995 fall between the same two thresholds: the false positive comes with the face, not after it.
    close = measure(table, (0, BIG, 0.9), (0, NOTHING, 0.89995), (2, OTHER, 0.0))
    assert close["WIDER_easy"] == pytest.approx(2 / 3)
    assert measure(table, (0, BIG, 9), (0, NOTHING, 8.9995), (2, OTHER, 0)) == pytest.approx(close)
    apart = measure(table, (0, BIG, 0.9), (0, NOTHING, 0.8), (2, OTHER, 0.0))
    assert apart["WIDER_easy"] == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_corners_count_as_pixels(table: AnnotationTable) -> None:
    # 30 x 14.5 of 30 x 30 is less than a half; 31 x 15.5 of 31 x 31 is one.
    assert measure(table, (2, (0, 0, 30, 14.5), 0.9))["WIDER_easy"] == pytest.approx(0.5)
    assert measure(table, (2, (0, 0, 30, 14.4), 0.9))["WIDER_easy"] == 0


def test_nothing_found_and_nothing_to_find(table: AnnotationTable) -> None:
    assert measure(table) == {"WIDER_easy": 0, "WIDER_medium": 0, "WIDER_hard": 0}
    score = WiderProtocol()(table, found_in(table.select([1]), [(0, BIG, 0.9, 0)]))
    assert (score.numbers, score.curves) == ({}, {})
    assert score.untold == ("WIDER_easy", "WIDER_medium", "WIDER_hard")


def test_what_cannot_be_measured_is_told(table: AnnotationTable, tmp_path: Path) -> None:
    people = table_of([[Thing(BIG)]], names=("cat", "dog"), files=["0--Parade/a.jpg"])
    protocol = WiderProtocol(tmp_path / "wider_face_split")
    with pytest.raises(DataError, match="measures the class face, and the classes are cat, dog"):
        protocol(people, found_in(people, []))
    both = table_of([[Thing(BIG, 1)]], names=("cat", "Face"), files=["x/0--Parade/a.png"])
    found = found_in(both, [(0, BIG, 0.5, 1), (0, NOTHING, 0.9, 0)])
    assert protocol(both, found).numbers["WIDER_easy"] == pytest.approx(1), "the cat does not count"
    other = table_of([[Thing(BIG)]], files=["0--Parade/z.jpg"])
    with pytest.raises(DataError, match=facts("image 0--Parade/z", "none of the 3", "wider_face_val.mat")):
        protocol(other, found_in(other, []))
    with pytest.raises(DataError, match=facts("wider_face_val.mat", "wider_easy_val.mat", "put them")):
        WiderProtocol()(other, found_in(other, []))
    write_mat_files(tmp_path / "fewer", [])
    (tmp_path / "fewer" / "wider_face_val.mat").write_bytes(
        (tmp_path / "wider_face_split" / "wider_face_val.mat").read_bytes()
    )
    with pytest.raises(DataError, match=r"wider_easy_val\.mat lists other images"):
        WiderProtocol(tmp_path / "fewer")(table, found_in(table, []))


def test_detections_are_written_and_read_in_the_official_layout(table: AnnotationTable, tmp_path: Path) -> None:
    rows = [(0, BIG, 0.123456789, 0), (0, (1.25, 2.5, 30.125, 40), 0.9, 0), (2, OTHER, 1e-7, 0)]
    found = found_in(table, rows)
    write_wider_detections(tmp_path / "out", table, found)
    text = (tmp_path / "out" / "0--Parade" / "a.txt").read_text()
    assert text == "a\n2\n1.250 2.500 28.875 37.500 0.899999976\n10 10 40 50 0.123456791\n"
    assert (tmp_path / "out" / "0--Parade" / "b.txt").read_text() == "b\n0\n"
    again = read_wider_detections(tmp_path / "out", table)
    assert again.offsets.tolist() == [0, 2, 2, 3]
    assert again.boxes_xyxy[::-1][1:].tolist() == found.boxes_xyxy[:2].tolist()
    assert np.array_equal(np.sort(again.scores), np.sort(found.scores))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\n2\n1 2 3 4 0.5\n", r"a\.txt, line 2: expected the number of detections, 1 lines below, got '2'"),
        ("a\n", "line 2: .*got 'the end of the file'"),
        ("a\n2\n1 2 3 4 0.5\n1 2 3 0.5\n", "line 4: expected x, y, width, height and score, got '1 2 3 0.5'"),
        ("a\n1\n1 2 x 4 0.5\n", "line 3: expected x, y, width"),
    ],
)
def test_wrong_files_of_detections_are_told(table: AnnotationTable, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "out" / "0--Parade").mkdir(parents=True)
    (tmp_path / "out" / "0--Parade" / "a.txt").write_text(text)
    with pytest.raises(DataError, match=said):
        read_wider_detections(tmp_path / "out", table)
    with pytest.raises(DataError, match=facts("none of the images", "0--Parade/a.txt")):
        read_wider_detections(tmp_path / "none", table)


def test_published_detections_have_their_published_ap(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "wider_eval"
    with tarfile.open(folder / "retinaface_mobilenet025_detections.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    table = load_dataset(folder / "ground_truth")
    found: DetectionTable = read_wider_detections(tmp_path, table)
    (protocol,) = protocols_of(CocoEvalConfig(protocols=("wider",)))
    score = protocol(table, found)
    expected = {"WIDER_easy": 0.9071, "WIDER_medium": 0.8817, "WIDER_hard": 0.7383}
    assert score.numbers == pytest.approx(expected, abs=1e-4)
    assert list(score.curves) == ["easy", "medium", "hard"]
