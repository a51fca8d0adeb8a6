"""The truth beside the detections."""

import numpy as np
import pytest

from sniper.evaluation.error_types import Verdict
from sniper.report.comparison import ImageTruth, draw_comparison
from sniper.report.palette import FALSE_POSITIVE, FOUND, MISSED, WHITE

BOXES = np.asarray([[20, 20, 60, 60], [120, 20, 160, 60], [20, 80, 60, 110]], float)
TRUTH = ImageTruth(BOXES, np.asarray([True, False, False]), np.asarray([False, False, True]))
VERDICT = np.asarray([Verdict.TRUE_POSITIVE, Verdict.BACKGROUND, Verdict.IGNORED])


def has(picture: np.ndarray, color: tuple[int, int, int]) -> bool:
    return bool((picture == color).all(axis=2).any())


def test_each_object_and_detection_in_the_colour_of_what_became_of_it(grey: np.ndarray) -> None:
    drawn = draw_comparison(grey, TRUTH, BOXES + 2, VERDICT)
    assert (drawn.found, drawn.missed, drawn.false_positives) == (1, 1, 1)
    assert [has(drawn.truth, color) for color in (FOUND, MISSED, FALSE_POSITIVE)] == [True, True, False]
    assert [has(drawn.detections, color) for color in (FOUND, MISSED, FALSE_POSITIVE)] == [True, False, True]
    assert has(drawn.detections, WHITE)
    assert drawn.truth.shape == drawn.detections.shape
    assert (grey == 128).all()


def test_a_small_copy_of_a_huge_image_looks_the_same(grey: np.ndarray) -> None:
    tenfold = TRUTH._replace(boxes_xyxy=BOXES * 10)
    ours, theirs = (
        draw_comparison(grey, tenfold, BOXES * 10, VERDICT, scale=0.1),
        draw_comparison(grey, TRUTH, BOXES, VERDICT),
    )
    np.testing.assert_array_equal(ours.truth, theirs.truth)
    np.testing.assert_array_equal(ours.detections, theirs.detections)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (7, 5)])
def test_tiny_pictures_without_anything(size: tuple[int, int]) -> None:
    none = np.zeros(0, bool)
    drawn = draw_comparison(
        np.zeros((*size, 3), np.uint8), ImageTruth(np.zeros((0, 4)), none, none), np.zeros((0, 4)), none
    )
    assert (drawn.found, drawn.missed, drawn.false_positives) == (0, 0, 0)
    assert drawn.truth.dtype == np.uint8
