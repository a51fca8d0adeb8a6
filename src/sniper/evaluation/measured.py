"""What a protocol measures: the images that detections list, with their objects, or one sentence that says why not."""

import numpy as np
from numpy.typing import NDArray

from sniper.data.detections import DetectionTable
from sniper.data.table import AnnotationTable
from sniper.errors import DataError


def measured_rows(table: AnnotationTable, detections: DetectionTable) -> NDArray[np.int64]:
    """(I,) row of the table for each image of the detections.

    Raises:
        DataError: an image id that the table does not have or that comes twice, a label without a class, or a number
            that is not finite.
    """
    rows = _rows_of_images(table, detections)
    if len(detections.labels) and not 0 <= detections.labels.min() <= detections.labels.max() < len(table.class_names):
        raise DataError(
            f"detections carry labels {detections.labels.min()} to {detections.labels.max()}, but the dataset has "
            f"{len(table.class_names)} classes; evaluate with the classes that the detector was trained on"
        )
    finite = np.isfinite(detections.scores) & np.isfinite(detections.boxes_xyxy).all(axis=1)
    if not finite.all():
        image_id = int(np.repeat(detections.image_ids, np.diff(detections.offsets))[~finite][0])
        raise DataError(
            f"image {image_id}: a detection has a box or score that is NaN or infinite; drop such detections"
        )
    return rows


def _rows_of_images(table: AnnotationTable, detections: DetectionTable) -> NDArray[np.int64]:
    ids = detections.image_ids
    order = np.argsort(table.image_ids)
    place = np.searchsorted(table.image_ids, ids, sorter=order).clip(max=max(len(table) - 1, 0))
    known = table.image_ids[order[place]] == ids if len(table) else np.zeros(len(ids), dtype=bool)
    if not known.all():
        raise DataError(
            f"detections name image id {ids[~known][0]}, which the dataset does not have; "
            "evaluate on the dataset that they were made on"
        )
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) != len(ids):
        raise DataError(f"detections list image id {unique[counts > 1][0]} more than once; list each image once")
    return np.asarray(order[place] if len(ids) else np.zeros(0, dtype=np.int64))
