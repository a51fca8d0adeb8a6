"""Annotation and detection tables made by hand, for what tests of protocols ask."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sniper.data.building import ObjectRows, build_table
from sniper.data.class_tree import ancestors_of
from sniper.data.detections import DetectionTable
from sniper.data.image_labels import ImageLabels
from sniper.data.table import AnnotationTable

Box = tuple[float, float, float, float]


class Thing(NamedTuple):
    """An object of an image."""

    box_xyxy: Box
    label: int = 0
    flags: int = 0  # bits of ObjectFlag


def table_of(
    images: Sequence[Sequence[Thing]],
    *,
    names: tuple[str, ...] = ("thing",),
    ids: Sequence[int] | None = None,
    present: Sequence[Sequence[int]] | None = None,
    absent: Sequence[Sequence[int]] | None = None,
    kinds: Sequence[tuple[int, int]] | None = None,
    files: Sequence[str] | None = None,
) -> AnnotationTable:
    """Images of 1000 px, or more where boxes need it; ``present`` and ``absent`` are labels of whole images.

    ``kinds`` are pairs of a class and one that it is a kind of.
    """
    things = [thing for image in images for thing in image]
    side = int(np.ceil(max([1000, *(end for thing in things for end in thing.box_xyxy)])))
    labels = None
    if present is not None or absent is not None:
        seen, unseen = present or [()] * len(images), absent or [()] * len(images)
        verified = [[*((one, 1) for one in a), *((one, 0) for one in b)] for a, b in zip(seen, unseen, strict=True)]
        labels = ImageLabels(
            np.cumsum([0, *map(len, verified)]).astype(np.int64),
            np.array([label for image in verified for label, _ in image], np.int32),
            np.array([confidence for image in verified for _, confidence in image], np.float32),
        )
    return build_table(
        ObjectRows(
            image_row=np.repeat(np.arange(len(images)), [len(image) for image in images]),
            boxes_xyxy=np.array([thing.box_xyxy for thing in things], np.float64).reshape(-1, 4),
            labels=np.array([thing.label for thing in things], np.int32),
            flags=np.array([thing.flags for thing in things], np.uint8),
        ),
        source="by hand",
        root=Path(),
        file_names=files or [f"{row}.jpg" for row in range(len(images))],
        image_ids=None if ids is None else np.asarray(ids, np.int64),
        sizes_wh=np.full((len(images), 2), side),
        class_names=names,
        image_labels=labels,
        class_ancestors=None if kinds is None else ancestors_of(np.asarray(kinds), names),
    ).check()


def found_in(table: AnnotationTable, rows: Sequence[tuple[int, Box, float, int]]) -> DetectionTable:
    """Detections in all images of a table: image row, box, score and label of each."""
    image, boxes, scores, labels = zip(*rows, strict=True) if rows else ((), (), (), ())
    return DetectionTable.from_arrays(
        image, np.array(boxes, np.float32), np.array(scores), np.array(labels, int), None, table.image_ids
    )
