"""The space in which regions are compared: what differs within a class counts less, what tells classes apart more.

Whitening by the covariance within classes (linear discriminant analysis) and of the background (Hariharan et al.,
ECCV 2012, "Discriminative decorrelation"), shrunk towards a multiple of the identity.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sniper.new_classes.examples import BACKGROUND

_SHRINKAGE = 0.3  # a few dozen regions do not tell hundreds of correlations


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """An affine map of features, after which they are scaled to length 1."""

    mean: NDArray[np.float32]  # (D,)
    projection: NDArray[np.float32]  # (D, D)

    def place(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """(N, D) of length 1: what is compared by angle."""
        return unit((np.asarray(features, np.float32) - self.mean) @ self.projection)


def whitening(features: NDArray[np.float32], labels: NDArray[np.integer]) -> Space:
    """The space of (N, D) features with labels (N,); a label alone tells only of the mean."""
    names, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    member = np.zeros((len(names), len(features)), np.float32)
    member[place, np.arange(len(features))] = 1 / counts[place]
    means = member @ features
    inside = features - means[place]
    # The background is one label of many things: it weighs as much as all classes together.
    own = labels == BACKGROUND
    parts = [inside[rows] for rows in (own, ~own & (counts[place] > 1)) if rows.any()]
    scatter = np.mean([part.T @ part / len(part) for part in parts], axis=0) if parts else np.eye(features.shape[1])
    size = max(float(np.trace(scatter)) / len(scatter), 1e-12)
    lower = np.linalg.cholesky((1 - _SHRINKAGE) * scatter + _SHRINKAGE * size * np.eye(len(scatter)))
    return Space(means.mean(axis=0).astype(np.float32), np.linalg.inv(lower).T.astype(np.float32))


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """(N, D) scaled to length 1; zeros stay."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-12), np.float32)
