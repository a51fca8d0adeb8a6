"""Losses, metrics and speed between two lines of the metrics log, read from the device only when a line is written."""

import math

import torch
from accelerate import Accelerator
from torch import Tensor

from sniper.detectors.protocol import ReportsMetrics
from sniper.errors import SniperError
from sniper.training.clock import TrainingClock
from sniper.training.config import TrainConfig
from sniper.training.position import Position

_FP16_PATIENCE = 100  # batches in a row that loss scaling may need to find its scale


class DivergedError(SniperError):
    """The loss, or a weight, is no longer a number."""


class Meter:
    """Collects losses, chips and decoded images, and asks a detector for its metrics if it has any."""

    def __init__(
        self, accelerator: Accelerator, config: TrainConfig, clock: TrainingClock, detector: object = None
    ) -> None:
        self._accelerator = accelerator
        self._clock = clock
        self._measured = detector if isinstance(detector, ReportsMetrics) else None
        if self._measured is not None:
            self._measured.training_metrics()  # what it saw before does not count
        self._config = config
        self._names: tuple[str, ...] = ()
        self._pending: list[Tensor] = []  # (number of losses,) each, on the device
        self._pending_steps: list[int] = []
        self._not_finite_in_a_row = 0
        self._decoded_before = 0
        self._restart()

    def _restart(self) -> None:
        self._sums = torch.zeros(len(self._names))
        self._batches = 0
        self._chips = 0
        self._images: int | None = None
        self._since = self._clock.seconds

    def add(self, step: int, losses: dict[str, Tensor], chips: int) -> None:
        """The losses of one batch of ``chips`` chips of this process, in step number ``step``."""
        if tuple(losses) != self._names:
            if self._names or not losses:
                raise SniperError(
                    f"the detector's losses are named {tuple(losses)} at step {step} and were {self._names} before; "
                    "return the same names for every batch, zeros where there is nothing to learn"
                )
            self._names = tuple(losses)
            self._sums = torch.zeros(len(self._names))
        self._pending.append(torch.stack([loss.detach().float() for loss in losses.values()]))
        self._pending_steps.append(step)
        self._chips += chips

    def decoded(self, images: int | None) -> None:
        """Images that the source has decoded so far in its epoch, if it tells."""
        if images is not None:
            fresh = images - self._decoded_before if images >= self._decoded_before else images
            self._images = (self._images or 0) + fresh
            self._decoded_before = images

    def check(self) -> None:
        """Read the pending losses.

        Raises:
            DivergedError: one is not finite (in fp16: in many batches in a row, as loss scaling skips single ones).
        """
        if not self._pending:
            return
        losses = self._accelerator.reduce(torch.stack(self._pending), reduction="mean").cpu()  # (batches, losses)
        for values, step in zip(losses, self._pending_steps, strict=True):
            if bool(torch.isfinite(values).all()):
                self._sums += values
                self._batches += 1
                self._not_finite_in_a_row = 0
            else:
                self._not_finite_in_a_row += 1
                if self._config.precision != "fp16" or self._not_finite_in_a_row > _FP16_PATIENCE:
                    raise DivergedError(self._diverged(step, values))
        self._pending, self._pending_steps = [], []

    def row(self, at: Position, rate: float) -> dict[str, float]:
        """Means since the last row, for metrics.csv."""
        self.check()
        seconds = max(self._clock.seconds - self._since, 1e-9)
        means = (self._sums / self._batches if self._batches else torch.full_like(self._sums, math.nan)).tolist()
        processes = self._accelerator.num_processes
        row = {"step": at.step, "epoch": at.epochs, "minutes": at.minutes, "learning_rate": rate, "loss": sum(means)}
        row |= {f"loss/{name}": mean for name, mean in zip(self._names, means, strict=True)}
        row |= self._metrics()
        row["chips_per_s"] = self._chips * processes / seconds
        if self._images is not None:
            row["images_per_s"] = self._images * processes / seconds
        self._restart()
        return row

    def _metrics(self) -> dict[str, float]:
        """The detector's shares since the last row."""
        shares = {} if self._measured is None else self._measured.training_metrics()
        if not shares:
            return {}
        counts = torch.stack([share.float() for share in shares.values()]).to(self._accelerator.device)
        found, total = self._accelerator.reduce(counts, reduction="sum").T.tolist()
        return {
            f"metric/{name}": part / whole if whole else math.nan
            for name, part, whole in zip(shares, found, total, strict=True)
        }

    def _diverged(self, step: int, values: Tensor) -> str:
        named = ", ".join(f"{name} {value:.3g}" for name, value in zip(self._names, values.tolist(), strict=True))
        return f"the loss is not a number at step {step} ({named}); {advice(self._config)}"


def advice(config: TrainConfig) -> str:
    """What to try against a diverging run."""
    ways = [f"lower train.learning_rate (now {config.learning_rate:g})"]
    if config.clip_norm is None:
        ways.append("set train.clip_norm=10")
    if config.precision == "fp16":
        ways.append("set train.precision=bf16")
    return "try to " + " or ".join(ways)
