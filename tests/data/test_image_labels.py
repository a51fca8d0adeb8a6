"""Labels that were verified for whole images."""

import numpy as np

from sniper.data.image_labels import ImageLabels

LABELS = ImageLabels(
    np.array([0, 3, 3, 4]), np.array([0, 1, 2, 1], np.int32), np.array([1, 0, 0.5, 1], np.float32)
)  # three images, the second without any


def test_verified_labels_say_present_absent_or_guessed():
    assert LABELS.present.tolist() == [True, False, False, True]
    assert LABELS.absent.tolist() == [False, True, False, False]
    LABELS.check(3, 3)


def test_images_are_taken_in_any_order():
    some = LABELS.take(np.array([2, 1, 0]))
    assert some.offsets.tolist() == [0, 1, 1, 4]
    assert some.labels.tolist() == [1, 0, 1, 2]
    assert some.confidence.tolist() == [1, 1, 0, 0.5]
    assert len(LABELS.take(np.zeros(0, np.int64))) == 0


def test_labels_of_classes_that_are_dropped_go():
    fewer = LABELS.relabelled(np.array([-1, 4, 0], np.int32))
    assert fewer.offsets.tolist() == [0, 2, 2, 3]
    assert fewer.labels.tolist() == [4, 0, 4]
    assert fewer.confidence.tolist() == [0, 0.5, 1]
