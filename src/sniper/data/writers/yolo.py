"""YOLO labels from an annotation table: one text file an image."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sniper.data.flags import ObjectFlag
from sniper.data.table import AnnotationTable
from sniper.data.writers.loss import lost_flags, lost_tables
from sniper.files import write_parts, write_text


def write_yolo(table: AnnotationTable, labels: Path | str, image_names: Sequence[str], *, masks: bool) -> list[str]:
    """Write a label file an image into the folder ``labels``; what it cannot hold, a line each.

    ``image_names`` (I,) are names below the folder of images. Lines are ``class cx cy w h`` in shares of the image, or
    with ``masks`` outlines ``class x y x y ...``: the longest ring of an object, the box of one without.
    Numbers have all digits, so that boxes are read back as they were.
    Crowd and group-of regions are left out: YOLO would learn each as an object.

    Raises:
        StorageError: they cannot be written.
    """
    outlines = masks and table.masks is not None
    kept = np.flatnonzero(~table.regions)
    images = table.image_rows_of_objects()
    size = np.tile(table.sizes_wh[images], 2).astype(np.float64)
    boxes = table.boxes_xyxy.astype(np.float64)
    shares = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1) / size
    lines: list[list[str]] = [[] for _ in range(len(table))]
    for row in kept.tolist():
        values = _outline(table, row) / size[row, :2] if outlines else shares[row]
        text = " ".join(np.char.mod("%.17g", values.ravel()).tolist())
        lines[images[row]].append(f"{table.labels[row]} {text}\n")
    names = (Path(name).with_suffix(".txt").as_posix() for name in image_names)
    write_parts(labels, zip(names, ("".join(written).encode() for written in lines), strict=True))
    lost = lost_flags(table, [flag for flag in ObjectFlag if flag not in (ObjectFlag.CROWD, ObjectFlag.GROUP_OF)])
    if len(kept) < table.num_objects:
        lost.append(f"{table.num_objects - len(kept)} crowd or group-of regions, which are left out")
    return [*lost, *_lost_masks(table, outlines), *lost_tables(table), "ids of images, objects and classes"]


def write_description(folder: Path | str, splits: Sequence[str], class_names: Sequence[str]) -> Path:
    """Write ``data.yaml`` beside ``images/<split>`` and ``labels/<split>``.

    Raises:
        StorageError: it cannot be written.
    """
    import yaml

    said = {split: f"images/{split}" for split in splits} | {"names": dict(enumerate(class_names))}
    write_text(Path(folder) / "data.yaml", yaml.safe_dump(said, sort_keys=False, allow_unicode=True))
    return Path(folder) / "data.yaml"


def _outline(table: AnnotationTable, row: int) -> np.ndarray:
    """(points, 2) xy of an object, original px: its ring with the most points, else its box."""
    assert table.masks is not None
    rings = table.masks.polygons(row)
    if rings:
        return max(rings, key=len).astype(np.float64)
    x1, y1, x2, y2 = table.boxes_xyxy[row].astype(np.float64)
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])


def _lost_masks(table: AnnotationTable, outlines: bool) -> list[str]:
    if table.masks is None:
        return []
    rings = np.diff(table.masks.ring_offsets)
    if not outlines:
        count = int((rings > 0).sum()) + len(table.masks.run_rows)
        return [f"masks of {count} objects (--masks writes outlines)"] if count else []
    several, runs = int((rings > 1).sum()), len(table.masks.run_rows)
    lines = [f"all but one outline of {several} objects in several pieces"] if several else []
    return lines + ([f"run-length masks of {runs} objects, of which the boxes are kept"] if runs else [])
