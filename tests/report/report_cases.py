"""A small dataset, and hand-made chips of it."""

from pathlib import Path

import numpy as np

from sniper.chips.table import ChipKind, ChipTable
from sniper.data.flags import ObjectFlag, flags_where
from sniper.data.table import AnnotationTable


def make_table(
    boxes: list[list[float]], *, width: int = 200, height: int = 120, crowd: tuple[int, ...] = ()
) -> AnnotationTable:
    """Two images: an empty one, then one with ``boxes``."""
    xyxy = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    n = len(xyxy)
    return AnnotationTable(
        root=Path(),
        file_names=("empty.jpg", "full.jpg"),
        image_ids=np.asarray([1, 2]),
        sizes_wh=np.asarray([[50, 40], [width, height]], dtype=np.int32),
        offsets=np.asarray([0, 0, n]),
        boxes_xyxy=xyxy,
        labels=np.zeros(n, dtype=np.int32),
        flags=flags_where(np.isin(np.arange(n), crowd), ObjectFlag.CROWD),
        areas=np.prod(xyxy[:, 2:] - xyxy[:, :2], axis=1),
        annotation_ids=np.arange(n),
        class_names=("thing",),
        class_ids=np.asarray([1]),
    )


def make_chips(
    rows: list[tuple[int, int, float, int, int, list[int]]], kinds: list[ChipKind] | None = None
) -> ChipTable:
    """Chips of 64 px from (image, level, scale, x, y, object rows)."""
    k = len(rows)
    counts = [len(row[5]) for row in rows]
    return ChipTable(
        image_index=np.asarray([row[0] for row in rows], dtype=np.int32),
        level=np.asarray([row[1] for row in rows], dtype=np.int16),
        kind=np.asarray(kinds if kinds is not None else [ChipKind.POSITIVE] * k, dtype=np.int8),
        scale=np.asarray([row[2] for row in rows], dtype=np.float64),
        origin_xy=np.asarray([row[3:5] for row in rows], dtype=np.int32).reshape(-1, 2),
        size_wh=np.full((k, 2), 64, dtype=np.int32),
        valid_wh=np.full((k, 2), 64, dtype=np.int32),
        range_px=np.tile(np.asarray([0, np.inf], dtype=np.float32), (k, 1)),
        object_offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        object_rows=np.asarray([o for row in rows for o in row[5]], dtype=np.int64),
    )
