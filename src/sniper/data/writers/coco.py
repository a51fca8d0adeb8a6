"""COCO JSON from an annotation table."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from sniper.data.flags import ObjectFlag, any_flag
from sniper.data.table import AnnotationTable
from sniper.data.writers.loss import lost_flags, lost_tables
from sniper.files import replacing


def write_coco(table: AnnotationTable, path: Path | str, file_names: Sequence[str]) -> list[str]:
    """Write a COCO file with polygons and run lengths, and the table's ids; what it cannot hold, a line each.

    ``file_names`` (I,) are written for the images, relative to the file or absolute.

    Raises:
        StorageError: it cannot be written.
    """
    categories = [
        {"id": int(number), "name": name} for number, name in zip(table.class_ids, table.class_names, strict=True)
    ]
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write('{"images": ')
        _write_list(file, _images(table, file_names))
        file.write(', "annotations": ')
        _write_list(file, _annotations(table))
        file.write(f', "categories": {json.dumps(categories, ensure_ascii=False)}}}\n')
    others = [flag for flag in ObjectFlag if flag is not ObjectFlag.CROWD]
    return lost_flags(table, others) + lost_tables(table)


def _write_list(file: IO[str], entries: Iterator[dict[str, Any]]) -> None:
    file.write("[")
    for number, entry in enumerate(entries):
        file.write(",\n" if number else "\n")
        file.write(json.dumps(entry, ensure_ascii=False))
    file.write("]")


def _images(table: AnnotationTable, file_names: Sequence[str]) -> Iterator[dict[str, Any]]:
    rows = zip(table.image_ids.tolist(), file_names, table.sizes_wh.tolist(), strict=True)
    for number, name, (width, height) in rows:
        yield {"id": number, "file_name": name, "width": width, "height": height}


def _annotations(table: AnnotationTable) -> Iterator[dict[str, Any]]:
    corners = table.boxes_xyxy.astype(np.float64)
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    columns = (
        table.annotation_ids.tolist(),
        table.image_ids[table.image_rows_of_objects()].tolist(),
        table.class_ids[table.labels].tolist(),
        boxes.tolist(),
        table.areas.tolist(),
        any_flag(table.flags, int(ObjectFlag.CROWD)).astype(int).tolist(),
    )
    for row, (number, image, category, box, area, crowd) in enumerate(zip(*columns, strict=True)):
        entry = {"id": number, "image_id": image, "category_id": category, "bbox": box, "area": area, "iscrowd": crowd}
        if table.masks is not None:
            rings = [ring.ravel().tolist() for ring in table.masks.polygons(row)]
            entry["segmentation"] = table.masks.run_length(row) or rings
        yield entry


def relative_names(table: AnnotationTable, folder: Path) -> list[str]:
    """(I,) names of the image files from ``folder``; absolute where there is no way from it (another drive)."""
    root, start = Path(table.root).resolve(), folder.resolve()
    try:
        way = Path(os.path.relpath(root, start))
    except ValueError:
        way = root
    return [(way / name).as_posix() for name in table.file_names]  # one that is absolute stays so
