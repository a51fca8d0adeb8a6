"""What a chip shows of objects that only some formats have."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from loader_cases import chips_of, table_of

from sniper.data.image_labels import ImageLabels
from sniper.loader.collate import collate
from sniper.loader.config import AugmentConfig
from sniper.loader.image_chips import ImageChips, known_classes, objects_in_chip
from sniper.loader.shuffle import ImageTask
from sniper.structures import ObjectState
from voc_cases import voc_table


def test_difficult_objects_are_ignored_and_teach_no_class(tmp_path: Path) -> None:
    table = voc_table(tmp_path / "voc", ((0, 0, 40, 40), ""), ((50, 50, 60, 60), "difficult"))
    chips = chips_of(table, [(0, 1.0, (0, 0))], side=100, valid=[[0]])
    objects = objects_in_chip(table, chips, 0)
    assert objects.state.tolist() == [ObjectState.VALID, ObjectState.IGNORED]
    assert objects.labels.tolist() == [0, -1]


def test_known_classes_are_those_that_were_looked_for(tmp_path: Path) -> None:
    table = table_of(tmp_path, [(100, 100), (100, 100)], [[(0, 0, 40, 40)], []])  # image 0 has a box of class a
    verified = ImageLabels(
        np.array([0, 4, 4]), np.array([1, 2, 3, 4], np.int32), np.array([1, 0, 0.7, 0.7], np.float32)
    )
    assert known_classes(table, 0) is None
    # b was seen, c was not there, of d and e only a machine says something; d is a kind of c.
    table = replace(table, image_labels=verified, class_ancestors=np.array([[3, 2]], np.int32))
    assert known_classes(table, 0).tolist() == [True, True, True, True, False]
    assert known_classes(table, 1).tolist() == [False] * 5


def test_known_classes_reach_the_batch(tmp_path: Path) -> None:
    table = table_of(tmp_path, [(64, 64), (64, 64)], [[(0, 0, 40, 40)], []])
    for name in table.file_names:
        cv2.imwrite(str(tmp_path / name), np.zeros((64, 64, 3), np.uint8))
    nothing = ImageLabels(np.array([0, 0, 1]), np.array([3], np.int32), np.array([0], np.float32))
    table = replace(table, image_labels=nothing)
    chips = chips_of(table, [(0, 1.0, (0, 0)), (1, 1.0, (0, 0))], valid=[[0], []])
    source = ImageChips(table, chips, AugmentConfig(), whole_pixels=1e9, seed=0, epoch=0)
    samples = [
        sample
        for image in (0, 1)
        for part in source.read(ImageTask(image, np.array([image])))
        for sample in part.samples
    ]
    batch = collate(samples)
    assert batch.known_classes is not None
    assert batch.known_classes.tolist() == [[True] + [False] * 4, [False, False, False, True, False]]


def test_objects_teach_the_classes_above_theirs_too(tmp_path: Path) -> None:
    boxes: list[tuple[float, float, float, float]] = [(0, 0, 40, 40)] * 60
    table = table_of(tmp_path, [(64, 64)], [boxes])  # classes a to e in turn, every third a crowd
    cv2.imwrite(str(tmp_path / "0.jpg"), np.zeros((64, 64, 3), np.uint8))
    table = replace(table, class_ancestors=np.array([[1, 0], [2, 0], [2, 1]], np.int32))  # c is a b, and b an a
    chips = chips_of(table, [(0, 1.0, (0, 0))], valid=[list(range(60))])

    def labels(epoch: int, *, expand: bool = True) -> list[int]:
        source = ImageChips(table, chips, AugmentConfig(), whole_pixels=1e9, seed=0, epoch=epoch, expand_classes=expand)
        (part,) = source.read(ImageTask(0, np.array([0])))
        return part.samples[0].labels.tolist()

    own = labels(0, expand=False)
    assert own == [0, 1, 2, 3, 4] * 12
    assert labels(0) == labels(0) != labels(1)
    allowed = [{0}, {0, 1}, {0, 1, 2}, {3}, {4}]
    seen = [set(), set(), set(), set(), set()]
    for epoch in range(4):
        for label, drawn in zip(own, labels(epoch), strict=True):
            seen[label].add(drawn)
    assert seen == allowed
