"""From the rows of any annotation format to a table that keeps its promises: repaired, sorted, counted."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sniper.data.columns import MaskBuilder
from sniper.data.image_labels import ImageLabels
from sniper.data.repairs import Repair, Repairs
from sniper.data.table import AnnotationTable
from sniper.errors import DataError

logger = logging.getLogger("sniper")

_ROUNDING_PX = 0.1  # boxes that leave the image by less are clipped without a word


@dataclass(frozen=True, slots=True)
class ObjectRows:
    """M objects in the order of the files, before any check."""

    image_row: NDArray[np.int64]  # (M,)
    boxes_xyxy: NDArray[np.float64]  # (M, 4) original px; anything, NaN included
    labels: NDArray[np.int32]  # (M,)
    flags: NDArray[np.uint8] | None = None  # (M,) bits of ObjectFlag; None: none
    areas: NDArray[np.float64] | None = None  # (M,) square px, NaN: that of the box; None: all that of the box
    ids: NDArray[np.int64] | None = None  # (M,); None: 1..M


def build_table(
    objects: ObjectRows,
    *,
    source: Path | str,
    root: Path,
    file_names: Sequence[str],
    image_ids: NDArray[np.int64] | None,
    sizes_wh: NDArray[np.integer],
    class_names: Sequence[str],
    class_ids: NDArray[np.int64] | None = None,
    add_mask: Callable[[int, MaskBuilder], None] | None = None,
    image_labels: ImageLabels | None = None,
    class_ancestors: NDArray[np.int32] | None = None,
    unreadable: Sequence[DataError] = (),
) -> AnnotationTable:
    """Repair, sort by image and check; ``source`` is what messages call the dataset.

    Boxes that reach over the image are clipped; boxes that are not finite, inverted, empty or outside are
    dropped; repeated annotation ids are numbered anew. All of it is one warning with counts. ``add_mask(m,
    builder)`` adds the mask of object ``m``, and is called once for each kept object in the table's order. Ids of
    images and classes count from 1 and 0 where there are none. ``image_labels`` and ``class_ancestors`` are taken as
    they are, in the order of the given images and classes. ``unreadable`` are the errors of images that were left out.

    Raises:
        DataError: no images, an image without a size, or an image id twice.
    """
    sizes = np.asarray(sizes_wh, np.int32).reshape(-1, 2)
    images = np.arange(1, len(sizes) + 1, dtype=np.int64) if image_ids is None else np.asarray(image_ids, np.int64)
    check_images(source, file_names, images, sizes)
    repaired = _repair(objects.boxes_xyxy, sizes[objects.image_row])
    kept = np.flatnonzero(repaired.kept)
    order = kept[np.argsort(objects.image_row[kept], kind="stable")]
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(np.bincount(objects.image_row[order], minlength=len(sizes)), out=offsets[1:])
    boxes = repaired.boxes_xyxy[order]
    ids, renumbered = _unique_ids(objects.ids, len(objects.labels))
    counts = {**repaired.counts, "repeated annotation ids numbered anew": renumbered}
    masks = None
    if add_mask is not None:
        builder = MaskBuilder()
        for row in order.tolist():
            add_mask(row, builder)
        masks = builder.build()
        counts["polygons that are not a list of three points or more dropped"] = builder.dropped
    said = "; ".join(f"{what}: {count}" for what, count in counts.items() if count)
    if said:
        logger.warning("%s, %d boxes: %s", source, len(objects.labels), said)
    return AnnotationTable(
        root=root,
        file_names=file_names,
        image_ids=images,
        sizes_wh=sizes,
        offsets=offsets,
        boxes_xyxy=boxes,
        labels=objects.labels[order].astype(np.int32),
        flags=np.zeros(len(order), np.uint8) if objects.flags is None else objects.flags[order].astype(np.uint8),
        areas=_areas(None if objects.areas is None else objects.areas[order], boxes),
        annotation_ids=ids[order],
        class_names=tuple(class_names),
        class_ids=np.arange(len(class_names), dtype=np.int64) if class_ids is None else class_ids,
        masks=masks,
        image_labels=image_labels,
        class_ancestors=class_ancestors,
        repairs=replace(_record(objects, repaired, ids), unreadable=tuple(unreadable)),
    )


def _record(objects: ObjectRows, repaired: "_Repaired", ids: NDArray[np.int64]) -> Repairs:
    """What was clipped or dropped, as it was written."""
    rows = np.flatnonzero(repaired.reasons >= 0)
    return Repairs(
        repaired.reasons[rows].astype(np.uint8),
        objects.image_row[rows],
        objects.boxes_xyxy[rows],
        objects.labels[rows].astype(np.int32),
        ids[rows],
    )


def check_images(source: Path | str, names: Sequence[str], ids: NDArray[np.int64], sizes: NDArray[np.integer]) -> None:
    """Refuse a dataset without images, an image without a size, and an image id given twice.

    Raises:
        DataError: one of these, naming the dataset and the image.
    """
    if not len(sizes):
        raise DataError(f"{source} has no images; give a dataset with at least one")
    flat = np.flatnonzero((sizes < 1).any(axis=1))
    if len(flat):
        row = int(flat[0])
        width, height = sizes[row].tolist()
        raise DataError(f"{source}: image {ids[row]} ({names[row]}) has size {width}x{height}; give its size in pixels")
    order = np.argsort(ids, kind="stable")
    twice = np.flatnonzero(np.diff(ids[order]) == 0)
    if len(twice):
        first, second = order[twice[0]], order[twice[0] + 1]
        raise DataError(
            f"{source}: image id {ids[first]} is given to {names[first]} and to {names[second]}; "
            "give every image an id of its own"
        )


@dataclass(frozen=True, slots=True)
class _Repaired:
    boxes_xyxy: NDArray[np.float32]  # (M, 4)
    kept: NDArray[np.bool_]  # (M,)
    reasons: NDArray[np.int8]  # (M,) a Repair, or -1: as written
    counts: dict[str, int]


def _repair(boxes: NDArray[np.float64], sizes_wh: NDArray[np.int32]) -> _Repaired:
    finite: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(boxes), axis=1)
    boxes = np.where(finite[:, None], boxes, 0)
    extent = boxes[:, 2:] - boxes[:, :2]
    inverted = finite & (extent < 0).any(axis=1)
    empty = finite & ~inverted & (extent == 0).any(axis=1)
    limit = np.concatenate([sizes_wh, sizes_wh], axis=1)
    inside = np.clip(boxes, 0, limit).astype(np.float32)
    real = (inside[:, :2] < inside[:, 2:]).all(axis=1)
    sound = finite & ~inverted & ~empty
    clipped = sound & real & (np.abs(inside - boxes) > _ROUNDING_PX).any(axis=1)
    causes = {  # each box has one at most
        Repair.CLIPPED: ("boxes clipped to the image", clipped),
        Repair.NOT_FINITE: ("boxes that are not finite dropped", ~finite),
        Repair.INVERTED: ("inverted boxes dropped", inverted),
        Repair.EMPTY: ("empty boxes dropped", empty),
        Repair.OUTSIDE: ("boxes outside the image dropped", sound & ~real),
    }
    reasons = np.full(len(boxes), -1, np.int8)
    for repair, (_, rows) in causes.items():
        reasons[rows] = repair
    counts = {what: int(rows.sum()) for what, rows in causes.values()}
    return _Repaired(inside, sound & real, reasons, counts)


def _unique_ids(ids: NDArray[np.int64] | None, count: int) -> tuple[NDArray[np.int64], int]:
    """Ids in which each is used once, and how many had to change; the first holder keeps its id."""
    if ids is None:
        return np.arange(1, count + 1, dtype=np.int64), 0
    order = np.argsort(ids, kind="stable")
    again = order[1:][np.diff(ids[order]) == 0]
    if not len(again):
        return ids, 0
    fresh = ids.copy()
    fresh[np.sort(again)] = ids.max() + 1 + np.arange(len(again))
    return fresh, len(again)


def _areas(given: NDArray[np.float64] | None, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    own = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    if given is None:
        return own
    return np.where(np.isfinite(given) & (given >= 0), given, own).astype(np.float32)
