"""Pascal VOC from an annotation table: one XML file an image, and lists of splits."""

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from sniper.data.flags import ObjectFlag, any_flag
from sniper.data.table import AnnotationTable
from sniper.data.writers.loss import lost_flags, lost_tables
from sniper.files import write_parts, write_text

_MARKS = {"truncated": ObjectFlag.TRUNCATED, "occluded": ObjectFlag.OCCLUDED}
_DIFFICULT = int(ObjectFlag.DIFFICULT | ObjectFlag.CROWD | ObjectFlag.GROUP_OF)


def write_voc(table: AnnotationTable, folder: Path | str, image_names: Sequence[str], split: str) -> list[str]:
    """Write ``Annotations/*.xml`` and ``ImageSets/Main/<split>.txt``; what they cannot hold, a line each.

    ``image_names`` (I,) are names in ``JPEGImages``, each with a stem of its own. Corners are whole pixels that count
    from 1, both ends inclusive, as VOC's own. Crowd and group-of regions are marked difficult: neither learned nor
    counted as wrong.

    Raises:
        StorageError: they cannot be written.
    """
    corners = whole_corners(table)
    pages = (_page(table, row, name, corners) for row, name in enumerate(image_names))
    contents = (ElementTree.tostring(page, encoding="utf-8") for page in pages)
    files = ((f"{Path(name).stem}.xml", content) for name, content in zip(image_names, contents, strict=True))
    write_parts(Path(folder) / "Annotations", files)
    stems = "".join(f"{Path(name).stem}\n" for name in image_names)
    write_text(Path(folder) / "ImageSets" / "Main" / f"{split}.txt", stems)
    return [
        *_lost_boxes(table, corners),
        *_lost_marks(table),
        *lost_tables(table),
        "ids of images, objects and classes",
    ]


def whole_corners(table: AnnotationTable) -> NDArray[np.int64]:
    """(N, 4) half-open corners rounded to whole pixels, at least one pixel wide and high, inside the image."""
    size = table.sizes_wh[table.image_rows_of_objects()].astype(np.int64)
    low = np.minimum(np.round(table.boxes_xyxy[:, :2]).astype(np.int64), size - 1)
    high = np.maximum(np.round(table.boxes_xyxy[:, 2:]).astype(np.int64), low + 1)
    return np.concatenate([low, high], axis=1)


def _page(table: AnnotationTable, row: int, name: str, corners: NDArray[np.int64]) -> ElementTree.Element:
    page = ElementTree.Element("annotation")
    _add(page, "filename", name)
    size = ElementTree.SubElement(page, "size")
    for side, value in zip(("width", "height", "depth"), (*table.sizes_wh[row].tolist(), 3), strict=True):
        _add(size, side, value)
    objects = table.objects(row)
    flags = table.flags[objects].tolist()
    for label, mark, box in zip(table.labels[objects].tolist(), flags, corners[objects].tolist(), strict=True):
        item = ElementTree.SubElement(page, "object")
        _add(item, "name", table.class_names[label])
        _add(item, "difficult", int(bool(mark & _DIFFICULT)))
        for word, flag in _MARKS.items():
            _add(item, word, int(bool(mark & flag)))
        x1, y1, x2, y2 = box
        around = ElementTree.SubElement(item, "bndbox")
        for corner, value in zip(("xmin", "ymin", "xmax", "ymax"), (x1 + 1, y1 + 1, x2, y2), strict=True):
            _add(around, corner, value)
    ElementTree.indent(page)
    return page


def _add(parent: ElementTree.Element, name: str, value: object) -> None:
    ElementTree.SubElement(parent, name).text = str(value)


def _lost_boxes(table: AnnotationTable, corners: NDArray[np.int64]) -> list[str]:
    moved = np.abs(corners - table.boxes_xyxy).max(axis=1, initial=0)
    count = int((moved > 0).sum())
    lines = [f"fractions of a pixel of {count} boxes, up to {moved.max():.2g} px"] if count else []
    points = int((corners[:, 2:] - corners[:, :2] == 1).all(axis=1).sum())
    return lines + ([f"{points} boxes of a single pixel, which readers take for empty"] if points else [])


def _lost_marks(table: AnnotationTable) -> list[str]:
    regions = int(any_flag(table.flags, int(ObjectFlag.CROWD | ObjectFlag.GROUP_OF)).sum())
    lines = [f"that {regions} crowd or group-of regions are regions; they are marked difficult"] if regions else []
    if table.masks is not None:
        count = int((np.diff(table.masks.ring_offsets) > 0).sum()) + len(table.masks.run_rows)
        lines += [f"masks of {count} objects"] if count else []
    return lines + lost_flags(table, (ObjectFlag.DEPICTION, ObjectFlag.INSIDE))
