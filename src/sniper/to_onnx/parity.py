"""Whether a written file finds what torch finds: detection by detection, not only in how sure both are."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Outputs = Mapping[str, NDArray]  # as ``detectors.protocol.FixedOutputs`` names them


class Limits(NamedTuple):
    """What rounding of other kernels may do, far below what a wrong operator does."""

    score: float
    box_px: float
    # Two scores that are equal to rounding, or an overlap at the limit of suppression, decide differently now and then.
    apart: float  # share of the rows that may have no partner, and two in any case


EXACT = Limits(score=1e-3, box_px=0.1, apart=0.02)
HALF = Limits(score=0.05, box_px=8.0, apart=0.1)  # features in half precision


class Parity(NamedTuple):
    """How far two runs of the same inputs agree."""

    score_difference: float  # the largest of a pair that has the same class and place, or of a focus map
    apart: int  # rows of either side without a partner on the other
    rows: int  # of both sides

    def within(self, limits: Limits) -> bool:
        """Whether it is rounding."""
        return self.score_difference <= limits.score and self.apart <= max(2, limits.apart * self.rows)


def parity(wanted: Outputs, found: Outputs, limits: Limits) -> Parity:
    """Compare the outputs (B, D, ...) of torch and of a file; rows may have changed places."""
    total = Parity(0.0, 0, 0)
    for kind in ("", "proposal_"):
        if f"{kind}counts" not in wanted:
            continue
        for image in range(len(wanted[f"{kind}counts"])):
            one, other = (_rows(outputs, kind, image) for outputs in (wanted, found))
            total = _joined(total, _compared(one, other, limits))
    if "focus" in wanted:
        shapes = wanted["focus"].shape == found["focus"].shape
        difference = float(np.abs(wanted["focus"] - found["focus"]).max(initial=0)) if shapes else np.inf
        total = _joined(total, Parity(difference, 0, 0))
    return total


class _Rows(NamedTuple):
    boxes: NDArray[np.float64]  # (N, 4)
    scores: NDArray[np.float64]  # (N,)
    labels: NDArray[np.int64]  # (N,)


def _rows(outputs: Outputs, kind: str, image: int) -> _Rows:
    count = int(outputs[f"{kind}counts"][image])
    labels = outputs["labels"][image, :count] if kind == "" else np.zeros(count)
    boxes, scores = (outputs[f"{kind}{name}"][image, :count].astype(np.float64) for name in ("boxes", "scores"))
    return _Rows(boxes, scores, labels.astype(np.int64))


def _compared(one: _Rows, other: _Rows, limits: Limits) -> Parity:
    """Each row beside the one of its class and place whose score is nearest."""
    far = np.abs(one.boxes[:, None] - other.boxes).max(axis=2, initial=0) > limits.box_px
    far |= one.labels[:, None] != other.labels
    difference = np.where(far, np.inf, np.abs(one.scores[:, None] - other.scores))
    nearest = np.concatenate([difference.min(axis=1, initial=np.inf), difference.min(axis=0, initial=np.inf)])
    paired = np.isfinite(nearest)
    return Parity(float(nearest[paired].max(initial=0)), int((~paired).sum()), len(nearest))


def _joined(one: Parity, other: Parity) -> Parity:
    return Parity(max(one.score_difference, other.score_difference), one.apart + other.apart, one.rows + other.rows)
