"""Progress as lines, where there is no terminal for a bar: a log file, a notebook, a container's output."""

import time
from collections.abc import Callable

INTERVAL_S = 10.0  # between two lines


class ProgressLines:
    """One line at most every ten seconds on how far a number of like things is; the last is never told.

    Args:
        what: the things, such as "evaluating images".
        total: how many there are; 0: not known.
        log: gets each line.
        clock: seconds that only rise.
    """

    def __init__(
        self,
        what: str,
        total: int,
        log: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._total, self._log = what, total, log
        self._clock = clock
        self._done = 0
        self._started = self._told = clock()

    def advance(self, more: int) -> None:
        """So many more are done."""
        self._done += more
        now = self._clock()
        if now - self._told < INTERVAL_S or (self._total and self._done >= self._total):
            return
        self._told = now
        speed = self._done / (now - self._started)
        line = f"{self._what}: {self._done:,}" + (f" of {self._total:,}" if self._total else "")
        if speed > 0:
            line += f", {speed:.3g}/s"
            if self._total:
                line += f", {clock_text((self._total - self._done) / speed)} left"
        self._log(line)


def clock_text(seconds: float) -> str:
    """Minutes and seconds, hours before them where there are any: ``1:05:09``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
