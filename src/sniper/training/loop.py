"""Training: batches of chips in; a trained detector, checkpoints and a metrics log out."""

import logging
import resource
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from torch import Tensor, nn

from sniper.errors import DataError
from sniper.structures import Batch
from sniper.training.checkpoint import CheckpointMeta
from sniper.training.checkpoint_manager import CheckpointManager
from sniper.training.config import TrainConfig
from sniper.training.devices import agree, build_accelerator, compiled_parts, keep_freed_memory
from sniper.training.interrupt import StopRequest
from sniper.training.meter import DivergedError, Meter
from sniper.training.optim import build_average, build_optimizer, learning_rate, set_learning_rate, update_average
from sniper.training.position import Position
from sniper.training.progress import ProgressBar
from sniper.training.run import MetricsLog, RunFolder

__all__ = ["ChipEpoch", "ChipSource", "DivergedError", "Evaluate", "TrainConfig", "TrainResult", "train"]

logger = logging.getLogger("sniper")

Evaluate = Callable[[nn.Module], dict[str, float]]


class ChipEpoch(Protocol):
    """The batches of one epoch for one process. May also have ``decodes``, the images decoded so far."""

    @property
    def num_batches(self) -> int:
        """Batches of the whole epoch for one process, whatever batch it starts at; the same for every process."""
        ...

    def __iter__(self) -> Iterator[Batch]: ...


class ChipSource(Protocol):
    """Where batches come from: a pure function of epoch, batch and rank, so that a run can be resumed exactly."""

    def epoch(self, epoch: int, first_batch: int, rank: int, world_size: int) -> ChipEpoch:
        """Batches ``first_batch``, ``first_batch + 1``, ... of ``epoch`` for process ``rank`` of ``world_size``."""
        ...


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What came of a run. ``finished`` is False when it was asked to stop early; resuming goes on from there."""

    run: RunFolder
    finished: bool
    step: int
    epochs: float
    chips: int  # of all processes
    minutes: float  # of training, evaluation not counted, over all resumed pieces
    metrics: dict[str, float]  # of the last evaluation
    best: float | None  # of ``TrainConfig.best_metric``
    best_step: int
    peak_memory_mb: float  # resident memory of this process since it began
    peak_gpu_memory_mb: float | None


def train(
    detector: nn.Module,
    source: ChipSource,
    config: TrainConfig,
    run: RunFolder,
    *,
    evaluate: Evaluate | None = None,
    resume: bool = False,
    metadata: CheckpointMeta | None = None,
) -> TrainResult:
    """Train ``detector`` in place on the chips of ``source``; keep checkpoints and a metrics log in ``run``.

    ``evaluate`` gets the averaged detector if there is an average, else the trained one, in evaluation mode, and
    returns named numbers; every process calls it and the main process' answer counts. ``metadata`` (recipe, classes)
    goes into every checkpoint. With ``resume`` the run continues from its ``state.pt``, and gives the same weights in
    two pieces as in one, bit for bit on the CPU; a run killed before its first checkpoint starts from the beginning.
    Ctrl-C and SIGTERM end the step, save, and return with ``finished=False``.

    Raises:
        DivergedError: the loss is no longer a number.
        StorageError: a file cannot be written; the former checkpoint stays.
        CheckpointError: the state is damaged or does not fit the detector, optimiser or number of processes.
        DataError: the source has no batches.
    """
    accelerator = build_accelerator(config)
    device = accelerator.device
    if device.type == "cpu":
        keep_freed_memory()
    detector.to(device).train()
    if config.channels_last:
        detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = build_average(detector, config)
    losses_of, optimizer = accelerator.prepare(_LossesOf(detector), build_optimizer(detector, config))

    checkpoints = CheckpointManager(
        detector, optimizer, average, accelerator, config, run, metadata or CheckpointMeta()
    )
    resumed = resume and run.state.is_file()
    at = checkpoints.restore() if resumed else Position()
    metrics_log = MetricsLog(
        run,
        enabled=accelerator.is_main_process,
        resumed_step=at.step if resumed else None,
        tensorboard=config.tensorboard,
    )
    meter = Meter(accelerator, config, detector)
    display = ProgressBar(enabled=accelerator.is_main_process, done=at.share(config))

    # Closing the batches ends the loader's workers, also when an error ends the loop.
    batches = closing(_windows(source, at, config.accumulate, accelerator))
    with metrics_log, display, compiled_parts(detector, config.compile), StopRequest() as asked, batches as windows:
        if resume:
            logger.info("%s: going on from step %d, epoch %.2f", run.path, at.step, at.epochs)
        clock_start = time.monotonic() - 60 * at.minutes
        stop = at.finished(config)
        while not stop:
            try:
                window = next(windows)
            except Exception:
                if not asked.requested:  # Ctrl-C reaches the loader's workers too, which then end
                    raise
                checkpoints.save(at)
                break

            rate = learning_rate(config, at.share(config), at.step)
            set_learning_rate(optimizer, rate)
            for number, batch in enumerate(window.batches):
                _seed(config.seed, accelerator.process_index, window.epoch, window.first_batch + number)
                last = number + 1 == len(window.batches)
                with nullcontext() if last else accelerator.no_sync(losses_of):
                    losses = losses_of(batch.to(device, channels_last=config.channels_last))
                    accelerator.backward(sum(losses.values()))
                meter.add(at.step + 1, losses, len(batch))
            if config.clip_norm is not None:
                accelerator.clip_grad_norm_(detector.parameters(), config.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            if average is not None and config.ema is not None:
                update_average(average, detector, config.ema, at.step)
            meter.decoded(window.decodes)

            minutes, told_to_stop = agree(accelerator, (time.monotonic() - clock_start) / 60, asked.requested)
            before, at = at, window.after(at, minutes, accelerator.num_processes)
            stop = told_to_stop or at.finished(config)

            if stop or at.step % config.log_every == 0:
                row = meter.row(at, rate)
                metrics_log.write(row)
                display.show(at.share(config), row)
            if evaluate is not None and at.evaluation_due(before, config):
                meter.check()
                evaluation_start = time.monotonic()
                metrics = _evaluate(evaluate, detector if average is None else average.module, accelerator)
                detector.train()
                at = checkpoints.evaluated(at, metrics)
                metrics_log.write({"step": at.step, "epoch": at.epochs, "minutes": at.minutes, **_prefixed(metrics)})
                clock_start += time.monotonic() - evaluation_start
                meter.pause(time.monotonic() - evaluation_start)
                stop = stop or at.finished(config)
            if stop or at.checkpoint_due(config):
                meter.check()
                at = checkpoints.save(at)

        finished = at.finished(config)
        logger.info(
            "%s at step %d, epoch %.2f, %.1f minutes",
            "finished" if finished else "stopped",
            at.step,
            at.epochs,
            at.minutes,
        )
        if not finished:
            logger.warning("training was stopped and can be continued: sniper train --resume %s", run.path)
    accelerator.wait_for_everyone()
    return _result(run, at, finished, device)


class _LossesOf(nn.Module):
    """``detector.losses`` as ``forward``, where autocast and gradient exchange attach."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = self.detector.losses(batch)  # type: ignore[operator]
        return losses


class _Window(NamedTuple):
    """The batches of one step, all fetched before it starts."""

    batches: list[Batch]
    epoch: int
    first_batch: int
    num_batches: int  # of the epoch
    decodes: int | None  # images so far in the epoch, if the source tells

    def after(self, at: Position, minutes: float, processes: int) -> Position:
        """The position after this step."""
        chips = processes * sum(len(batch) for batch in self.batches)
        return at.after_step(self.epoch, self.first_batch + len(self.batches), self.num_batches, chips, minutes)


def _windows(source: ChipSource, at: Position, accumulate: int, accelerator: Accelerator) -> Generator[_Window]:
    """Batches in groups of ``accumulate``, epoch after epoch without end; an epoch's last group may be smaller."""
    epoch, first = at.epoch, at.batch
    while True:
        stream = source.epoch(epoch, first, accelerator.process_index, accelerator.num_processes)
        total = stream.num_batches
        if total < 1:
            raise DataError(
                f"epoch {epoch} has no chips to train on; check that objects are in range (sniper chips stats)"
            )
        gathered: list[Batch] = []
        come = first
        for come, batch in zip(range(first + 1, total + 1), stream, strict=False):
            gathered.append(batch)
            if len(gathered) == accumulate or come == total:
                start = come - len(gathered)
                yield _Window(gathered, epoch, start, total, getattr(stream, "decodes", None))
                gathered = []
        if come < total:
            if come == 0:
                raise DataError(
                    f"epoch {epoch} should have {total} batches and gave none; check the images of the dataset"
                )
            logger.warning("epoch %d ended after %d of %d batches", epoch, come, total)
        epoch, first = epoch + 1, 0


def _seed(seed: int, rank: int, epoch: int, batch: int) -> None:
    """Seed torch (all devices), NumPy and Python, so that random numbers need not be saved and restored."""
    set_seed(int(np.random.SeedSequence((seed, rank, epoch, batch)).generate_state(1)[0]))


def _evaluate(evaluate: Evaluate, detector: nn.Module, accelerator: Accelerator) -> dict[str, float]:
    detector.eval()
    # Images of many shapes: compiling for each would take longer than running them.
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        metrics = {name: float(value) for name, value in evaluate(detector).items()}
    box = [metrics]
    if accelerator.num_processes > 1:
        broadcast_object_list(box)
    return box[0]


def _prefixed(metrics: dict[str, float]) -> dict[str, float]:
    return {f"eval/{name}": value for name, value in metrics.items()}


def _result(run: RunFolder, at: Position, finished: bool, device: torch.device) -> TrainResult:
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, KiB elsewhere
    return TrainResult(
        run=run,
        finished=finished,
        step=at.step,
        epochs=at.epochs,
        chips=at.chips,
        minutes=at.minutes,
        metrics=dict(at.metrics),
        best=at.best,
        best_step=at.best_step,
        peak_memory_mb=resident / (2**20 if sys.platform == "darwin" else 2**10),
        peak_gpu_memory_mb=torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None,
    )
