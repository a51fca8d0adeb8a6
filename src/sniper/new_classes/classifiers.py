"""Two ways to tell classes apart in a space: one prototype a class, or logistic regression against a background."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from sniper.new_classes.examples import BACKGROUND
from sniper.new_classes.space import Space, unit, whitening

Kind = Literal["prototypes", "logistic"]
KINDS: tuple[Kind, ...] = ("prototypes", "logistic")

_SHARPNESS = 5.0  # length of the vectors that logistic regression sees
_PENALTY = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """A space and one row of weights a class; of logistic regression a last one for the background."""

    kind: Kind
    space: Space
    weights: NDArray[np.float32]  # (C, D), or (C + 1, D + 1) with a bias

    def evidence(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """(N, C) how much speaks for each class: a cosine, or the log odds against everything else."""
        placed = self.space.place(features)
        if self.kind == "prototypes":
            return placed @ self.weights.T
        logits = _SHARPNESS * placed @ self.weights[:, :-1].T + self.weights[:, -1]
        return _log_odds(logits)[:, :-1]


def fit(
    kind: Kind,
    features: NDArray[np.float32],
    labels: NDArray[np.integer],
    count: int,
    space: Space | None = None,
) -> Classifier:
    """A classifier of ``count`` classes from (N, D) features with labels (N,), some of them background.

    A class without a region is there, and nothing speaks for it. ``space`` is that of these features, if it is known.
    """
    space = space or whitening(features, labels)
    placed = space.place(features)
    if kind == "prototypes":
        return Classifier(kind, space, prototypes(placed, labels, count))
    return Classifier(kind, space, _logistic(placed, labels, count))


def prototypes(placed: NDArray[np.float32], labels: NDArray[np.integer], count: int) -> NDArray[np.float32]:
    """(C, D) directions of the mean of each class; zero where there is none."""
    sums = np.zeros((count, placed.shape[1]), np.float32)
    known = labels != BACKGROUND
    np.add.at(sums, labels[known], placed[known])
    return unit(sums)


def _logistic(placed: NDArray[np.float32], labels: NDArray[np.integer], count: int) -> NDArray[np.float32]:
    """(C + 1, D + 1) rows that minimise the cross-entropy, each class as heavy as any other."""
    target = torch.from_numpy(np.where(labels == BACKGROUND, count, labels).astype(np.int64))
    inputs = functional.pad(torch.from_numpy(placed) * _SHARPNESS, (0, 1), value=1.0)
    share = torch.bincount(target, minlength=count + 1)[target].float().reciprocal()
    share /= share.sum()
    rows = torch.zeros(count + 1, inputs.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([rows], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        entropy = functional.cross_entropy(inputs @ rows.T, target, reduction="none")
        total = (share * entropy).sum() + _PENALTY * rows[:, :-1].square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return rows.detach().numpy()


def _log_odds(logits: NDArray[np.floating]) -> NDArray[np.float32]:
    """(N, C) log of p / (1 - p) of a softmax, also where p is almost 1."""
    top = logits.max(axis=1, keepdims=True)
    powers = np.exp(logits - top)
    others = powers.sum(axis=1, keepdims=True) - powers
    return np.asarray(logits - top - np.log(np.maximum(others, 1e-12)), np.float32)
