"""What every way of measuring detections looks like: a table and detections in, a score out."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.data.detections import DetectionTable
from sniper.data.table import AnnotationTable


class ScoreTable(NamedTuple):
    """Numbers as text, ready for a terminal or a page."""

    title: str
    columns: list[str]
    rows: list[list[str]]


class Curve(NamedTuple):
    """Precision over recall. K points."""

    recall: NDArray[np.float64]  # (K,) 0 to 1, rising
    precision: NDArray[np.float64]  # (K,) 0 to 1; -1 where there is nothing to find


@dataclass(frozen=True, slots=True)
class Score:
    """What a protocol says of detections.

    Names of numbers are the protocol's own: no two protocols share one, so that ``train.best_metric`` can name any.
    A number that cannot be told (nothing to find) is left out, and its name is among the ``untold``.
    """

    name: str  # of the protocol
    numbers: dict[str, float]
    tables: tuple[ScoreTable, ...] = ()
    curves: dict[str, Curve] = field(default_factory=dict)
    class_curves: dict[str, Curve] = field(default_factory=dict)  # of each class with objects, most objects first
    untold: tuple[str, ...] = ()


Protocol = Callable[[AnnotationTable, DetectionTable], Score]
"""Measures detections on the images that ``DetectionTable.image_ids`` lists.

Raises:
    DataError: the detections do not fit the table.
"""


def split_numbers(numbers: Mapping[str, float]) -> tuple[dict[str, float], tuple[str, ...]]:
    """The numbers that could be told, and the names of those that could not, which are nan."""
    told = {name: number for name, number in numbers.items() if not math.isnan(number)}
    return told, tuple(name for name in numbers if name not in told)


def all_curves(scores: Sequence[Score]) -> dict[str, Curve]:
    """The curves of several scores; where there are several, their names begin with the protocol's."""
    prefix = len(scores) > 1
    return {
        f"{score.name}, {name}" if prefix else name: curve for score in scores for name, curve in score.curves.items()
    }


def all_numbers(scores: Iterable[Score]) -> dict[str, float]:
    """The numbers of several scores, in their order.

    Raises:
        ValueError: two scores give a number of the same name.
    """
    numbers: dict[str, float] = {}
    for score in scores:
        twice = numbers.keys() & score.numbers.keys()
        if twice:
            raise ValueError(f"protocol {score.name} gives {sorted(twice)[0]}, as one before it does; rename one")
        numbers |= score.numbers
    return numbers
