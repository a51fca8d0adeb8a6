"""What is expected of classes before anybody uses them: from photos and classes that were left out."""

import numpy as np
import pytest
from planted import CHANNELS, planted

from sniper.new_classes.classifiers import KINDS, Kind, fit
from sniper.new_classes.examples import BACKGROUND, Examples
from sniper.new_classes.held_out import ENOUGH_REJECTED, MIN_KEPT, fit_best, hold_out


def examples(classes: int, photos: int, seed: int = 0) -> Examples:
    """What was planted, with the region of each photo labelled, and two of its others as background."""
    regions, shown = planted(classes, photos, seed=seed)
    labels = np.full(len(regions), BACKGROUND, np.int32)
    labels[shown] = regions.labels[shown]
    kept = np.flatnonzero((labels >= 0) | (np.arange(len(labels)) % 8 < 3))
    return Examples(
        regions.features[kept], labels[kept], regions.photos[kept], regions.boxes[kept], regions.scores[kept]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_classes_are_told_apart_and_background_from_both(kind: Kind) -> None:
    learned, new = examples(3, 8), examples(3, 8, seed=0)
    classifier = fit(kind, learned.features, learned.labels, 3)
    evidence = classifier.evidence(new.features + 0.05)
    known = new.labels >= 0
    assert (evidence[known].argmax(axis=1) == new.labels[known]).mean() >= 0.95
    assert np.median(evidence[known].max(axis=1)) > np.quantile(evidence[~known].max(axis=1), 0.9)


def test_the_threshold_keeps_what_is_known_and_rejects_what_is_not() -> None:
    learned = examples(5, 10)
    fitted = fit_best(learned, np.arange(50), 5)
    expected, threshold = fitted.expected, fitted.calibration.threshold
    assert expected.kept >= MIN_KEPT
    assert expected.accuracy >= 0.95
    assert ENOUGH_REJECTED - 0.03 <= expected.rejected <= ENOUGH_REJECTED + 0.03
    assert 0 < threshold < 1
    strangers = np.random.default_rng(9).normal(size=(50, CHANNELS)).astype(np.float32) * 1.5
    probability = fitted.calibration.probability(fitted.classifier.evidence(strangers)).max(axis=1)
    assert (probability < threshold).mean() >= 0.7


def test_photos_that_look_the_same_are_left_out_together() -> None:
    learned = examples(2, 6)
    apart = hold_out(("prototypes",), learned, np.arange(12), 2)["prototypes"]
    assert len(apart.rows) == 12
    groups = np.where(np.arange(12) < 6, 0, np.arange(12))  # the first class is one scene six times
    together = hold_out(("prototypes",), learned, groups, 2)["prototypes"]
    assert set(learned.labels[together.rows].tolist()) == {1}  # without it, nothing is left of the first class


def test_one_photo_a_class_says_nothing_of_what_is_kept() -> None:
    fitted = fit_best(examples(3, 1), np.arange(3), 3)
    assert np.isnan(fitted.expected.kept)
    assert fitted.calibration.threshold == 0.5
    evidence = fitted.classifier.evidence(examples(3, 1).features)
    assert np.isfinite(fitted.calibration.probability(evidence)).all()


def test_one_class_against_background() -> None:
    fitted = fit_best(examples(1, 8), np.arange(8), 1)
    assert fitted.expected.kept >= MIN_KEPT
    assert np.isnan(fitted.expected.rejected) or fitted.expected.rejected >= 0
    assert fitted.expected.background_rejected >= 0.8


def test_the_same_twice() -> None:
    one, two = (fit_best(examples(4, 5), np.arange(20), 4) for _ in range(2))
    assert one.calibration == two.calibration
    assert np.array_equal(one.classifier.weights, two.classifier.weights)
