"""The OpenImages protocols against the official evaluator's numbers, and by hand for what its recording lacks."""

import json
from typing import Any

import pytest

from recorded import Golden
from sniper.data.detections import DetectionTable
from sniper.data.flags import ObjectFlag
from sniper.data.table import AnnotationTable
from sniper.evaluation.class_scores import ClassScores
from sniper.evaluation.openimages import OpenImagesProtocol
from sniper.evaluation.voc import VocProtocol
from tables_by_hand import Thing, found_in, table_of

RECORDING = "protocols/openimages_voc.json"


@pytest.fixture(scope="module")
def recording(golden: Golden) -> dict[str, Any]:
    return json.loads(golden.file(RECORDING).read_text())


@pytest.fixture(scope="module")
def recorded_table(recording: dict[str, Any]) -> AnnotationTable:
    images = recording["images"]
    return table_of(
        [
            [
                Thing(tuple(box), label - 1, group * ObjectFlag.GROUP_OF | hard * ObjectFlag.DIFFICULT)
                for box, label, group, hard in zip(
                    image["boxes_xyxy"], image["labels"], image["group_of"], image["difficult"], strict=True
                )
            ]
            for image in images
        ],
        names=tuple(recording["classes"]),
        ids=[image["id"] for image in images],
        present=[[label - 1 for label in image["verified_labels"]] for image in images],
    )


@pytest.fixture(scope="module")
def recorded_detections(recording: dict[str, Any], recorded_table: AnnotationTable) -> DetectionTable:
    entries = recording["detections"]
    row = {image_id: place for place, image_id in enumerate(recorded_table.image_ids.tolist())}
    return found_in(
        recorded_table,
        [
            (row[one["image_id"]], tuple(box), score, label - 1)
            for one in entries
            for box, score, label in zip(one["boxes_xyxy"], one["scores"], one["labels"], strict=True)
        ],
    )


def assert_equal(recording: dict[str, Any], which: str, scores: ClassScores) -> None:
    numbers = recording["metrics"][which]
    expected = {name.rpartition("/")[2]: value for name, value in numbers.items() if "ByCategory" in name}
    (mean,) = (value for name, value in numbers.items() if "mAP" in name)
    assert {one.name for one in scores.classes} >= set(expected)
    for one in scores.classes:
        assert one.ap == pytest.approx(expected[one.name], abs=1e-6, nan_ok=True)
    assert scores.ap == pytest.approx(mean, abs=1e-6)


def test_class_by_class_as_the_official_evaluator(
    recording: dict[str, Any], recorded_table: AnnotationTable, recorded_detections: DetectionTable
) -> None:
    score = OpenImagesProtocol()(recorded_table, recorded_detections)
    assert_equal(recording, "oid_v2", score.v2)
    assert_equal(recording, "oid_challenge", score.challenge)
    assert score.numbers == {"OID_AP50": score.v2.ap, "OID_challenge_AP50": score.challenge.ap}
    assert_equal(recording, "voc_area", VocProtocol()(recorded_table, recorded_detections).area)


ONE, OTHER, FAR = (0, 0, 100, 100), (200, 0, 300, 100), (600, 600, 700, 700)
GROUP = ObjectFlag.GROUP_OF


def aps(scores: ClassScores) -> dict[str, float]:
    return {one.name: pytest.approx(one.ap) for one in scores.classes if one.objects}


def test_group_of_boxes_take_what_is_inside_and_the_challenge_counts_them_once() -> None:
    table = table_of([[Thing(ONE), Thing((400, 0, 800, 400), 0, GROUP), Thing((0, 500, 400, 900), 0, GROUP)]])
    inside = [(0, (410, 10, 460, 60), 0.9, 0), (0, (500, 100, 560, 160), 0.8, 0)]
    found = found_in(table, [*inside, (0, ONE, 0.7, 0), (0, ONE, 0.6, 0)])
    score = OpenImagesProtocol()(table, found)
    # V2: one object, found first; a duplicate behind. The challenge: three to find, of which two are.
    assert (score.v2.ap, score.challenge.ap) == (pytest.approx(1), pytest.approx(2 / 3))
    assert [one.objects for one in (*score.v2.classes, *score.challenge.classes)] == [1, 3]


def test_the_challenge_judges_verified_classes_only() -> None:
    table = table_of([[Thing(ONE, 0)], [Thing(ONE, 1)]], names=("cat", "dog"), absent=[[], [0]])
    rows = [(0, ONE, 0.5, 0), (1, ONE, 0.5, 1), (0, ONE, 0.9, 1), (1, ONE, 0.9, 0)]
    score = OpenImagesProtocol()(table, found_in(table, rows))
    # Nobody looked for a dog in the first image; in the second a person saw that there is no cat.
    assert aps(score.challenge) == {"cat": 0.5, "dog": 1}
    assert aps(score.v2) == {"cat": 0.5, "dog": 0.5}


def test_truth_is_expanded_along_the_class_tree() -> None:
    names, kinds = ("animal", "cat", "kitten", "car"), [(1, 0), (2, 1)]
    table = table_of([[Thing(ONE, 2), Thing(OTHER, 1)], [Thing(FAR, 3)]], names=names, kinds=kinds, absent=[[], [0]])
    rows = [(0, ONE, 0.9, 2), (0, ONE, 0.9, 1), (0, ONE, 0.9, 0), (0, OTHER, 0.8, 1), (1, FAR, 0.7, 3)]
    score = OpenImagesProtocol()(table, found_in(table, rows))
    assert {one.name: one.objects for one in score.v2.classes} == {"animal": 2, "cat": 2, "kitten": 1, "car": 1}
    assert aps(score.v2) == {"animal": 0.5, "cat": 1, "kitten": 1, "car": 1}
    # No animal is in the second image, and so no kitten: a false positive to the challenge too.
    score = OpenImagesProtocol()(table, found_in(table, [*rows, (1, FAR, 0.95, 2)]))
    assert aps(score.challenge)["kitten"] == 0.5


def test_a_table_that_is_expanded_already_is_not_expanded_again() -> None:
    names, kinds = ("animal", "cat"), [(1, 0)]
    once = table_of([[Thing(ONE, 1), Thing(OTHER, 1, GROUP)]], names=names, kinds=kinds)
    twice = table_of(
        [[Thing(ONE, 1), Thing(ONE, 0), Thing(OTHER, 1, GROUP), Thing(OTHER, 0, GROUP)]], names=names, kinds=kinds
    )
    for table in (once, twice):
        score = OpenImagesProtocol()(table, found_in(table, [(0, ONE, 0.9, 0)]))
        assert [one.objects for one in score.challenge.classes] == [2, 2]


def test_no_detections_and_no_objects() -> None:
    table = table_of([[Thing(ONE)], []])
    assert OpenImagesProtocol()(table, found_in(table, [])).numbers == {"OID_AP50": 0, "OID_challenge_AP50": 0}
    empty = table_of([[], []])
    score = OpenImagesProtocol()(empty, found_in(empty, [(0, ONE, 0.9, 0)]))
    assert (score.numbers, list(score.curves)) == ({}, ["V2, IoU 0.50", "challenge, IoU 0.50"])
