"""What a classifier says about photos and classes that it has not seen: how sure it may be, and when to say nothing.

Photos that are left out tell what is kept of the known; classes that are left out stand for what is unknown.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.new_classes.classifiers import KINDS, Classifier, Kind, fit
from sniper.new_classes.examples import BACKGROUND, Examples
from sniper.new_classes.space import whitening

MIN_KEPT = 0.9  # share of the known and rightly named that the threshold keeps at least
ENOUGH_REJECTED = 0.75  # share of left-out classes' regions that the threshold need not exceed
MIN_KNOWN = 5  # held-out regions below which nothing is said of what is kept
_FOLDS = 10


class HeldOut(NamedTuple):
    """Evidence about regions that the classifier has not seen."""

    known: NDArray[np.float32]  # (K,) largest evidence of regions of known classes
    named: NDArray[np.int64]  # (K,) the class that it speaks for
    own: NDArray[np.float32]  # (K,) evidence for the right class
    right: NDArray[np.bool_]  # (K,) whether the two are the same
    rows: NDArray[np.int64]  # (K,) of the examples
    unknown: NDArray[np.float32]  # (U,) of regions of classes that were left out
    background: NDArray[np.float32]  # (G,) of background regions


class Expected(NamedTuple):
    """What the threshold does to what was held out; not a number where too little could be."""

    kept: float  # share of the known, rightly named regions that are accepted
    rejected: float  # share of left-out classes' regions that are rejected
    background_rejected: float
    precision: float  # right ones among the accepted, known and unknown as many as there were
    recall: float  # accepted and rightly named, of all known
    accuracy: float  # rightly named, of all known


class Calibration(NamedTuple):
    """Probability of being right, a logistic function of the evidence, and the one below which a region is rejected."""

    slope: float
    offset: float
    threshold: float

    def probability(self, evidence: NDArray[np.floating]) -> NDArray[np.float32]:
        """In [0, 1], of the same shape."""
        return np.asarray(1 / (1 + np.exp(-np.clip(self.slope * evidence + self.offset, -30, 30))), np.float32)


class Fitted(NamedTuple):
    """A classifier with its calibration, and what to expect of it."""

    classifier: Classifier
    calibration: Calibration
    expected: Expected
    held_out: HeldOut


def fit_best(examples: Examples, groups: NDArray[np.integer], count: int, kinds: tuple[Kind, ...] = KINDS) -> Fitted:
    """The kind of classifier that does best on what it has not seen, fitted on everything.

    Args:
        examples: of ``count`` classes and background.
        groups: (P,) of each photo number those left out together: near-duplicates of one scene.
        count: number of classes.
        kinds: what to choose from.
    """
    tried = []
    for kind, held in hold_out(kinds, examples, groups, count).items():
        calibration, expected = calibrate(held)
        # Where no photo could be left out, accuracy and kept say nothing, and rejection alone decides.
        worth = np.nan_to_num(expected.recall) + np.nan_to_num(expected.rejected)
        tried.append((worth, kind, calibration, expected, held))
    _, kind, calibration, expected, held = max(tried, key=lambda one: one[0])
    return Fitted(fit(kind, examples.features, examples.labels, count), calibration, expected, held)


def hold_out(
    kinds: tuple[Kind, ...], examples: Examples, groups: NDArray[np.integer], count: int
) -> dict[Kind, HeldOut]:
    """Evidence about every region from a classifier without its photo, and about every class from one without it.

    All kinds share the space of what is left in, which takes longer to find than most classifiers in it.
    """
    labels = examples.labels
    fold = _fold_of_photos(examples, groups)
    nothing = np.zeros(0, np.float32), np.zeros(0, np.int64)
    no_photo = (nothing[0], nothing[1], nothing[0], np.zeros(0, np.bool_), nothing[1])
    parts = {kind: [no_photo] for kind in kinds}
    ground, unknown = ({kind: [nothing[0]] for kind in kinds} for _ in range(2))
    for number in range(fold.max(initial=0) + 1):
        out = fold == number
        if not out.any() or out.all():
            continue
        told = np.isin(labels[out], labels[~out]) & (labels[out] != BACKGROUND)  # not of a class' only photo
        truth, rows = labels[out][told], np.flatnonzero(out)[told]
        for kind, evidence in _evidence_without(kinds, examples, out, count):
            best = evidence[told].argmax(axis=1)
            own = np.take_along_axis(evidence[told], truth[:, None].astype(np.int64), axis=1)[:, 0]
            parts[kind].append((evidence[told].max(axis=1), best, own, best == truth, rows))
            ground[kind].append(evidence[labels[out] == BACKGROUND].max(axis=1))
    for left_out in _class_folds(count):
        out = np.isin(labels, left_out)
        if out.any() and (labels[~out] != BACKGROUND).any():
            for kind, evidence in _evidence_without(kinds, examples, out, count):
                unknown[kind].append(np.delete(evidence, left_out, axis=1).max(axis=1))
    found: dict[Kind, HeldOut] = {}
    for kind in kinds:
        known, named, own, right, rows = (np.concatenate(column) for column in zip(*parts[kind], strict=True))
        found[kind] = HeldOut(
            known, named, own, right, rows, np.concatenate(unknown[kind]), np.concatenate(ground[kind])
        )
    return found


def _evidence_without(
    kinds: tuple[Kind, ...], examples: Examples, out: NDArray[np.bool_], count: int
) -> Iterator[tuple[Kind, NDArray[np.float32]]]:
    """(O, C) of the regions ``out`` from each kind of classifier fitted on the others."""
    features, labels = examples.features[~out], examples.labels[~out]
    space = whitening(features, labels)
    for kind in kinds:
        yield kind, fit(kind, features, labels, count, space).evidence(examples.features[out])


def calibrate(held: HeldOut) -> tuple[Calibration, Expected]:
    """A threshold that keeps at least ``MIN_KEPT`` of the known and, above that, loses least in all.

    It rejects no more than ``ENOUGH_REJECTED`` of the classes that were left out, though. Photos of one class were
    often taken in one go: then those that are left out resemble the others more than any later photo will, and what is
    kept of them promises too much. Classes that are left out promise nothing of the kind.
    """
    unknown = held.unknown if len(held.unknown) else held.background
    if len(held.known) < MIN_KNOWN or not held.right.any() or not len(unknown):
        return _unheard(held)
    right, wrong = held.known[held.right], held.known[~held.right]
    slope, offset = _logistic_curve(right, np.concatenate([wrong, unknown, held.background]))
    candidates = np.sort(right)[: max(1, int(len(right) * (1 - MIN_KEPT)) + 1)]
    lost = (right[None] < candidates[:, None]).mean(axis=1)
    passed = (unknown[None] >= candidates[:, None]).mean(axis=1)
    # Between two values, so that rounding does not decide.
    limit = float(candidates[np.argmin(lost + passed)])
    lower = np.concatenate([held.known, unknown])
    below = lower[lower < limit]
    limit = (limit + float(below.max())) / 2 if len(below) else limit
    if len(held.unknown):
        limit = min(limit, float(np.quantile(held.unknown, ENOUGH_REJECTED)))
    calibration = Calibration(slope, offset, 0.0)
    threshold = float(calibration.probability(np.asarray(limit)))
    accepted = float((right >= limit).sum())
    every = accepted + float((wrong >= limit).sum()) + float((unknown >= limit).sum())
    expected = Expected(
        kept=accepted / len(right),
        rejected=float((unknown < limit).mean()),
        background_rejected=_share(held.background < limit),
        precision=accepted / max(every, 1.0),
        recall=accepted / len(held.known),
        accuracy=float(held.right.mean()),
    )
    return Calibration(slope, offset, threshold), expected


def _unheard(held: HeldOut) -> tuple[Calibration, Expected]:
    """Without held-out photos: what is as likely as the least unlike of the left-out classes is rejected."""
    unknown = np.concatenate([held.unknown, held.background])
    limit, spread = (
        (float(np.quantile(unknown, ENOUGH_REJECTED)), float(unknown.std()) + 1e-3) if len(unknown) else (0.0, 1.0)
    )
    nothing = float("nan")
    rejected = _share(held.unknown < limit)
    expected = Expected(nothing, rejected, _share(held.background < limit), nothing, nothing, nothing)
    return Calibration(1 / spread, -limit / spread, 0.5), expected


def _share(of: NDArray[np.bool_]) -> float:
    return float(of.mean()) if len(of) else float("nan")


def _fold_of_photos(examples: Examples, groups: NDArray[np.integer]) -> NDArray[np.int64]:
    """(N,) which fold leaves a region out: one group of photos of each class, with at most ``_FOLDS`` folds."""
    group = np.asarray(groups)[examples.photos]
    fold_of_group = np.zeros(int(group.max(initial=0)) + 1, np.int64)
    known = examples.labels != BACKGROUND
    for label in np.unique(examples.labels[known]).tolist():
        own = np.unique(group[known & (examples.labels == label)])
        fold_of_group[own] = (label + np.arange(len(own))) % _FOLDS  # only photos of classes: not all in one fold
    alone = np.setdiff1d(np.unique(group), group[known])
    fold_of_group[alone] = np.arange(len(alone)) % _FOLDS
    return fold_of_group[group]


def _class_folds(count: int) -> list[NDArray[np.int64]]:
    """Classes that are left out together: each alone where there are few."""
    return [np.arange(first, count, _FOLDS) for first in range(min(count, _FOLDS))] if count > 1 else []


def _logistic_curve(right: NDArray[np.float32], wrong: NDArray[np.float32]) -> tuple[float, float]:
    """Slope and offset of the probability of being right (Platt), both sides equally heavy; Newton's method."""
    values = np.concatenate([right, wrong]).astype(np.float64)
    middle, scale = float(values.mean()), float(values.std()) + 1e-6
    inputs = np.stack([(values - middle) / scale, np.ones_like(values)], axis=1)
    target = np.concatenate([np.full(len(right), 0.98), np.full(len(wrong), 0.02)])  # never quite sure
    weight = np.concatenate([np.full(len(right), 0.5 / len(right)), np.full(len(wrong), 0.5 / max(len(wrong), 1))])
    row = np.zeros(2)
    for _ in range(30):
        told = 1 / (1 + np.exp(-np.clip(inputs @ row, -30, 30)))
        slope = inputs.T @ (weight * (told - target)) + 1e-4 * row
        curvature = (inputs * (weight * told * (1 - told))[:, None]).T @ inputs + 1e-4 * np.eye(2)
        step = np.linalg.solve(curvature, slope)
        row -= np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-6:
            break
    return float(row[0] / scale), float(row[1] - row[0] * middle / scale)
