"""Annotation and chip tables made by hand, and the images that they speak of."""

from pathlib import Path

import cv2
import numpy as np
import torch

from sniper.chips.table import ChipKind, ChipTable
from sniper.data.flags import ObjectFlag, flags_where
from sniper.data.table import AnnotationTable
from sniper.structures import Batch

Chip = tuple[int, float, tuple[int, int]]  # image, scale, origin


def table_of(
    root: Path,
    sizes_wh: list[tuple[int, int]],
    boxes: list[list[tuple[float, float, float, float]]],
    suffix: str = ".jpg",
) -> AnnotationTable:
    """A table of images ``0.jpg``, ``1.jpg``, ...; every third box is a crowd, labels count up."""
    count = sum(map(len, boxes))
    flat = np.asarray([box for own in boxes for box in own], np.float32).reshape(-1, 4)
    return AnnotationTable(
        root=root,
        file_names=tuple(f"{i}{suffix}" for i in range(len(sizes_wh))),
        image_ids=np.arange(len(sizes_wh), dtype=np.int64) + 1,
        sizes_wh=np.asarray(sizes_wh, np.int32).reshape(-1, 2),
        offsets=np.cumsum([0, *map(len, boxes)]).astype(np.int64),
        boxes_xyxy=flat,
        labels=np.arange(count, dtype=np.int32) % 5,
        flags=flags_where(np.arange(count) % 3 == 2, ObjectFlag.CROWD),
        areas=np.prod(flat[:, 2:] - flat[:, :2], axis=1),
        annotation_ids=np.arange(count, dtype=np.int64),
        class_names=tuple("abcde"),
        class_ids=np.arange(5, dtype=np.int64),
    )


def chips_of(
    table: AnnotationTable, chips: list[Chip], *, side: int = 64, valid: list[list[int]] | None = None
) -> ChipTable:
    """Square chips of ``side`` px, ordered by image; ``valid`` lists table rows for each."""
    valid = valid or [[] for _ in chips]
    images = [image for image, _, _ in chips]
    assert images == sorted(images)
    origins = np.asarray([origin for _, _, origin in chips], np.int32).reshape(-1, 2)
    scales = np.asarray([scale for _, scale, _ in chips], np.float64)
    scaled_wh = np.maximum(1, (table.sizes_wh[images] * scales[:, None]).astype(np.int32))
    return ChipTable(
        image_index=np.asarray(images, np.int32),
        level=np.zeros(len(chips), np.int16),
        kind=np.full(len(chips), ChipKind.POSITIVE, np.int8),
        scale=scales,
        origin_xy=origins,
        size_wh=np.full((len(chips), 2), side, np.int32),
        valid_wh=np.minimum(scaled_wh - origins, side).astype(np.int32),
        range_px=np.tile(np.asarray([[8.0, np.inf]], np.float32), (len(chips), 1)),
        object_offsets=np.cumsum([0, *map(len, valid)]).astype(np.int64),
        object_rows=np.asarray([row for own in valid for row in own], np.int64),
    )


def dataset(
    root: Path, count: int = 7, *, side: int = 64, suffix: str = ".jpg", seed: int = 0
) -> tuple[AnnotationTable, ChipTable]:
    """``count`` random images with 0 to 6 boxes and 1 to 6 chips each, written to ``root``."""
    rng = np.random.default_rng(seed)
    sizes = [tuple(map(int, rng.integers(40, 200, 2))) for _ in range(count)]
    boxes = []
    for size in sizes:
        corner = rng.uniform(0, 0.7, (int(rng.integers(0, 7)), 2))
        corners = np.hstack([corner, corner + rng.uniform(0.05, 0.3, corner.shape)]) * np.tile(size, 2)
        boxes.append([tuple(box) for box in corners.tolist()])
    table = table_of(root, sizes, boxes, suffix)
    chips: list[Chip] = []
    for image, size in enumerate(sizes):
        for _ in range(int(rng.integers(1, 7))):
            scale = float(rng.choice([0.1, 0.4, 1.0, 1.667, 3.0]))
            room = np.maximum(1, (np.asarray(size) * scale).astype(int) - side // 2)
            chips.append((image, scale, (int(rng.integers(room[0])), int(rng.integers(room[1])))))
        # Smooth noise, so that JPEG keeps it.
        small = rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)
        assert cv2.imwrite(str(root / f"{image}{suffix}"), cv2.resize(small, size))
    valid = [
        list(range(table.offsets[image], table.offsets[image + 1]))[: index % 3]
        for index, (image, _, _) in enumerate(chips)
    ]
    return table, chips_of(table, chips, side=side, valid=valid)


def same(a: Batch, b: Batch) -> bool:
    """Whether two batches agree in every bit."""
    pairs = [(getattr(a, name), getattr(b, name)) for name in Batch.__dataclass_fields__]
    return all(one is other if one is None or other is None else torch.equal(one, other) for one, other in pairs)
