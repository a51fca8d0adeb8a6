"""From verdicts on detections to the average precision and the curve of every class."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sniper.evaluation.average_precision import ClassAp, area_under, at_eleven_points, mean_ap, mean_curve
from sniper.evaluation.average_precision import precision_recall as curve_of
from sniper.evaluation.protocol import Curve


@dataclass(frozen=True, slots=True)
class ClassScores:
    """C classes, each with its AP and, where it has objects, its curve."""

    classes: tuple[ClassAp, ...]  # by the area under the curve
    curves: dict[str, Curve]  # of the classes with objects, most objects first

    @property
    def ap(self) -> float:
        """Mean over the classes with objects; nan if there are none."""
        return mean_ap(self.classes)

    @property
    def mean_curve(self) -> Curve:
        """Mean precision of the classes with objects at 101 recalls."""
        return mean_curve(list(self.curves.values()))

    def at_eleven_points(self) -> tuple[ClassAp, ...]:
        """The same classes by the mean of eleven points of their curves."""
        return tuple(
            one._replace(ap=at_eleven_points(self.curves[one.name])) if one.objects else one for one in self.classes
        )


def class_scores(
    names: tuple[str, ...],
    labels: NDArray[np.int32],
    scores: NDArray[np.float32],
    right: NDArray[np.bool_],
    objects: NDArray[np.int64],
) -> ClassScores:
    """Measure each class.

    Args:
        names: C class names, each once.
        labels: (N,) of the detections that count.
        scores: (N,) of them.
        right: (N,) whether each finds an object.
        objects: (C,) how many there are to find.
    """
    order = np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels[order], np.arange(len(names) + 1))
    classes, curves = [], {}
    for label, count in enumerate(objects.tolist()):
        if not count:
            classes.append(ClassAp(names[label], 0, float("nan")))
            continue
        rows = order[ends[label] : ends[label + 1]]
        curves[label] = curve_of(scores[rows], right[rows], count)
        classes.append(ClassAp(names[label], count, area_under(curves[label])))
    by_number = sorted(curves, key=lambda label: -int(objects[label]))
    return ClassScores(tuple(classes), {names[label]: curves[label] for label in by_number})
