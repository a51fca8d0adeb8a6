"""Which class is taken for which."""

import numpy as np
from test_best_f1 import detections, objects, square

from sniper.evaluation.confusion import confusion_matrix
from sniper.evaluation.error_types import judge


def test_objects_by_what_they_are_taken_for() -> None:
    table = objects([square(0), square(20), square(40), square(60), square(80)], [0, 0, 1, 2, 2], ignored=(4,))
    boxes = [square(0), square(0), square(20), square(40), square(50, 50), square(80)]
    found = detections(boxes, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [0, 0, 1, 1, 2, 2])
    counts = confusion_matrix(judge(table, found), 3)
    expected = np.zeros((4, 4), int)
    expected[0, 0] = 1  # and its duplicate is on background
    expected[0, 1] = 1  # a car taken for a tree, so not missed
    expected[1, 1] = 1
    expected[2, 3] = 1  # missed; the other pond is ignored, and what is on it
    expected[3] = [1, 0, 1, 0]
    np.testing.assert_array_equal(counts, expected)


def test_nothing_at_all() -> None:
    assert not confusion_matrix(judge(objects([], []), detections([], [], [])), 3).any()
