"""The true objects of an image beside what is drawn of the detections."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.evaluation.error_types import Verdict
from sniper.report.draw import line_width
from sniper.report.layout import fit
from sniper.report.marks import draw_boxes
from sniper.report.palette import FALSE_POSITIVE, FOUND, MISSED, WHITE, Pixels


class Comparison(NamedTuple):
    """Two drawings of an image, and what is to be seen in them."""

    truth: Pixels
    detections: Pixels
    found: int
    missed: int
    false_positives: int


class ImageTruth(NamedTuple):
    """The objects of an image, N of them."""

    boxes_xyxy: NDArray[np.floating]  # (N, 4) px of the image
    found: NDArray[np.bool_]  # (N,) a detection is on it
    ignored: NDArray[np.bool_]  # (N,) neither to be found nor wrong to find


def draw_comparison(
    pixels: Pixels,
    truth: ImageTruth,
    boxes_xyxy: NDArray[np.floating],
    verdict: NDArray[np.integer],
    *,
    scale: float = 1.0,
    panel_px: int = 1000,
) -> Comparison:
    """Objects found (solid) and missed (dashed); true and false positives.

    ``boxes_xyxy`` (M, 4) are half-open, in px of the image, of which ``pixels`` may be a copy that is ``scale`` times
    as large; ``verdict`` (M,) says what became of each (``evaluation.error_types``). Ignored objects are hatched,
    detections on them white. The long side of a drawing is at most ``panel_px``; small images are enlarged.
    """
    shown, more = fit(pixels, at_least=min(panel_px, 640), at_most=panel_px)
    objects = np.asarray(truth.boxes_xyxy, np.float64).reshape(-1, 4) * (scale * more)
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4) * (scale * more)
    together = np.concatenate([objects, boxes]) if len(objects) + len(boxes) else np.zeros((1, 4))
    line = line_width(together, *shown.shape[:2])
    found, missed = truth.found & ~truth.ignored, ~truth.found & ~truth.ignored
    left, right = shown.copy(), shown
    draw_boxes(left, objects[truth.ignored], WHITE, thickness=1, style="hatched")
    draw_boxes(left, objects[found], FOUND, thickness=line)
    draw_boxes(left, objects[missed], MISSED, thickness=line, style="dashed")
    true_positive, on_ignored = verdict == Verdict.TRUE_POSITIVE, verdict == Verdict.IGNORED
    draw_boxes(right, boxes[on_ignored], WHITE, thickness=1)
    draw_boxes(right, boxes[true_positive], FOUND, thickness=line)
    draw_boxes(right, boxes[~true_positive & ~on_ignored], FALSE_POSITIVE, thickness=line)
    false_positives = int((~true_positive & ~on_ignored).sum())
    return Comparison(left, right, int(found.sum()), int(missed.sum()), false_positives)
