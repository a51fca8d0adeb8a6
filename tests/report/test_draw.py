"""Detections on a picture."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from sniper.report.draw import draw_detections
from sniper.report.layout import fit
from sniper.report.palette import class_color
from sniper.writers.images import save_picture

NONE = np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=int)
NAMES = ("cat", "dog")


def has(picture: np.ndarray, color: tuple[int, int, int]) -> bool:
    return bool((picture == color).all(axis=2).any())


def test_no_detections_give_an_equal_copy(grey: np.ndarray) -> None:
    drawn = draw_detections(grey, *NONE, NAMES)
    assert drawn is not grey
    np.testing.assert_array_equal(drawn, grey)


def test_one_detection_is_drawn_in_its_class_colour_and_the_input_stays(grey: np.ndarray) -> None:
    drawn = draw_detections(grey, np.asarray([[20, 30, 150, 100]]), np.asarray([0.9]), np.asarray([1]), NAMES)
    assert drawn.shape == grey.shape
    assert has(drawn, class_color(1))
    assert (grey == 128).all()


def test_low_scores_empty_and_broken_boxes_are_left_out(grey: np.ndarray) -> None:
    boxes = np.asarray([[20, 30, 150, 100], [50, 50, 50, 80], [np.nan, 0, 9, 9], [60, 60, 40, 90]])
    drawn = draw_detections(grey, boxes, np.asarray([0.29, 0.9, 0.9, 0.9]), np.zeros(4, dtype=int), NAMES)
    np.testing.assert_array_equal(drawn, grey)


def test_a_nested_double_of_an_object_is_not_drawn(grey: np.ndarray) -> None:
    boxes = np.asarray([[20, 30, 150, 100], [40, 36, 140, 90]], dtype=float)
    drawn = draw_detections(grey, boxes, np.asarray([0.9, 0.4]), np.zeros(2, dtype=int), NAMES)
    np.testing.assert_array_equal(drawn, draw_detections(grey, boxes[:1], np.ones(1) * 0.9, np.zeros(1, int), NAMES))


def test_each_class_is_drawn_from_its_own_score(grey: np.ndarray) -> None:
    boxes, scores, labels = np.asarray([[10, 10, 90, 90], [110, 10, 190, 90]]), np.asarray([0.4, 0.4]), np.arange(2)
    drawn = draw_detections(grey, boxes, scores, labels, NAMES, min_score=(0.3, 0.5))
    assert has(drawn, class_color(0))
    assert not has(drawn, class_color(1))
    unknown = draw_detections(grey, boxes, scores, labels + 7, NAMES, min_score=(0.5, 0.5))
    assert has(unknown, class_color(7)), "a label without a class: the default"


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (7, 5)])
def test_tiny_pictures(size: tuple[int, int]) -> None:
    pixels = np.zeros((*size, 3), dtype=np.uint8)
    boxes, scores, labels = np.asarray([[0, 0, 1, 1]]), np.ones(1), np.zeros(1, dtype=int)
    assert draw_detections(pixels, boxes, scores, labels, NAMES).shape == pixels.shape


def test_a_tag_covers_no_small_object() -> None:
    pixels = np.full((400, 600, 3), 128, dtype=np.uint8)
    small = [[104, 182, 118, 196], [104, 322, 118, 336], [105, 204, 119, 218]]  # above, below and inside the large box
    boxes = np.asarray([[100, 200, 300, 320], *small], dtype=float)
    drawn = draw_detections(
        pixels, boxes, np.asarray([0.99, 0.5, 0.5, 0.5]), np.asarray([0, 1, 1, 1]), NAMES, counts=False
    )
    for x1, y1, x2, y2 in small:
        assert (drawn[y1 + 3 : y2 - 3, x1 + 3 : x2 - 3] == 128).all()


def test_many_objects_get_a_legend_instead_of_tags() -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 900, (300, 2))
    boxes, scores, labels = np.concatenate([corner, corner + 40], axis=1), np.ones(300), rng.integers(0, 2, 300)
    pixels = np.full((1000, 1000, 3), 128, dtype=np.uint8)
    with_legend = draw_detections(pixels, boxes, scores, labels, NAMES)
    without = draw_detections(pixels, boxes, scores, labels, NAMES, counts=False)
    assert (with_legend != without).any()
    tagged = draw_detections(pixels, boxes, scores, labels, NAMES, tags=False, counts=False)
    np.testing.assert_array_equal(without, tagged)


def test_unknown_labels_are_named_by_number(grey: np.ndarray) -> None:
    one = np.asarray([[20, 30, 150, 100]]), np.ones(1), np.asarray([7])
    drawn = draw_detections(grey, *one, ())
    np.testing.assert_array_equal(drawn, draw_detections(grey, *one, (*"abcdefg", "class 7")))
    assert (drawn != draw_detections(grey, *one, (*"abcdefg", "class 8"))).any()


def test_pictures_of_another_kind_are_refused() -> None:
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="uint8 RGB"):
            fit(wrong)


def test_a_coco_photo_is_drawn_and_saved(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "coco_subset"
    content = json.loads((folder / "annotations" / "instances_val2017.json").read_text())
    image = content["images"][0]
    found = [a for a in content["annotations"] if a["image_id"] == image["id"]]
    boxes = np.asarray([a["bbox"] for a in found], dtype=float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    pixels = cv2.imread(str(folder / "val2017" / image["file_name"]))[..., ::-1]  # a view with negative strides
    drawn = draw_detections(pixels, boxes, np.ones(len(boxes)), np.zeros(len(boxes), dtype=int), ("thing",))
    for name in ("drawn.png", "drawn.jpg"):
        save_picture(tmp_path / name, drawn)
        assert cv2.imread(str(tmp_path / name)).shape == pixels.shape
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "drawn.png"))[..., ::-1], drawn)
