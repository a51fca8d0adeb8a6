"""What annotations alone tell: boxes, classes and crowds, over all images at once; no image is opened."""

import numpy as np
from numpy.typing import NDArray

from sniper.boxes import area
from sniper.checks.config import CheckConfig
from sniper.checks.doubles import double_boxes
from sniper.checks.findings import Boxes, Finding, Kind, by_image
from sniper.data.repairs import Repair
from sniper.data.table import AnnotationTable

_SHARES_OF_ALL = 0.5  # boxes that lie within one pixel, from which on the file is taken for one of shares


def check_annotations(table: AnnotationTable, dataset: int, config: CheckConfig) -> list[Finding]:
    """What is wrong or suspicious in the boxes and classes of a dataset, number ``dataset`` of those checked."""
    if not table.num_objects and (table.repairs is None or not len(table.repairs)):
        return [Finding(Kind.NO_OBJECTS, dataset, f"none of the {len(table)} images has an object")]
    return [
        *_repaired(table, dataset),
        *_sizes(table, dataset, config),
        *_doubles(table, dataset, config),
        *_crowds(table, dataset, config),
        *_classes(table, dataset, config),
    ]


def duplicates(table: AnnotationTable, min_iou: float) -> NDArray[np.int64]:
    """Rows of objects that another object of the same image and class, earlier in the file, covers (for a repair)."""
    twins = double_boxes(table, min_iou)
    rows = np.flatnonzero(twins >= 0)
    return rows[table.labels[rows] == table.labels[twins[rows]]]


def _repaired(table: AnnotationTable, dataset: int) -> list[Finding]:
    """Boxes that reading clipped or dropped."""
    repairs = table.repairs
    if repairs is None or not len(repairs):
        return []
    order = np.argsort(repairs.image_rows, kind="stable")
    rows, boxes = repairs.image_rows[order], repairs.boxes_xyxy[order]
    limit = np.tile(table.sizes_wh[rows], 2)
    over = np.nan_to_num(np.maximum(-boxes, boxes - limit).max(axis=1, initial=0), nan=np.inf)
    reasons, ids = repairs.reasons[order], repairs.annotation_ids[order]

    def of(*wanted: Repair) -> Boxes:
        chosen = np.isin(reasons, wanted)
        return Boxes(rows[chosen], ids[chosen], boxes[chosen], over[chosen])

    broken = of(Repair.NOT_FINITE, Repair.INVERTED, Repair.EMPTY)
    counts = np.bincount(reasons, minlength=len(Repair))
    named = {"not finite": Repair.NOT_FINITE, "inverted": Repair.INVERTED, "empty": Repair.EMPTY}
    what = ", ".join(f"{counts[reason]} {word}" for word, reason in named.items() if counts[reason])
    return [
        *by_image(
            Kind.OUTSIDE, dataset, of(Repair.OUTSIDE),
            "a box outside the image", "{count} boxes outside the image", ", by up to {worst:.0f} px",
        ),
        *by_image(
            Kind.BROKEN_BOX, dataset, broken._replace(badness=np.zeros(len(broken.image_rows))),
            "a box without an area or that is not finite", "{count} boxes without an area or that are not finite",
            f" (in all: {what})",
        ),
        *by_image(
            Kind.CLIPPED, dataset, of(Repair.CLIPPED),
            "a box reaches over the edge", "{count} boxes reach over the edge", ", by up to {worst:.0f} px",
        ),
    ]  # fmt: skip


def _sizes(table: AnnotationTable, dataset: int, config: CheckConfig) -> list[Finding]:
    boxes, images = table.boxes_xyxy, table.image_rows_of_objects()
    sides = boxes[:, 2:] - boxes[:, :2]
    shorter = sides.min(axis=1, initial=np.inf)
    shares = area(boxes) / table.sizes_wh[images].astype(np.float64).prod(axis=1)
    found = []
    if table.num_objects and (boxes.max(axis=1) <= 1).mean() > _SHARES_OF_ALL:
        text = "most boxes lie within one pixel: they may be in shares of the image; write them in pixels"
        found.append(Finding(Kind.NOT_IN_PIXELS, dataset, text))

    def where(chosen: NDArray[np.bool_], badness: NDArray[np.floating]) -> Boxes:
        return Boxes(images[chosen], table.annotation_ids[chosen], boxes[chosen], badness[chosen])

    tiny = where((shorter < config.tiny_px) & ~table.ignored, -shorter)
    huge = where((shares >= config.huge_share) & ~table.ignored, 100 * shares)
    found += by_image(
        Kind.TINY, dataset, tiny, "a tiny box", "{count} tiny boxes", ", shortest side {worst:.1f} px"
    )  # fmt: skip
    return found + by_image(
        Kind.HUGE, dataset, huge, "a box", "{count} boxes", " of {worst:.0f} % of the image"
    )  # fmt: skip


def _doubles(table: AnnotationTable, dataset: int, config: CheckConfig) -> list[Finding]:
    twins = double_boxes(table, config.duplicate_iou)
    rows = np.flatnonzero(twins >= 0)
    other = rows[table.labels[rows] != table.labels[twins[rows]]]
    same = np.setdiff1d(rows, other)
    images = table.image_rows_of_objects()

    def of(chosen: NDArray[np.int64]) -> Boxes:
        ids, boxes = table.annotation_ids[chosen], table.boxes_xyxy[chosen]
        per_image = np.bincount(images[chosen], minlength=len(table))
        return Boxes(images[chosen], ids, boxes, per_image[images[chosen]].astype(np.float64))

    return [
        *by_image(Kind.DUPLICATE_BOX, dataset, of(same), "an object drawn twice", "{count} objects drawn twice", ""),
        *by_image(
            Kind.DUPLICATE_BOX, dataset, of(other),
            "an object drawn as two classes", "{count} objects drawn as two classes", "",
        ),
    ]  # fmt: skip


def _crowds(table: AnnotationTable, dataset: int, config: CheckConfig) -> list[Finding]:
    counts = np.diff(table.offsets)
    return [
        Finding(Kind.CROWDED, dataset, f"{counts[row]} objects", row, badness=float(counts[row]))
        for row in np.flatnonzero(counts > config.crowded).tolist()
    ]


def _classes(table: AnnotationTable, dataset: int, config: CheckConfig) -> list[Finding]:
    counts = np.bincount(table.labels[~table.ignored], minlength=len(table.class_names))
    return [
        Finding(
            Kind.RARE_CLASS,
            dataset,
            f"class {name} has {count} {'object' if count == 1 else 'objects'}",
            badness=-float(count),
        )
        for name, count in zip(table.class_names, counts.tolist(), strict=True)
        if count < config.min_objects
    ]
