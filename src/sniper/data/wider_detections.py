"""Detections in WIDER FACE's official layout: for each image a text file ``<event>/<image>.txt``.

Its first line is the name of the image, the second the number of detections; then a line each: x, y, width, height and
score, best first.
"""

from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sniper.boxes import xyxy_to_xywh
from sniper.data.detections import DetectionTable
from sniper.data.table import AnnotationTable
from sniper.data.wider_faces import image_key
from sniper.errors import DataError
from sniper.files import write_text

_COLUMNS = 5


def faces_of(table: AnnotationTable, detections: DetectionTable) -> DetectionTable:
    """The detections of the class ``face``, or all where there is only one class, of label 0.

    Raises:
        DataError: none of several classes is called so.
    """
    names = [name.lower() for name in table.class_names]
    if len(names) <= 1:
        return detections
    if "face" not in names:
        given = ", ".join(names[:20])
        raise DataError(f"the protocol wider measures the class face, and the classes are {given}; name one so")
    kept = np.flatnonzero(detections.labels == names.index("face"))
    image = np.repeat(np.arange(len(detections)), np.diff(detections.offsets))[kept]
    columns = detections.boxes_xyxy[kept], detections.scores[kept], np.zeros(len(kept), np.int32)
    return DetectionTable.from_arrays(image, *columns, detections.levels[kept], detections.image_ids)


def write_wider_detections(folder: Path | str, table: AnnotationTable, detections: DetectionTable) -> None:
    """One file for each image that ``detections`` lists, those without a detected face included.

    Boxes are rounded to 0.001 px; scores are written so that they are read as they were.

    Raises:
        DataError: as ``faces_of``.
        StorageError: a file cannot be written.
    """
    detections = faces_of(table, detections)
    row_of = {image_id: row for row, image_id in enumerate(table.image_ids.tolist())}
    for place, image_id in enumerate(detections.image_ids.tolist()):
        key = image_key(table.file_name(row_of[image_id]))
        own = detections.objects(place)
        order = own.start + np.argsort(-detections.scores[own], kind="stable")
        boxes = np.round(xyxy_to_xywh(detections.boxes_xyxy[order].astype(np.float64)), 3)
        lines = [
            f"{' '.join(f'{number:g}' if number == int(number) else f'{number:.3f}' for number in box)} {score:.9g}"
            for box, score in zip(boxes.tolist(), detections.scores[order].tolist(), strict=True)
        ]
        write_text(Path(folder) / f"{key}.txt", "\n".join([key.rpartition("/")[2], str(len(lines)), *lines]) + "\n")


def read_wider_detections(folder: Path | str, table: AnnotationTable) -> DetectionTable:
    """The detections of the images of ``table``; an image without a file has none.

    Raises:
        DataError: there is no file of any image, or one is not of this form; its line is named.
    """
    place = Path(folder)
    there = {image_key(f"{file.parent.name}/{file.stem}"): file for file in sorted(place.rglob("*.txt"))}
    image, found = [], []
    for row, name in enumerate(table.file_names):
        file = there.get(image_key(name))
        if file is not None:
            found.append(_read(file))
            image.append(np.full(len(found[-1]), row))
    if not found:
        raise DataError(
            f"{place} has detections of none of the images of {table.root}; expected files such as "
            f"{image_key(table.file_name(0))}.txt"
        )
    numbers = np.concatenate(found)
    boxes, scores = numbers[:, :4].copy(), numbers[:, 4]
    boxes[:, 2:] += boxes[:, :2]
    rows = np.concatenate(image)
    return DetectionTable.from_arrays(rows, boxes, scores, np.zeros(len(rows), np.int32), None, table.image_ids)


def _read(file: Path) -> NDArray[np.float64]:
    """(N, 5) x, y, width, height and score."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file}: {error}; expected detections in WIDER FACE's layout") from error
    while lines and not lines[-1].strip():
        lines.pop()
    said, below = lines[1].strip() if len(lines) > 1 else "the end of the file", max(len(lines) - 2, 0)
    if said != str(below):
        raise DataError(f"{file}, line 2: expected the number of detections, {below} lines below, got {said[:80]!r}")
    rows = [line.split() for line in lines[2:]]
    wrong = next((row for row, texts in enumerate(rows) if len(texts) != _COLUMNS), None)
    if wrong is None:
        try:
            return np.fromiter(map(float, chain.from_iterable(rows)), np.float64).reshape(-1, _COLUMNS)
        except ValueError:
            wrong = next(row for row, texts in enumerate(rows) if not all(map(_is_number, texts)))
    got = repr(lines[wrong + 2][:80])
    raise DataError(f"{file}, line {wrong + 3}: expected x, y, width, height and score, got {got}; correct the line")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
