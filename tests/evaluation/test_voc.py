"""Pascal VOC by hand: eleven points and area, difficult objects, crowds, duplicates."""

from pathlib import Path

import numpy as np
import pytest

from facts import facts
from sniper.data.flags import ObjectFlag
from sniper.errors import DataError
from sniper.evaluation.average_precision import area_under, at_eleven_points, precision_recall
from sniper.evaluation.config import CocoEvalConfig
from sniper.evaluation.protocol import all_numbers
from sniper.evaluation.protocols import protocols_of
from sniper.evaluation.voc import VocProtocol, VocScore
from tables_by_hand import Box, Thing, found_in, table_of
from voc_cases import voc_table

ONE, OTHER, FAR = (0, 0, 100, 100), (200, 0, 300, 100), (600, 600, 700, 700)


@pytest.mark.parametrize(
    ("verdicts", "objects", "eleven", "area"),
    [
        # Recall 1/2 at precision 1: points 0 to 0.5 have 1. Recall 1 at 2/3: points 0.6 to 1.
        ("101", 2, (6 * 1 + 5 * 2 / 3) / 11, 0.5 * 1 + 0.5 * 2 / 3),
        # Recall 3/10 is the point 0.3: four points at 1, although 3 / 10 < 0.1 + 0.1 + 0.1 on a machine.
        ("111", 10, 4 / 11, 0.3),
        ("1111111", 10, 8 / 11, 0.7),
        # The best precision at or above a recall: the late one of 4/5 lifts everything before it but the first.
        ("10111", 4, (3 * 1 + 8 * 4 / 5) / 11, 0.25 * 1 + 0.75 * 4 / 5),
        ("000", 2, 0, 0),
        ("", 3, 0, 0),
        ("1", 1, 1, 1),
    ],
)
def test_both_ways_to_average_precision(verdicts: str, objects: int, eleven: float, area: float) -> None:
    right = np.array([verdict == "1" for verdict in verdicts], np.bool_)
    curve = precision_recall(np.linspace(0.9, 0.1, len(right)), right, objects)
    assert at_eleven_points(curve) == pytest.approx(eleven)
    assert area_under(curve) == pytest.approx(area)


def measure(things: list[Thing], *found: tuple[Box, float]) -> VocScore:
    table = table_of([things])
    return VocProtocol()(table, found_in(table, [(0, box, score, 0) for box, score in found]))


def test_the_second_detection_of_an_object_is_wrong() -> None:
    score = measure([Thing(ONE), Thing(OTHER)], (ONE, 0.9), (ONE, 0.8), (OTHER, 0.7))
    assert score.numbers == {
        "VOC_AP50": pytest.approx(0.5 + 0.5 * 2 / 3),
        "VOC_AP50_11": pytest.approx((6 + 5 * 2 / 3) / 11),
    }


def test_a_detection_goes_to_its_best_object_even_if_that_is_taken() -> None:
    # Both overlap the second object enough, the first one more: by COCO's matching the later one would take it.
    close = (0, 30, 100, 130)
    score = measure([Thing(ONE), Thing(close)], (ONE, 0.9), ((0, 10, 100, 110), 0.8))
    assert score.numbers["VOC_AP50"] == pytest.approx(0.5)


def test_difficult_objects_go_by_iou_and_count_neither_way(tmp_path: Path) -> None:
    table = voc_table(tmp_path / "voc", (ONE, ""), ((100, 100, 180, 180), "difficult"))
    on_it = [(0, (100, 100, 180, 180), 0.9, 0), (0, (100, 100, 180, 178), 0.8, 0), (0, ONE, 0.5, 0)]
    score = VocProtocol()(table, found_in(table, on_it))
    assert (score.numbers["VOC_AP50"], score.area.classes[0].objects) == (1, 1)
    part = [(0, (110, 110, 137, 137), 0.9, 0), (0, ONE, 0.5, 0)]  # inside it, but no detection of it
    assert VocProtocol()(table, found_in(table, part)).numbers["VOC_AP50"] == pytest.approx(0.5)


def test_crowds_take_what_is_inside() -> None:
    crowd = Thing((400, 400, 900, 900), 0, ObjectFlag.CROWD)
    score = measure([Thing(ONE), crowd], (FAR, 0.9), (ONE, 0.5))
    assert (score.numbers["VOC_AP50"], score.area.classes[0].objects) == (1, 1)


def test_boxes_are_those_of_the_pages_to_the_pixel(tmp_path: Path) -> None:
    # 10 x 10 inclusive pixels, of which the detection has 5 x 10: an IoU of 1/2, which is enough. Half-open
    # boxes with the inclusive + 1 would give 66 / 121.
    table = voc_table(tmp_path / "voc", ((0, 0, 10, 10), ""))
    assert VocProtocol()(table, found_in(table, [(0, (0, 0, 5, 10), 0.9, 0)])).numbers["VOC_AP50"] == 1
    assert VocProtocol()(table, found_in(table, [(0, (0, 0, 4.99, 10), 0.9, 0)])).numbers["VOC_AP50"] == 0


def test_classes_images_and_tables() -> None:
    table = table_of([[Thing(ONE, 0)], [Thing(ONE, 1), Thing(OTHER, 1)], []], names=("cat", "dog", "ox"))
    found = found_in(table, [(0, ONE, 0.9, 1), (0, ONE, 0.8, 0), (1, ONE, 0.7, 1), (2, FAR, 0.1, 2)])
    score = VocProtocol()(table, found)
    assert [(one.name, one.objects, one.ap) for one in score.area.classes[:2]] == [("cat", 1, 1), ("dog", 2, 0.25)]
    assert score.numbers["VOC_AP50"] == pytest.approx(0.625)
    assert list(score.class_curves) == ["dog", "cat"]
    ((title, columns, rows),) = score.tables
    assert title == "Pascal VOC, IoU 0.5: 3 images, 3 objects, 4 detections"
    assert columns == ["class", "objects", "AP", "AP, 11 points"]
    assert rows[0] == ["all classes", "3", "0.625", f"{score.numbers['VOC_AP50_11']:.3f}"]
    assert rows[3] == ["ox", "0", "-", "-"]
    agnostic = VocProtocol(class_agnostic=True)(table, found)
    assert agnostic.numbers["VOC_AP50"] == pytest.approx(1 / 3 + (1 / 3) * (2 / 3))


def test_only_images_that_detections_list_count() -> None:
    table = table_of([[Thing(ONE)], [Thing(ONE)]])
    half = table.select([1])
    assert VocProtocol()(table, found_in(half, [(0, ONE, 0.9, 0)])).numbers["VOC_AP50"] == 1
    with pytest.raises(DataError, match=facts("image id 2", "dataset")):
        VocProtocol()(table.select([0]), found_in(half, []))


def test_a_recipe_names_several_protocols() -> None:
    table = table_of([[Thing(ONE)]])
    config = CocoEvalConfig(protocols=("voc", "coco", "openimages"))
    scores = [protocol(table, found_in(table, [(0, ONE, 0.9, 0)])) for protocol in protocols_of(config)]
    assert [score.name for score in scores] == ["voc", "coco", "openimages"]
    assert list(all_numbers(scores))[:3] == ["VOC_AP50", "VOC_AP50_11", "AP"]
