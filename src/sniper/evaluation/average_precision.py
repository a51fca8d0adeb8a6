"""Average precision of one class from scores and verdicts, by the area under the curve and by eleven points."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.evaluation.protocol import Curve, ScoreTable

_RECALLS = np.linspace(0, 1, 101)  # where mean curves are drawn


class ClassAp(NamedTuple):
    """One class. AP is nan for a class without an object to find."""

    name: str
    objects: int  # ignored ones not counted
    ap: float


def precision_recall(scores: NDArray[np.floating], right: NDArray[np.bool_], objects: int) -> Curve:
    """Precision and recall after each of K detections, best score first; equal scores keep their order.

    Args:
        scores: (K,) of the detections that count.
        right: (K,) whether each finds an object.
        objects: how many there are to find, at least 1.
    """
    found = np.cumsum(right[np.argsort(-scores, kind="stable")])
    return Curve(found / objects, found / np.arange(1, len(found) + 1))


def area_under(curve: Curve) -> float:
    """AP as Pascal VOC has it since 2010: the area under the curve, precision made to fall with recall."""
    recall = np.concatenate([[0.0], curve.recall])
    return float(np.sum(np.diff(recall) * _falling(curve.precision)))


def at_eleven_points(curve: Curve) -> float:
    """AP as Pascal VOC 2007 has it: mean over recalls 0, 0.1, ..., 1 of the best precision at that recall or above."""
    points = np.arange(11) / 10
    # A recall of 3 / 10 is the point 0.3; the tolerance is far below the step of any number of objects.
    reached = np.searchsorted(curve.recall, points - 1e-12)
    return float(np.append(_falling(curve.precision), 0.0)[reached].mean())


def mean_ap(classes: Iterable[ClassAp]) -> float:
    """Mean over the classes with objects; nan if there are none."""
    known = [one.ap for one in classes if not math.isnan(one.ap)]
    return float(np.mean(known)) if known else math.nan


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean of several curves at 101 recalls; -1 without a curve."""
    if not curves:
        return Curve(_RECALLS, np.full(len(_RECALLS), -1.0))
    sampled = [
        np.append(_falling(curve.precision), 0.0)[np.searchsorted(curve.recall, _RECALLS - 1e-12)] for curve in curves
    ]
    return Curve(_RECALLS, np.mean(sampled, axis=0))


def class_table(title: str, columns: dict[str, Sequence[ClassAp]]) -> ScoreTable:
    """A row a class, after one of all; ``columns`` are the same classes in several ways, by the name of each.

    Objects are those of the first way.
    """
    ways = [[ClassAp("all classes", sum(one.objects for one in way), mean_ap(way)), *way] for way in columns.values()]
    rows = [
        [of_class[0].name, str(of_class[0].objects), *(_cell(one.ap) for one in of_class)]
        for of_class in zip(*ways, strict=True)
    ]
    return ScoreTable(title, ["class", "objects", *columns], rows)


def _falling(precision: NDArray[np.float64]) -> NDArray[np.float64]:
    """(K,) the best precision from each detection on."""
    return np.maximum.accumulate(precision[::-1])[::-1]


def _cell(ap: float) -> str:
    return "-" if math.isnan(ap) else f"{ap:.3f}"
