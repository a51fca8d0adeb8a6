"""How long a step of training takes on this machine, and how much memory: from a few real ones."""

import time
from collections.abc import Callable, Generator
from contextlib import closing
from typing import NamedTuple

import psutil
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sniper.nn.host_memory import keep_freed_memory
from sniper.structures import Batch
from sniper.training.config import TrainConfig
from sniper.training.devices import build_accelerator
from sniper.training.optim import build_optimizer, set_learning_rate

MAX_STEPS = 20  # enough for a mean
_MIN_STEPS = 3  # of the full batch that must fit into the time; else a smaller one is measured

# The batches of so many chips of the first epoch, decoded and cut as training has them.
BatchesOf = Callable[[int], Generator[Batch]]


class Calibration(NamedTuple):
    """What some steps took. A step is of ``accumulate`` batches of ``batch_chips`` chips, on one device."""

    device: str
    batch_chips: int
    step_s: float  # of a whole step
    waiting_share: float  # of it, for chips
    measured_chips: int  # of a measured batch; fewer than ``batch_chips`` where those would take too long
    measured_steps: int
    fixed_mb: float  # memory that does not depend on the batch: GPU memory, else resident memory of the process
    chip_mb: float  # memory of each chip of a batch
    flops_a_chip: float  # additions and multiplications, forward and backward

    @property
    def peak_mb(self) -> float:
        """Memory of training with the full batch."""
        return self.fixed_mb + self.batch_chips * self.chip_mb


class _Timed(NamedTuple):
    """Steps of one size of batch."""

    chips: int
    seconds: list[float]  # of each batch
    waited: list[float]  # of these, for chips
    memory_mb: float  # at most

    @property
    def computing_s(self) -> float:
        """Seconds of a batch, waiting left out."""
        return max(sum(self.seconds) - sum(self.waited), 1e-6) / max(len(self.seconds), 1)


def calibrate(
    detector: nn.Module, batches_of: BatchesOf, config: TrainConfig, batch_chips: int, *, seconds: float
) -> Calibration:
    """Train ``detector`` for some steps, about ``seconds`` long, at most the first of which is begun in any case.

    One chip is learned first, to find out whether steps of ``batch_chips`` chips fit into the time. Where they do not,
    smaller ones are measured, and time and memory of the full ones are taken to grow with the number of chips.

    Raises:
        DataError: a chip cannot be read.
    """
    ends = time.monotonic() + seconds
    accelerator = build_accelerator(config)
    if accelerator.device.type == "cpu":
        keep_freed_memory()  # as training does: what the process holds after a step is then its peak
    detector.to(accelerator.device).train()
    if config.channels_last:
        detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = accelerator.prepare(build_optimizer(detector, config))
    set_learning_rate(optimizer, config.learning_rate * config.warmup_start)  # as a run begins
    held_mb = _memory_mb(accelerator.device)
    run = _Run(accelerator, detector, optimizer, config)

    with FlopCounterMode(display=False) as counter:
        first = run.steps(batches_of(1), 1, 1, ends)
    flops = counter.get_total_flops()
    # The first step also compiled, opened and allocated; where it left no time for another, it has to do.
    probe = run.steps(batches_of(1), 1, 2, ends) if time.monotonic() + first.computing_s < ends else first
    fitting = int(max(ends - time.monotonic(), 0.0) / (_MIN_STEPS * probe.computing_s))
    chips = min(batch_chips, fitting)
    timed = run.steps(batches_of(chips), chips, MAX_STEPS, ends) if chips > 1 else probe
    if not timed.seconds:  # the epoch has fewer chips
        timed = probe

    more = timed.chips - probe.chips
    chip_mb = (timed.memory_mb - probe.memory_mb) / more if more else probe.memory_mb - held_mb
    chip_mb = max(chip_mb, 0.0)
    total, waited = sum(timed.seconds), sum(timed.waited)
    return Calibration(
        device=str(accelerator.device),
        batch_chips=batch_chips,
        step_s=config.accumulate * total / len(timed.seconds) * batch_chips / timed.chips,
        waiting_share=waited / total,
        measured_chips=timed.chips,
        measured_steps=len(timed.seconds),
        fixed_mb=max(timed.memory_mb - timed.chips * chip_mb, 0.0),
        chip_mb=chip_mb,
        flops_a_chip=float(flops),
    )


class _Run(NamedTuple):
    """What takes steps."""

    accelerator: Accelerator
    detector: nn.Module
    optimizer: torch.optim.Optimizer
    config: TrainConfig

    def steps(self, batches: Generator[Batch], chips: int, most: int, ends: float) -> _Timed:
        """Steps until the next would end too late, one at least. The first of several warms up and is left out."""
        device, seconds, waited = self.accelerator.device, [], []
        with closing(batches):
            for _ in range(most):
                began = time.monotonic()
                batch = next(batches, None)
                if batch is None:
                    break
                came = time.monotonic()
                self._step(batch.to(device, channels_last=self.config.channels_last))
                _wait_for(device)
                seconds.append(time.monotonic() - began)
                waited.append(came - began)
                if time.monotonic() + seconds[-1] > ends:
                    break
        kept = slice(1 if len(seconds) > 1 else 0, None)
        return _Timed(chips, seconds[kept], waited[kept], _peak_mb(device))

    def _step(self, batch: Batch) -> None:
        with self.accelerator.autocast():
            losses = self.detector.losses(batch)  # type: ignore[operator]
        self.accelerator.backward(sum(losses.values()))
        if self.config.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.detector.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()


def _wait_for(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.memory_allocated(device)) / 2**20
    return float(psutil.Process().memory_info().rss) / 2**20


def _peak_mb(device: torch.device) -> float:
    """Most memory so far; of a CPU's process what it holds, for freed memory is kept."""
    return float(torch.cuda.max_memory_allocated(device)) / 2**20 if device.type == "cuda" else _memory_mb(device)
