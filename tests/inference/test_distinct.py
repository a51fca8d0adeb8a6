"""One box an object, as a person would see it."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.boxes import area, intersection, iou
from sniper.inference.distinct import NESTED_IOU, NESTED_SHARE, OVERLAP_IOU, distinct


def kept(
    boxes: list[tuple[float, ...]], labels: list[int] | None = None, images: list[int] | None = None
) -> list[bool]:
    """Boxes by falling score."""
    offsets = np.asarray([0, len(boxes)] if images is None else images)
    scores = np.linspace(0.9, 0.5, len(boxes)).astype(np.float32)
    return distinct(offsets, np.asarray(boxes), scores, np.asarray(labels or [0] * len(boxes))).tolist()


def test_a_nested_double_goes_and_neighbours_stay() -> None:
    outer, inner, beside = (0, 0, 40, 40), (8, 6, 34, 33), (38, 0, 78, 40)
    assert kept([outer, inner, beside]) == [True, False, True]
    assert kept([inner, outer, beside]) == [True, False, True], "whichever of the two is better"
    assert iou(np.asarray([outer], float), np.asarray([inner], float)) < OVERLAP_IOU


def test_a_part_of_an_object_and_another_class_stay() -> None:
    lorry, wheel = (0, 0, 100, 40), (5, 25, 20, 40)
    assert kept([lorry, wheel]) == [True, True]
    assert kept([lorry, (0, 0, 98, 40)], labels=[0, 1]) == [True, True]


def test_images_are_told_apart() -> None:
    box = (0, 0, 10, 10)
    assert kept([box, box, box], images=[0, 1, 1, 3]) == [True, True, False]
    assert kept([], images=[0]) == []
    assert kept([], images=[0, 0]) == []


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 25))
@settings(max_examples=60, deadline=None)
def test_equals_a_plain_transcription(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    low = random.integers(0, 12, (count, 2))
    boxes = np.hstack([low, low + random.integers(0, 14, (count, 2))]).astype(np.float32)
    labels, scores = random.integers(0, 2, count), random.integers(0, 9, count) / 8
    left: list[int] = []
    for row in np.argsort(-scores, kind="stable"):
        same = [other for other in left if labels[other] == labels[row]]
        overlap = iou(boxes[[row]], boxes[same])[0]
        share = intersection(boxes[[row]], boxes[same])[0] / np.maximum(
            np.minimum(area(boxes[[row]]), area(boxes[same])), 1
        )
        if not ((overlap >= OVERLAP_IOU) | (share >= NESTED_SHARE) & (overlap >= NESTED_IOU)).any():
            left.append(int(row))
    found = distinct(np.asarray([0, count]), boxes, scores, labels)
    assert np.flatnonzero(found).tolist() == sorted(left)
