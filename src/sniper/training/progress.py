"""What a person sees while it trains: a bar on a terminal, a line an interval elsewhere."""

import logging
import math
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from sniper.progress import clock_text

logger = logging.getLogger("sniper")
_TICKS = 10_000  # the bar's resolution


class ProgressBar:
    """Shows share done, losses, metrics, chips/s, images/s and time left. With ``enabled=False`` it shows nothing."""

    def __init__(self, *, enabled: bool, done: float, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._enabled = enabled
        self._started = time.monotonic()
        self._done_at_start = done
        if enabled and console.is_terminal:
            columns = (
                TextColumn("training"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.fields[line]}"),
            )
            self._bar = Progress(*columns, console=console)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(
                "training", total=_TICKS, completed=round(_TICKS * self._done_at_start), line=""
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, done: float, row: Mapping[str, float]) -> None:
        """``done`` is the share of the run in [0, 1]; ``row`` what goes to metrics.csv."""
        if not self._enabled:
            return
        line = self._line(done, row)
        if self._bar is not None:
            self._bar.update(self._task, completed=_TICKS * done, line=line)
            logger.debug(line)
        else:
            logger.info(line)

    def _line(self, done: float, row: Mapping[str, float]) -> str:
        step = int(row["step"])
        total = max(step, round(step / done)) if done > 0 else step
        parts = [f"step {step}/{total}", f"epoch {row['epoch']:.2f}", f"loss {row['loss']:.4g}"]
        parts += [f"{name.removeprefix('loss/')} {row[name]:.3g}" for name in row if name.startswith("loss/")]
        metrics = {name.removeprefix("metric/"): row[name] for name in row if name.startswith("metric/")}
        parts += [f"{name} {value:.3f}" for name, value in metrics.items() if not math.isnan(value)]
        parts.append(f"{row['chips_per_s']:.1f} chips/s")
        if row.get("images_per_s"):  # none between the decoding of one epoch and the next
            parts.append(f"{row['images_per_s']:.1f} images/s")
        gained = done - self._done_at_start
        if gained > 0:
            parts.append(f"{clock_text((time.monotonic() - self._started) * (1 - done) / gained)} left")
        return ", ".join(parts)
