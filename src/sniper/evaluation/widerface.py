"""WIDER FACE: AP of easy, medium and hard faces of the validation part, as the official MATLAB tool measures it.

Faces and the lists of those that count are taken from the published files, not from the annotation table. Each
detection goes to the face that it overlaps most, corners counted as pixels inside. A face that does not count takes
its detections out. Scores are normalised over the dataset, and precision and recall are read at 1,000 thresholds.
``docs/method.md``, "Protocols".
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.data.columns import ragged_rows
from sniper.data.detections import DetectionTable
from sniper.data.table import AnnotationTable
from sniper.data.wider_detections import faces_of
from sniper.data.wider_faces import SUBSETS, image_key, read_faces, read_subset
from sniper.errors import DataError
from sniper.evaluation.average_precision import area_under
from sniper.evaluation.best_overlap import Objects, best_overlaps, first_of_each
from sniper.evaluation.measured import measured_rows
from sniper.evaluation.protocol import Curve, Score, ScoreTable, split_numbers

MIN_IOU = 0.5
_THRESHOLDS = 1000
_FACES = "wider_face_val.mat"
_FOLDERS = (".", "ground_truth", "wider_face_split", "eval_tools/ground_truth")


class WiderTruth(NamedTuple):
    """The published faces of I images, and which of them count. N faces."""

    rows: dict[str, int]  # of each image, by event and name
    offsets: NDArray[np.int64]  # (I + 1,)
    boxes_xyxy: NDArray[np.float32]  # (N, 4) corner and corner plus size, original px
    counted: dict[str, NDArray[np.bool_]]  # (N,) of each subset


def read_wider_truth(folder: Path | str) -> WiderTruth:
    """The ground truth of the official evaluation: ``wider_face_val.mat`` and ``wider_{easy,medium,hard}_val.mat``.

    Raises:
        DataError: a file is missing, of another version or damaged.
    """
    place = Path(folder)
    faces = read_faces(place / _FACES)
    boxes = faces.boxes_xywh.copy()
    boxes[:, 2:] += boxes[:, :2]
    return WiderTruth(
        {image_key(name): row for row, name in enumerate(faces.names)},
        faces.offsets,
        boxes.astype(np.float32),
        {subset: read_subset(place / f"wider_{subset}_val.mat", faces) for subset in SUBSETS},
    )


@dataclass(frozen=True, slots=True)
class WiderProtocol:
    """``WIDER_easy``, ``WIDER_medium`` and ``WIDER_hard``."""

    truth: Path | str | None = None  # folder of the published files; none: looked for around the images

    def __call__(self, table: AnnotationTable, detections: DetectionTable) -> Score:
        """Measure detections on the images that ``detections.image_ids`` lists.

        Raises:
            DataError: they do not fit the table, an image is none of the validation part, the published files are not
                there or cannot be used, or the classes of the table have no face.
        """
        rows = measured_rows(table, detections)
        truth = read_wider_truth(_truth_folder(table) if self.truth is None else self.truth)
        faces, objects = _objects(table, rows, truth)
        found = faces_of(table, detections)
        best = best_overlaps(found, objects, corner_px=1.0)
        on_face = best.ious >= MIN_IOU
        # The official tool passes over images without a single face.
        looked = np.repeat(np.diff(objects.offsets) > 0, np.diff(found.offsets))
        scores = _normalised(found.scores)
        numbers, curves, lines = {}, {}, []
        for subset in SUBSETS:
            counted = truth.counted[subset][faces]
            counts_here = np.append(counted, False)[best.objects]  # -1: no face
            right = first_of_each(best.objects, found.scores, on_face & counts_here)
            judged = looked & ~(on_face & ~counts_here)
            total = int(counted.sum())
            curve = _curve(scores, right, judged, total)
            ap = area_under(curve) if total else float("nan")
            numbers[f"WIDER_{subset}"] = ap
            curves.update({subset: curve} if total else {})
            lines.append([subset, str(total), f"{ap:.4f}" if total else "-"])
        told, untold = split_numbers(numbers)
        title = f"WIDER FACE, IoU 0.5: {len(rows)} images, {len(faces)} faces, {len(scores)} detections"
        return Score("wider", told, (ScoreTable(title, ["", "faces", "AP"], lines),), curves, {}, untold)


def _truth_folder(table: AnnotationTable) -> Path:
    """Where the published files are: around the images, or beside the annotations."""
    root = table.root.absolute()
    for base in (root, *root.parents[:3]):
        for inner in _FOLDERS:
            if all((base / inner / name).is_file() for name in (_FACES, *(f"wider_{s}_val.mat" for s in SUBSETS))):
                return base / inner
    raise DataError(
        f"the protocol wider needs the published {_FACES} and wider_easy_val.mat, wider_medium_val.mat, "
        f"wider_hard_val.mat; looked in and above {root}, and there in {', '.join(_FOLDERS[1:])}; put them there"
    )


def _objects(table: AnnotationTable, rows: NDArray[np.int64], truth: WiderTruth) -> tuple[NDArray[np.int64], Objects]:
    """(M,) rows of the published faces of these images, and the faces."""
    keys = [image_key(table.file_name(row)) for row in rows.tolist()]
    unknown = next((key for key in keys if key not in truth.rows), None)
    if unknown is not None:
        raise DataError(
            f"{table.root}: image {unknown} is none of the {len(truth.rows)} that {_FACES} lists; "
            "the protocol wider measures the validation part of WIDER FACE"
        )
    faces, offsets = ragged_rows(truth.offsets, np.array([truth.rows[key] for key in keys], np.int64))
    nothing = np.zeros(len(faces), np.int32)
    return faces, Objects(offsets, truth.boxes_xyxy[faces], nothing, nothing.astype(np.bool_))


def _normalised(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N,) scores from 0, the lowest of all, to 1, the highest."""
    if not len(scores):
        return scores.astype(np.float64)
    low, high = float(scores.min()), float(scores.max())
    return (scores.astype(np.float64) - low) / (high - low) if high > low else np.ones(len(scores))


def _curve(scores: NDArray[np.float64], right: NDArray[np.bool_], judged: NDArray[np.bool_], faces: int) -> Curve:
    """Precision and recall at each threshold."""
    order = np.argsort(-scores, kind="stable")
    thresholds = 1 - np.arange(1, _THRESHOLDS + 1) / _THRESHOLDS
    counts = np.searchsorted(-scores[order], -thresholds, side="right")
    found, given = (np.append(0, np.cumsum(of[order]))[counts] for of in (right & judged, judged))
    return Curve(found / max(faces, 1), found / np.maximum(given, 1))
