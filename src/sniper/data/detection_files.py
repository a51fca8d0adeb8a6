"""Detection tables as files: safetensors of our own, and proposals from elsewhere as COCO results."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from sniper.data.columns import PackedStrings, ragged_rows
from sniper.data.detections import DetectionTable
from sniper.data.run_lengths import RunLengths
from sniper.data.table import AnnotationTable
from sniper.data.wider_detections import read_wider_detections
from sniper.errors import DataError, StorageError
from sniper.files import existing, replacing

_HEADER = "sniper detections"
_COLUMNS: dict[str, type] = {
    "image_ids": np.int64,
    "offsets": np.int64,
    "boxes_xyxy": np.float32,
    "scores": np.float32,
    "labels": np.int32,
    "levels": np.int16,
}
_MASKS: dict[str, type] = {"masks.blob": np.uint8, "masks.offsets": np.int64, "masks.sizes_hw": np.int32}


def save_detections(path: Path | str, detections: DetectionTable, details: Mapping[str, Any] | None = None) -> None:
    """Write a detection table as safetensors, completely or not at all; ``details`` are plain values for its header.

    Masks are written too, if there are any.

    Raises:
        StorageError: the file cannot be written.
    """
    columns = {name: np.ascontiguousarray(getattr(detections, name)) for name in _COLUMNS}
    if detections.masks is not None:
        runs = detections.masks.counts
        masks = (runs.blob, runs.offsets, detections.masks.sizes_hw)
        columns |= {name: np.ascontiguousarray(column) for name, column in zip(_MASKS, masks, strict=True)}
    with replacing(path) as partial:
        try:
            save_file(columns, partial, metadata={_HEADER: json.dumps(dict(details or {}))})
        except SafetensorError as error:
            raise StorageError(f"cannot write {path}: {error}; free space or choose another folder") from error


def load_detections(path: Path | str) -> DetectionTable:
    """A table that ``save_detections`` wrote.

    Raises:
        DataError: the file is missing, damaged, or something else.
    """
    _read_details(path)
    try:
        with safe_open(path, framework="np") as file:
            columns: dict[str, Any] = {name: file.get_tensor(name) for name in _COLUMNS}
            masked = set(_MASKS) <= set(file.keys())
            masks = [file.get_tensor(name) for name in _MASKS] if masked else None
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is damaged ({error}); write it anew with sniper propose") from error
    if any(columns[name].dtype != kind for name, kind in _COLUMNS.items()):
        raise DataError(f"{path} has columns of other types than a detection table; write it anew with sniper propose")
    if masks is not None:
        columns["masks"] = RunLengths(PackedStrings(masks[0], masks[1]), masks[2])
    return DetectionTable(**columns)


def read_details(path: Path | str) -> dict[str, Any] | None:
    """What the header of a detection file says, without its boxes; None if there is no such file or no complete one."""
    try:
        return _read_details(path)
    except DataError:
        return None


def _read_details(path: Path | str) -> dict[str, Any]:
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file; give proposals from sniper propose, or a COCO results JSON")
    try:
        with safe_open(path, framework="np") as file:
            header = (file.metadata() or {}).get(_HEADER)
            missing = set(_COLUMNS) - set(file.keys())
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is no detection table ({error}); write it anew with sniper propose") from error
    if header is None or missing:
        raise DataError(f"{path} is no detection table of sniper; give proposals from sniper propose, not weights")
    details: dict[str, Any] = json.loads(header)
    return details


def join_detections(parts: Sequence[DetectionTable]) -> DetectionTable:
    """The images of several tables, one after the other; at least one table."""
    counts = np.concatenate([np.diff(part.offsets) for part in parts])
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS if name != "offsets"
    }
    masks = [part.masks for part in parts if part.masks is not None]
    if masks and all(part.masks is not None for part in parts if len(part)):
        columns["masks"] = RunLengths.join(masks)
    return DetectionTable(offsets=np.concatenate(([0], np.cumsum(counts))).astype(np.int64), **columns)


def for_images(detections: DetectionTable, table: AnnotationTable, place: Path | str) -> DetectionTable:
    """The detections of the images of ``table``, in its order; an image that they do not list has none.

    Raises:
        DataError: not a single image is the same; ``place`` names the file.
    """
    if np.array_equal(detections.image_ids, table.image_ids):
        return detections
    order = np.argsort(detections.image_ids, kind="stable")
    last = max(len(order) - 1, 0)
    spot = np.searchsorted(detections.image_ids, table.image_ids, sorter=order).clip(max=last)
    known = detections.image_ids[order[spot]] == table.image_ids if len(order) else np.zeros(len(table), np.bool_)
    if len(table) and not known.any():
        raise DataError(f"{place} has boxes of none of the images of {table.root}; give those of this dataset")
    rows, found = ragged_rows(detections.offsets, order[spot[known]] if len(order) else np.zeros(0, np.int64))
    counts = np.zeros(len(table), np.int64)
    counts[known] = np.diff(found)
    return DetectionTable(
        image_ids=table.image_ids,
        offsets=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        boxes_xyxy=detections.boxes_xyxy[rows],
        scores=detections.scores[rows],
        labels=detections.labels[rows],
        levels=detections.levels[rows],
    )


class _Box(msgspec.Struct, gc=False):
    image_id: int
    bbox: tuple[float, float, float, float]
    score: float = 1.0
    category_id: int | None = None


def read_detections(path: Path | str, table: AnnotationTable) -> DetectionTable:
    """Detections of any tool for the images of ``table``, boxes without masks; an image that is not named has none.

    ``path`` is a COCO results JSON, whose categories are ``table.class_ids``, a folder in WIDER FACE's layout, or a
    detection table that ``save_detections`` wrote.

    Raises:
        DataError: it cannot be read, is of no such form, or names a category that the dataset does not have, or none of
            its images.
    """
    place = existing(path, "give COCO results, a folder in WIDER FACE's layout, or a detection table")
    if place.is_dir():
        return read_wider_detections(place, table)
    if place.suffix.lower() != ".json":
        return for_images(load_detections(place), table, place)
    results = _read_results(place)
    order = np.argsort(table.class_ids)
    given = np.array([-1 if r.category_id is None else r.category_id for r in results], np.int64)
    spot = np.searchsorted(table.class_ids, given, sorter=order).clip(max=len(order) - 1)
    wrong = np.flatnonzero(table.class_ids[order[spot]] != given)
    if len(wrong):
        first = results[wrong[0]].category_id
        raise DataError(
            f"{place}: entry {wrong[0] + 1} has category_id {first}, and those of the dataset are "
            f"{', '.join(map(str, table.class_ids[:20].tolist()))}; give results for this dataset"
        )
    return for_images(_table_of(results, order[spot].astype(np.int32)), table, place)


def read_proposals(path: Path | str, table: AnnotationTable) -> DetectionTable:
    """Class-free boxes for the images of ``table``: of ``sniper propose``, or of any tool as COCO results JSON.

    Classes in the file do not matter, nor do images that the table does not have.

    Raises:
        DataError: the file cannot be read, is of neither form, or has none of the images.
    """
    if Path(path).suffix.lower() != ".json":
        return for_images(load_detections(path), table, path)
    results = _read_results(path)
    return for_images(_table_of(results, np.zeros(len(results), np.int32)), table, path)


def _read_results(path: Path | str) -> list[_Box]:
    try:
        return msgspec.json.decode(Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf"), type=list[_Box])
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; give the path of a COCO results file") from error
    except msgspec.MsgspecError as error:
        raise DataError(f"{path} is not a COCO results file: {error}; write it anew") from error


def _table_of(results: Sequence[_Box], labels: NDArray[np.int32]) -> DetectionTable:
    ids, rows = np.unique(np.array([r.image_id for r in results], np.int64), return_inverse=True)
    boxes = np.array([r.bbox for r in results], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    scores = np.array([r.score for r in results], np.float64)
    return DetectionTable.from_arrays(rows, boxes, scores, labels, None, ids)
