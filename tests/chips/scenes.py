"""Annotation tables made by hand, and what hypothesis draws them from."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from sniper.data.flags import ObjectFlag, flags_where
from sniper.data.table import AnnotationTable
from sniper.pyramid import Level, Pyramid

Box = tuple[float, float, float, float]


class Scene(NamedTuple):
    """One image: its size, its boxes, and which of them are crowd regions."""

    wh: tuple[int, int]
    boxes: Sequence[Box] = ()
    crowd: Sequence[bool] = ()


def table_of(*scenes: Scene) -> AnnotationTable:
    """A table of the scenes, ids from 1."""
    counts = [len(scene.boxes) for scene in scenes]
    boxes = np.asarray([box for scene in scenes for box in scene.boxes], np.float32).reshape(-1, 4)
    crowd = [c for scene in scenes for c in (scene.crowd or [False] * len(scene.boxes))]
    n = len(boxes)
    return AnnotationTable(
        root=Path(),
        file_names=tuple(f"{i}.jpg" for i in range(len(scenes))),
        image_ids=np.arange(1, len(scenes) + 1, dtype=np.int64),
        sizes_wh=np.asarray([scene.wh for scene in scenes], np.int32).reshape(-1, 2),
        offsets=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        boxes_xyxy=boxes,
        labels=np.zeros(n, np.int32),
        flags=flags_where(np.asarray(crowd, np.bool_), ObjectFlag.CROWD),
        areas=np.ones(n, np.float32),
        annotation_ids=np.arange(1, n + 1, dtype=np.int64),
        class_names=("thing",),
        class_ids=np.asarray([1], np.int64),
    )


COCO = Pyramid(
    levels=(
        Level(scale=3.0, train_range_px=(0, 80)),
        Level(scale=1.667, train_range_px=(32, 150)),
        Level(long_px=512, train_range_px=(120, None)),
    )
)
SMALL = Pyramid(
    levels=(
        Level(scale=1.3, train_range_px=(0, 40)),
        Level(short_px=90, long_px=150, train_range_px=(20, 90)),
        Level(long_px=64, train_range_px=(30, None)),
    ),
    chip_px=64,
)


@st.composite
def scenes(draw: st.DrawFn, max_boxes: int = 12) -> Scene:
    """Images from 1 to 300 px a side, with boxes of any size inside, crowd regions among them."""
    width, height = draw(st.integers(1, 300)), draw(st.integers(1, 300))
    boxes, crowd = [], []
    for _ in range(draw(st.integers(0, max_boxes))):
        x1, y1 = (draw(st.floats(0, side * 0.875, width=32)) for side in (width, height))
        w, h = (draw(st.floats(0.5, side, width=32)) for side in (width, height))
        box = np.asarray([x1, y1, min(x1 + w, width), min(y1 + h, height)], np.float32)
        if box[2] > box[0] and box[3] > box[1]:
            boxes.append(tuple(box.tolist()))
            crowd.append(draw(st.booleans()) and draw(st.booleans()))
    return Scene((width, height), boxes, crowd)
