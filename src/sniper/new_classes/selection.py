"""Which region of a photo shows what all photos of its class show: multiple-instance learning.

A class' photos are bags of regions of which one at least shows it. Regions and classifier are found in turn, and the
region of a photo is always chosen by a classifier that has not seen this photo (Cinbis et al., arXiv 1503.00949).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.boxes import area
from sniper.new_classes.classifiers import prototypes
from sniper.new_classes.examples import BACKGROUND, Examples, photo_starts
from sniper.new_classes.space import whitening

MAX_BACKGROUND = 6  # regions of a photo that are taken for background
_ROUNDS = 6
_FOLDS = 5
_OBJECT_WEIGHT = 0.3  # of the log of objectness beside differences of cosines
_MIN_OBJECTNESS = 0.01  # what the photo as a whole counts as: what is alike in a class' photos may be their ground
_APART = 0.2  # share of the smaller of two regions up to which background may overlap the chosen one
_ALIKE = 0.5  # regions that are this much as near to the class as the chosen one may show it too


class Bags(NamedTuple):
    """Regions of photos that have a class each, or none."""

    regions: Examples  # ``labels`` are those of the photos; BACKGROUND: a photo with none of the classes
    chosen: NDArray[np.int64]  # rows already known to show the class of their photo, as from boxes


def choose_regions(bags: Bags, others: Examples | None, count: int) -> Examples:
    """The region of each photo that shows its class, and some that show none.

    Args:
        bags: what the photos hold.
        others: examples of classes that are known already, whose photos keep their regions.
        count: number of classes, known ones included.
    """
    regions, starts = bags.regions, photo_starts(bags.regions.photos)
    fixed_features = np.zeros((0, regions.features.shape[1]), np.float32) if others is None else others.features
    fixed_labels = np.zeros(0, np.int32) if others is None else others.labels
    labels = regions.labels[starts]
    known = _known(bags.chosen, regions.photos, starts)
    objectness = _OBJECT_WEIGHT * np.log(np.maximum(regions.scores, _MIN_OBJECTNESS))
    placed = whitening(regions.features, np.full(len(regions), BACKGROUND)).place(regions.features)
    agreement = _agreement(placed, regions.labels, starts)
    rows = np.where(known >= 0, known, _best(agreement + objectness, starts))
    folds = _folds(labels)
    for _ in range(_ROUNDS):
        nearness = np.zeros(len(regions), np.float32)
        for fold in range(folds.max(initial=0) + 1):
            seen = (labels != BACKGROUND) & (folds != fold)
            background = _background(regions, rows, starts, None)
            features = np.concatenate([regions.features[rows[seen]], regions.features[background], fixed_features])
            told = np.concatenate([labels[seen], np.full(len(background), BACKGROUND), fixed_labels])
            space = whitening(features, told)
            here = np.repeat(folds == fold, np.diff([*starts, len(regions)]))
            cosines = space.place(regions.features[here]) @ prototypes(space.place(features), told, count).T
            nearness[here] = _margin(cosines, regions.labels[here])
        found = np.where(known >= 0, known, _best(nearness + objectness, starts))
        if np.array_equal(found, rows):
            break
        rows = found
    return _examples(bags, rows, starts, nearness)


def _examples(
    bags: Bags, rows: NDArray[np.int64], starts: NDArray[np.int64], nearness: NDArray[np.float32]
) -> Examples:
    regions = bags.regions
    shown = np.union1d(rows[regions.labels[rows] != BACKGROUND], bags.chosen)
    background = np.setdiff1d(_background(regions, rows, starts, nearness), shown)
    labels = np.full(len(regions), BACKGROUND, np.int32)
    labels[shown] = regions.labels[shown]
    every = np.sort(np.concatenate([shown, background]))
    chosen = regions.take(every)
    return Examples(chosen.features, labels[every], chosen.photos, chosen.boxes, chosen.scores)


def _known(chosen: NDArray[np.int64], photos: NDArray[np.int32], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """(P,) the row that is known to show the class of each photo, or -1."""
    known = np.full(len(starts), -1, np.int64)
    known[np.searchsorted(photos[starts], photos[chosen])] = chosen
    return known


def _best(values: NDArray[np.floating], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """(P,) the row of the largest value of each photo; of equal ones the first."""
    photo = np.repeat(np.arange(len(starts)), np.diff([*starts, len(values)]))
    order = np.lexsort((np.arange(len(values)), -np.asarray(values, np.float64), photo))
    return order[starts].astype(np.int64)


def _agreement(
    placed: NDArray[np.float32], labels: NDArray[np.int32], starts: NDArray[np.int64]
) -> NDArray[np.float32]:
    """(N,) how near a region is to some region of each other photo of its class, less how near to those of others."""
    of_photo = labels[starts]
    found = np.zeros(len(placed), np.float32)
    photo = np.repeat(np.arange(len(starts)), np.diff([*starts, len(placed)]))
    for label in np.unique(of_photo[of_photo != BACKGROUND]).tolist():
        rows = np.flatnonzero(labels == label)
        near = np.maximum.reduceat(placed[rows] @ placed.T, starts, axis=1)  # (rows, P)
        same = of_photo == label
        own = np.take_along_axis(near, photo[rows, None], axis=1)[:, 0]
        alike = (near[:, same].sum(axis=1) - own) / max(same.sum() - 1, 1)
        other = near[:, ~same].mean(axis=1) if (~same).any() else 0.0
        found[rows] = alike - other
    return found


def _folds(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """(P,) fold of each photo: those of a class are dealt out one by one."""
    folds = np.zeros(len(labels), np.int64)
    for label in np.unique(labels).tolist():
        rows = np.flatnonzero(labels == label)
        folds[rows] = np.arange(len(rows)) % _FOLDS
    return folds


def _margin(cosines: NDArray[np.float32], labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """(N,) the cosine with the prototype of the photo's class, less half of the best other one; 0 of no class."""
    known = np.flatnonzero(labels != BACKGROUND)
    margin = np.zeros(len(labels), np.float32)
    own = cosines[known, labels[known]]
    rest = cosines[known].copy()
    rest[np.arange(len(known)), labels[known]] = -1.0
    margin[known] = own - 0.5 * np.maximum(rest.max(axis=1, initial=0.0), 0.0)
    return margin


def _background(
    regions: Examples, rows: NDArray[np.int64], starts: NDArray[np.int64], nearness: NDArray[np.float32] | None
) -> NDArray[np.int64]:
    """Rows of some regions of each photo that lie apart from the chosen one, and are unlike it where ``nearness`` says.

    Of a photo without a class all qualify. The best and the worst by objectness are taken: what may be mistaken for an
    object, and plain ground.
    """
    sizes = np.diff([*starts, len(regions)])
    chosen = np.repeat(rows, sizes)
    free = regions.labels == BACKGROUND
    apart = _shared(regions.boxes, regions.boxes[chosen]) <= _APART
    if nearness is not None:
        apart &= nearness < _ALIKE * nearness[chosen]
    usable = np.flatnonzero(free | (apart & (np.arange(len(regions)) != chosen)))
    photo = np.repeat(np.arange(len(starts)), sizes)[usable]
    first = np.searchsorted(photo, photo)
    rank, count = np.arange(len(usable)) - first, np.bincount(photo, minlength=len(starts))[photo]
    return usable[(rank < MAX_BACKGROUND // 2) | (rank >= count - MAX_BACKGROUND // 2)].astype(np.int64)


def _shared(boxes: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.floating]:
    """(N,) intersection of (N, 4) boxes with (N, 4) others, row by row, over the area of the smaller."""
    sides = np.minimum(boxes[:, 2:], others[:, 2:]) - np.maximum(boxes[:, :2], others[:, :2])
    smaller = np.minimum(area(boxes), area(others))
    return np.maximum(sides, 0).prod(axis=1) / np.maximum(smaller, 1e-6)
