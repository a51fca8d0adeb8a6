"""The page of a check: what is wrong or suspicious in datasets, with pictures of the worst cases."""

import os
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sniper.checks.findings import Finding, Kind, Place
from sniper.checks.report import Checked, CheckReport
from sniper.data.table import AnnotationTable
from sniper.errors import DataError
from sniper.pixels.open import open_pixels
from sniper.pixels.sample_map import SampleMap
from sniper.pixels.windowed import close
from sniper.report.html import Number, Report
from sniper.report.layout import fit, framed, grid, heading, stack
from sniper.report.marks import draw_boxes
from sniper.report.palette import FALSE_POSITIVE, PAPER, Pixels

PICTURES = 4  # of a kind
PANEL_PX = 620
_LISTED = 12  # sentences of a kind
_MEANING = {
    Kind.UNREADABLE_ANNOTATIONS: "The dataset cannot be read. Nothing else was checked in it.",
    Kind.UNREADABLE_IMAGE: "The file is missing, cut off or no image. Training stops there, or skips it.",
    Kind.SIZE_DIFFERS: "The file is not as large as annotated, so that boxes may lie elsewhere.",
    Kind.IN_TWO_SPLITS: "What is learned from is also measured on, or nearly. Scores are then too good.",
    Kind.OUTSIDE: "Nothing of the box is in the image. Reading drops it.",
    Kind.BROKEN_BOX: "Reading drops the box. Was it an accident of drawing, or are corners swapped?",
    Kind.NOT_IN_PIXELS: "COCO boxes are x, y, width and height in pixels.",
    Kind.NO_OBJECTS: "There is nothing to learn from.",
    Kind.CLIPPED: "Reading clips the box to the image. Grey is outside the image.",
    Kind.TINY: "Such objects can hardly be seen. Each picture shows the surroundings of one.",
    Kind.HUGE: "The box encloses nearly the whole image. Is it meant?",
    Kind.DUPLICATE_BOX: "Two boxes lie on each other. A detector learns to find the object twice.",
    Kind.SAME_IMAGE: "Images that look the same weigh more in training, and frames of one film should not be divided.",
    Kind.CROWDED: "Inference keeps 300 detections of an image: set inference.merge.max_per_image and "
    "evaluation.max_detections.",
    Kind.RARE_CLASS: "A class with so few objects is hardly learned, and its score says little.",
    Kind.VALUE_RANGE: "The image is nearly black or of one colour. Were 12-bit values written to 16 bit, or 16 to 8?",
}


def check_page(report: CheckReport) -> Report:
    """The whole page; images are opened again for the pictures."""
    wrong = sum(finding.kind.is_wrong for finding in report.findings)
    lead = f"{wrong:,} things are wrong, {len(report.findings) - wrong:,} are suspicious." if report.findings else ""
    page = Report("Check of the data", lead or "Nothing is wrong or suspicious.")
    folder = _common_folder(report)
    if folder:
        page.paragraph(f"Names are below {folder}")
    tables = [checked.table for checked in report.datasets if checked.table is not None]
    page.numbers(
        [
            Number(f"{sum(map(len, tables)):,}", "images", "opened" if report.images_opened else "not opened"),
            Number(f"{sum(table.num_objects for table in tables):,}", "objects"),
            Number(f"{wrong:,}", "wrong"),
            Number(f"{len(report.findings) - wrong:,}", "suspicious"),
        ]
    )
    _datasets(page, report, folder)
    for row in report.rows():
        kind, found = row.kind, report.worst(row.kind)
        page.heading(f"{kind.value[0].upper()}{kind.value[1:]}: {len(found):,}")
        page.paragraph(("Wrong. " if kind.is_wrong else "Suspicious. ") + _MEANING[kind])
        sheet = _sheet(report, found)
        if sheet is not None:
            page.figure(f"{kind.value.replace(' ', '-')}.jpg", sheet, alt=f"Images with: {kind.value}", wide=True)
        _list(page, report, found, folder)
    return page


def _common_folder(report: CheckReport) -> str:
    """The folder of all datasets and images, with a slash at its end; empty where there is none."""
    places = [Path(checked.name.partition(" (")[0]).absolute() for checked in report.datasets]
    places += [Path(checked.table.root).absolute() for checked in report.datasets if checked.table is not None]
    try:
        common = Path(os.path.commonpath(places))
    except ValueError:
        return ""
    return f"{common if common.is_dir() else common.parent}/"


def _datasets(page: Report, report: CheckReport, folder: str) -> None:
    rows = []
    for name, table, _ in report.datasets:
        if table is not None:
            empty = int((np.diff(table.offsets) == 0).sum())
            rows.append(
                [
                    name.removeprefix(folder),
                    f"{len(table):,}",
                    f"{table.num_objects:,}",
                    f"{empty:,}",
                    len(table.class_names),
                ]
            )
    if rows:
        page.table(["dataset", "images", "objects", "images without objects", "classes"], rows)


def _list(page: Report, report: CheckReport, found: list[Finding], folder: str) -> None:
    rows = [
        [report.sentence(finding).replace(folder, "") if folder else report.sentence(finding)]
        for finding in found[:_LISTED]
    ]
    more = len(found) - len(rows)
    caption = f"The first {len(rows)}; {more:,} more are in check.json" if more else ""
    page.table(["where"], rows, caption=caption)


def _sheet(report: CheckReport, found: list[Finding]) -> Pixels | None:
    """Pictures of the worst cases in two columns; None where there is nothing to see."""
    parts: list[Pixels] = []
    for finding in found[: 4 * PICTURES]:  # where no image is there, not all are tried
        try:
            parts += _pictures(report, finding)
        except DataError:
            continue
        if len(parts) >= PICTURES:
            break
    return framed(grid(parts, 2, 16), 8) if parts else None


def _pictures(report: CheckReport, finding: Finding) -> list[Pixels]:
    """One picture of a finding, or both of a pair; none where it is of no image, or the image cannot be opened."""
    checked = report.datasets[finding.dataset]
    unseen = finding.kind in (Kind.UNREADABLE_IMAGE, Kind.SIZE_DIFFERS)
    if finding.image_row is None or unseen:
        return []
    if finding.twin is None:
        return [_panel(checked, finding.image_row, finding.detail, finding)]
    return [_of_pair(report, Place(finding.dataset, finding.image_row)), _of_pair(report, finding.twin)]


def _of_pair(report: CheckReport, place: Place) -> Pixels:
    checked = report.datasets[place.dataset]
    return _panel(checked, place.image_row, checked.name, None)


def _panel(checked: Checked, row: int, text: str, finding: Finding | None) -> Pixels:
    table = checked.table
    assert table is not None  # it has images
    boxes = np.zeros((0, 4)) if finding is None or finding.boxes_xyxy is None else finding.boxes_xyxy
    found = boxes[np.isfinite(boxes).all(axis=1)].astype(np.float64)
    low, high = np.minimum(found[:, :2], found[:, 2:]), np.maximum(found[:, :2], found[:, 2:])
    boxes = np.concatenate([low, high], axis=1, dtype=np.float64)
    width, height = table.sizes_wh[row].tolist()
    view = _view(finding.kind if finding is not None else None, boxes, width, height)
    shown, scale = fit(_crop(table, row, view, checked.sample_map), at_least=PANEL_PX, at_most=PANEL_PX)
    offset = np.array([view.x1, view.y1, view.x1, view.y1])
    if len(boxes):
        draw_boxes(shown, (boxes - offset) * scale, FALSE_POSITIVE, thickness=2)
    elif finding is not None and finding.kind is Kind.CROWDED:
        draw_boxes(shown, (table.boxes_xyxy[table.objects(row)] - offset) * scale, FALSE_POSITIVE, thickness=1)
    px = 19
    return stack([heading(shown.shape[1], Path(table.file_name(row)).name, text, px), shown])


class _View(NamedTuple):
    """What is shown of an image, original px; it may reach beyond it."""

    x1: int
    y1: int
    x2: int
    y2: int


def _view(kind: Kind | None, boxes: NDArray[np.float64], width: int, height: int) -> _View:
    if kind in (Kind.OUTSIDE, Kind.CLIPPED) and len(boxes):
        low = np.clip(boxes[:, :2].min(axis=0) - 8, [-width / 2, -height / 2], 0)
        high = np.clip(boxes[:, 2:].max(axis=0) + 8, [width, height], [1.5 * width, 1.5 * height])
        return _View(*np.floor(low).astype(int).tolist(), *np.ceil(high).astype(int).tolist())
    if kind in (Kind.TINY, Kind.DUPLICATE_BOX) and len(boxes):
        box = boxes[np.argmin((boxes[:, 2:] - boxes[:, :2]).min(axis=1))]
        middle, side = (box[:2] + box[2:]) / 2, max(96.0, 3 * float((box[2:] - box[:2]).max()))
        side = min(side, width, height)
        x, y = np.clip(middle - side / 2, 0, [width - side, height - side]).astype(int).tolist()
        return _View(x, y, x + int(side), y + int(side))
    return _View(0, 0, width, height)


def _crop(table: AnnotationTable, row: int, view: _View, sample_map: SampleMap) -> Pixels:
    """The pixels of a view, grey beyond the image.

    Raises:
        DataError: the image cannot be read.
    """
    width, height = table.sizes_wh[row].tolist()
    x1, y1, x2, y2 = max(view.x1, 0), max(view.y1, 0), min(view.x2, width), min(view.y2, height)
    source = open_pixels(table.image_path(row), whole_pixels=64e6, size_wh=(width, height), sample_map=sample_map)
    try:
        if isinstance(source, np.ndarray):
            inside = source[y1:y2, x1:x2]
        elif (x2 - x1) * (y2 - y1) <= 64e6:
            inside = source.read(x1, y1, x2, y2)
        else:
            raise DataError(f"{table.image_path(row)} is too large for a picture")
    finally:
        close(source)
    grey = tuple(value // 2 + 40 for value in PAPER)
    around = y1 - view.y1, view.y2 - y2, x1 - view.x1, view.x2 - x2
    return np.asarray(cv2.copyMakeBorder(inside, *around, cv2.BORDER_CONSTANT, value=grey), dtype=np.uint8)
