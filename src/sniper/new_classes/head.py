"""Learned classes with all that is needed to use them, and to learn more beside them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sniper.new_classes.classifiers import Classifier
from sniper.new_classes.examples import Examples
from sniper.new_classes.held_out import Calibration, Expected


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo that was learned from."""

    name: str  # folder and file
    content: str  # SHA-256 of the file


@dataclass(frozen=True, slots=True)
class Features:
    """What describes regions to the classes."""

    name: str  # detector, or the trunk
    digest: str  # SHA-256 of its weights
    weights: str | None = None  # where the weights of a trunk are: a file, or imagenet
    detector: str = ""  # SHA-256 of the detector that found the regions


@dataclass(frozen=True, slots=True, eq=False)
class ClassHead:
    """C classes over features of regions."""

    class_names: tuple[str, ...]
    classifier: Classifier
    calibration: Calibration
    expected: Expected
    features: Features
    examples: Examples  # what it was learned from; ``photos`` are places in the list
    photos: tuple[Photo, ...]
    groups: NDArray[np.int64]  # (P,) of each photo those that are nearly the same

    def __len__(self) -> int:
        return len(self.class_names)

    def probabilities(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """(N, C) that a region of these features (N, D) shows each class, calibrated on held-out photos."""
        return self.calibration.probability(self.classifier.evidence(features))

    def photo_counts(self) -> NDArray[np.int64]:
        """(C,) photos that each class was learned from."""
        known = self.examples.labels >= 0
        pairs = np.unique(np.stack([self.examples.labels[known], self.examples.photos[known]]), axis=1)
        return np.bincount(pairs[0], minlength=len(self))
