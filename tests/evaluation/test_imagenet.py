"""ImageNet's detection task by hand: lenient small objects, free objects, what counts neither way."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facts import facts
from sniper.data.class_map import read_class_map
from sniper.data.flags import ObjectFlag
from sniper.errors import DataError
from sniper.evaluation.imagenet import ImagenetProtocol, ImagenetScore
from tables_by_hand import Box, Thing, found_in, table_of

ONE, OTHER = (0, 0, 100, 100), (200, 0, 300, 100)


def measure(things: list[Thing], *found: tuple[Box, float]) -> ImagenetScore:
    table = table_of([things])
    return ImagenetProtocol()(table, found_in(table, [(0, box, score, 0) for box, score in found]))


def test_small_objects_forgive_ten_pixels() -> None:
    # 10 x 10 px: 100 / (20 * 20) = 0.25 is enough. 100 x 100 px: 0.83, so 0.5 stays.
    small, third = (0, 0, 10, 10), (0, 0, 10, 30)
    assert measure([Thing(small)], (third, 0.9)).numbers == {"DET_AP": 1}
    assert measure([Thing(ONE)], ((0, 0, 100, 300), 0.9)).numbers == {"DET_AP": 0}
    assert measure([Thing(ONE)], ((0, 0, 100, 199), 0.9)).numbers == {"DET_AP": 1}


def test_a_detection_takes_the_best_object_that_is_free() -> None:
    # Pascal VOC sends both to the first; here the second detection takes the second object.
    close = (0, 30, 100, 130)
    found = measure([Thing(ONE), Thing(close)], ((0, 5, 100, 105), 0.9), ((0, 10, 100, 110), 0.8))
    assert found.numbers == {"DET_AP": 1}
    assert measure([Thing(ONE)], (ONE, 0.9), (ONE, 0.8), (OTHER, 0.7)).numbers == {"DET_AP": 1}


def test_difficult_objects_count_neither_way_and_classes_without_objects_are_no_mean() -> None:
    difficult = Thing(OTHER, flags=int(ObjectFlag.DIFFICULT))
    assert measure([Thing(ONE), difficult], (OTHER, 0.9), (OTHER, 0.85), (ONE, 0.8)).numbers == {"DET_AP": 1}
    table = table_of([[Thing(ONE, 1)]], names=("a", "b", "c"))
    score = ImagenetProtocol()(table, found_in(table, [(0, ONE, 0.9, 1), (0, ONE, 0.9, 0)]))
    assert score.numbers == {"DET_AP": 1}
    one = ImagenetProtocol(class_agnostic=True)(table, found_in(table, [(0, ONE, 0.5, 1), (0, OTHER, 0.9, 0)]))
    assert one.numbers == {"DET_AP": pytest.approx(0.5)}


boxes = st.tuples(*[st.integers(0, 40)] * 2, *[st.integers(1, 40)] * 2).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
rows = st.lists(st.tuples(boxes, st.integers(0, 1), st.integers(0, 1)), max_size=6)


@given(rows, st.lists(st.tuples(boxes, st.integers(0, 1), st.integers(0, 1), st.floats(0.01, 1)), max_size=8))
def test_agrees_with_the_kit_read_line_by_line(things, found) -> None:
    table = table_of(
        [[Thing(box, label) for box, image, label in things if image == row] for row in (0, 1)], names=("a", "b")
    )
    detections = found_in(table, [(image, box, score, label) for box, image, label, score in found])
    score = ImagenetProtocol()(table, detections)
    told = [one for label in (0, 1) if (one := _ap_of_class(label, things, detections)) is not None]
    assert score.numbers.get("DET_AP", -1) == pytest.approx(np.mean(told) if told else -1)


def _ap_of_class(label, things, detections):
    """As the kit computes it: image by image, best first, each takes a free object; then all by score."""
    judged = []
    for image in (0, 1):
        objects = [np.array(box, float) for box, of, own in things if (of, own) == (image, label)]
        rows = [row for row in range(*detections.offsets[image : image + 2]) if detections.labels[row] == label]
        free = set(range(len(objects)))
        for row in sorted(rows, key=lambda row: -detections.scores[row]):
            best, best_iou = None, -np.inf
            for k in sorted(free):
                a, b = detections.boxes_xyxy[row].astype(float), objects[k]
                w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
                if w <= 0 or h <= 0:
                    continue
                areas = [(one[2] - one[0]) * (one[3] - one[1]) for one in (a, b)]
                iou = w * h / (sum(areas) - w * h)
                side = b[2:] - b[:2]
                if iou >= min(0.5, areas[1] / ((side[0] + 10) * (side[1] + 10))) and iou > best_iou:
                    best, best_iou = k, iou
            free.discard(best)
            judged.append((detections.scores[row], best is not None))
    number = sum(own == label for _, _, own in things)
    if not number:
        return None
    right = np.array([good for _, good in sorted(judged, key=lambda one: -one[0])], bool)
    recall = np.concatenate([[0], np.cumsum(right) / number])
    precision = np.append(np.cumsum(right) / np.arange(1, len(right) + 1), 0)
    return sum((recall[k + 1] - recall[k]) * precision[k:].max() for k in range(len(right)))


def test_classes_of_the_detector_count_for_those_of_the_data(tmp_path: Path) -> None:
    file = tmp_path / "map.txt"
    file.write_text("beagle\tdog\ntabby\tcat\npoodle\tdog\n")
    mapped = read_class_map(file, ("poodle", "car", "tabby", "beagle"))
    assert (mapped.names, mapped.labels.tolist()) == (("dog", "cat"), [0, -1, 1, 0])
    table = table_of([[], [Thing(ONE)]], names=("x",))
    found = mapped(found_in(table, [(0, ONE, 0.9, 1), (0, ONE, 0.8, 2), (1, OTHER, 0.7, 3), (1, ONE, 0.6, 1)]))
    assert (found.labels.tolist(), found.offsets.tolist()) == ([1, 0], [0, 1, 2])
    assert found.boxes_xyxy.tolist() == [list(ONE), list(OTHER)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\tdog\nb dog\n", ("entry 2", "'b dog'", "a tab")),
        ("a\tdog\nz\tdog\n", ("entry 2", "'z'", "does not know")),
        ("a\tdog\na\tcat\n", ("entry 2", "'a'", "second time")),
        ("\n", ("maps no class",)),
    ],
)
def test_wrong_maps_are_refused(tmp_path: Path, text: str, said: tuple[str, ...]) -> None:
    file = tmp_path / "map.txt"
    file.write_text(text)
    with pytest.raises(DataError, match=facts(file, *said)):
        read_class_map(file, ("a", "b"))
