"""The time of training."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class TrainingClock:
    """Seconds of training: those of evaluations and of what comes before an epoch are left out."""

    def __init__(self, minutes: float = 0.0) -> None:
        """``minutes`` are those of the pieces before, of a run that goes on."""
        self._start = time.monotonic() - 60 * minutes

    @property
    def seconds(self) -> float:
        """Of training so far, over all resumed pieces."""
        return time.monotonic() - self._start

    @property
    def minutes(self) -> float:
        """Of training so far, over all resumed pieces."""
        return self.seconds / 60

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """While entered, no time of training passes."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._start += time.monotonic() - began
