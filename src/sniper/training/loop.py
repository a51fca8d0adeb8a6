"""Training: batches of chips in; a trained detector, checkpoints and a metrics log out."""

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from torch import Tensor, nn

from sniper.nn.host_memory import keep_freed_memory
from sniper.structures import Batch
from sniper.training.batches import ChipEpoch, ChipSource, steps_of_epoch
from sniper.training.checkpoint import CheckpointMeta
from sniper.training.checkpoint_manager import CheckpointManager
from sniper.training.clock import TrainingClock
from sniper.training.config import TrainConfig
from sniper.training.devices import (
    agree,
    build_accelerator,
    compiled_parts,
    share_buffers,
    wait_for_everyone,
)
from sniper.training.interrupt import StopRequest
from sniper.training.memory import peak_memory_mb
from sniper.training.meter import DivergedError, Meter
from sniper.training.optim import build_average, build_optimizer, learning_rate, set_learning_rate, update_average
from sniper.training.position import Evaluated, Position
from sniper.training.profile import StepProfile, StepShares
from sniper.training.progress import ProgressBar
from sniper.training.run import MetricsLog, RunFolder

__all__ = [
    "BeforeEpoch", "ChipEpoch", "ChipSource", "DivergedError", "Evaluate", "Evaluated", "TrainConfig", "TrainResult",
    "train",
]  # fmt: skip

logger = logging.getLogger("sniper")

Evaluate = Callable[[nn.Module], Evaluated]
BeforeEpoch = Callable[[int, nn.Module], None]


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What came of a run. ``finished`` is False when a signal stopped it early; resuming goes on from there."""

    run: RunFolder
    evaluated: nn.Module  # what evaluations are of: the averaged detector if there is an average, else the trained one
    finished: bool
    signal: int | None  # that asked to stop, also one that came with the last step; SIGTERM if to another process
    step: int
    epochs: float
    chips: int  # of all processes
    minutes: float  # of training (see ``TrainingClock``), over all resumed pieces
    metrics: dict[str, float]  # of the last evaluation
    best: float | None  # of ``TrainConfig.best_metric``
    best_step: int
    peak_memory_mb: float  # resident memory of this process since it began
    peak_gpu_memory_mb: float | None
    shares: StepShares | None = None  # of a step, of a run that was profiled


def train(
    detector: nn.Module,
    source: ChipSource,
    config: TrainConfig,
    run: RunFolder,
    *,
    before_epoch: BeforeEpoch | None = None,
    evaluate: Evaluate | None = None,
    rehearsal: Evaluate | None = None,
    resume: bool = False,
    profile: bool = False,
    metadata: CheckpointMeta | None = None,
) -> TrainResult:
    """Train ``detector`` in place on the chips of ``source``; keep checkpoints and a metrics log in ``run``.

    With ``resume`` the run continues from its ``state.pt``, and gives the same weights in two pieces as in one, bit for
    bit on the CPU; a run killed before its first checkpoint starts from the beginning. Ctrl-C and SIGTERM end the
    step, save, and return with ``finished=False``.

    Args:
        detector: moved to the device of ``config`` and trained.
        source: asked for each epoch's batches.
        config: length, optimiser, schedule, checkpoints.
        run: folder of the run.
        before_epoch: called in every process before the batches of an epoch are asked for, with its number and the
            trained detector; also for the epoch in which a resumed run goes on. No time of training.
        evaluate: gets the averaged detector if there is an average, else the trained one, and returns named numbers
            and the scores to draw by; every process calls it and the main process' answer counts. No time of training.
        rehearsal: an ``evaluate`` of little data, called before the first step of a run for the errors that it raises.
        resume: go on with the run in ``run``.
        profile: profile some steps after warm-up, into ``run.trace``.
        metadata: recipe and classes, for every checkpoint.

    Detectors are handed to ``before_epoch``, ``evaluate`` and ``rehearsal`` in evaluation mode. Random numbers are
    seeded for each batch: what these callables draw changes nothing.

    Raises:
        DivergedError: the loss is no longer a number.
        StorageError: the disk has no room for checkpoints, or a file cannot be written; the latest checkpoint stays.
        CheckpointError: the state is damaged or does not fit the detector, optimiser or number of processes.
        DataError: the source has no batches.
        RecipeError: ``best_metric`` is not among the numbers of ``evaluate`` or ``rehearsal``.
    """
    accelerator = build_accelerator(config)
    device = accelerator.device
    if device.type == "cpu":
        keep_freed_memory()
    detector.to(device).train()
    if config.channels_last:
        detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = build_average(detector, config)
    evaluated: nn.Module = detector if average is None else average.module
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
        evaluation_owed=at.evaluation_owed,
        tensorboard=config.tensorboard,
    )
    clock = TrainingClock(at.minutes)
    meter = Meter(accelerator, config, clock, detector)
    profiled = StepProfile(detector, device, run.trace if profile and accelerator.is_main_process else None)
    display = ProgressBar(enabled=accelerator.is_main_process, done=at.share(config))

    room, compiled = checkpoints.reserving(best=evaluate is not None), compiled_parts(detector, config.compile)
    with metrics_log, room, display, compiled, StopRequest() as asked, profiled:
        if resume:
            logger.info("%s: going on from step %d, epoch %.2f", run.path, at.step, at.epochs)
        if rehearsal is not None and at.step == 0:
            with clock.stopped():
                checkpoints.score(_evaluate(rehearsal, evaluated, accelerator))

        def measured(at: Position, evaluate: Evaluate) -> Position:
            with clock.stopped():
                after = checkpoints.evaluated(at, _evaluate(evaluate, evaluated, accelerator))
                with checkpoints.saved_if_full(at):
                    metrics_log.write(_evaluation_row(after))
            return after

        if evaluate is not None and at.evaluation_owed:
            at = checkpoints.save(measured(at, evaluate))
        elif resumed:
            checkpoints.complete(at)
        epoch, stop = at.epoch, at.finished(config)
        while not stop:
            if before_epoch is not None:
                with clock.stopped(), evaluating(detector):
                    before_epoch(epoch, detector)

            first_batch = at.batch if epoch == at.epoch else 0
            # Closing the steps ends the loader's workers, also when an error ends the loop.
            with closing(steps_of_epoch(source, epoch, first_batch, config.accumulate, accelerator, asked)) as steps:
                for step in profiled.waiting(steps):
                    if step is None:  # the workers ended before the step could
                        at, stop = checkpoints.save(at), True
                        break

                    rate = learning_rate(config, at.share(config), at.step)
                    set_learning_rate(optimizer, rate)
                    for number, batch in enumerate(step.batches, start=1):
                        _seed(config.seed, accelerator.process_index, epoch, step.first_batch + number - 1)
                        last = number == len(step.batches)
                        with nullcontext() if last else accelerator.no_sync(losses_of):
                            with profiled.span("losses"):
                                losses = losses_of(batch.to(device, channels_last=config.channels_last))
                            with profiled.span("backward"):
                                accelerator.backward(sum(losses.values()) / len(step.batches))
                        meter.add(at.step + 1, losses, len(batch))
                    with profiled.span("update"):
                        if config.clip_norm is not None:
                            accelerator.clip_grad_norm_(detector.parameters(), config.clip_norm)
                        optimizer.step()
                        optimizer.zero_grad()
                        if average is not None and config.ema is not None:
                            update_average(average, detector, config.ema, at.step)
                    meter.decoded(step.decodes)
                    profiled.step_done()

                    minutes, told_to_stop = agree(accelerator, clock.minutes, asked.requested)
                    asked.number = asked.number or (signal.SIGTERM if told_to_stop else None)
                    before, at = at, step.after(at, minutes, accelerator.num_processes)
                    stop = told_to_stop or at.finished(config)

                    if stop or at.step % config.log_every == 0:
                        row = meter.row(at, rate)
                        with checkpoints.saved_if_full(at):
                            metrics_log.write(row)
                        display.show(at.share(config), row)
                    if evaluate is not None and at.evaluation_due(before, config):
                        meter.check()
                        # Saved first: an evaluation may fail, or take longer than the machine is had for.
                        at = checkpoints.save(replace(at, evaluation_owed=True))
                        at = measured(at, evaluate)
                        stop = stop or at.finished(config)
                    if stop or at.checkpoint_due(config):
                        meter.check()
                        at = checkpoints.save(at)
                    if stop:
                        break
            epoch += 1

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
    share_buffers(detector)
    wait_for_everyone()
    return replace(_result(run, evaluated, at, finished, asked.number, device), shares=profiled.shares)


class _LossesOf(nn.Module):
    """``detector.losses`` as ``forward``, where autocast and gradient exchange attach."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = self.detector.losses(batch)  # type: ignore[operator]
        return losses


def _seed(seed: int, rank: int, epoch: int, batch: int) -> None:
    """Seed torch (all devices), NumPy and Python, so that random numbers need not be saved and restored."""
    set_seed(int(np.random.SeedSequence((seed, rank, epoch, batch)).generate_state(1)[0]))


@contextmanager
def evaluating(detector: nn.Module) -> Iterator[None]:
    """While entered, ``detector`` is in evaluation mode, the same in all processes, without gradients, not compiled."""
    share_buffers(detector)
    training = detector.training
    detector.eval()
    # Images of many shapes: compiling for each would take longer than running them.
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        yield
    detector.train(training)


def _evaluate(evaluate: Evaluate, detector: nn.Module, accelerator: Accelerator) -> Evaluated:
    """The main process' answer, in every process."""
    with evaluating(detector):
        told = evaluate(detector)
        box = [told._replace(metrics={name: float(value) for name, value in told.metrics.items()})]
    if accelerator.num_processes > 1:
        broadcast_object_list(box)
    return box[0]


def _evaluation_row(at: Position) -> dict[str, float]:
    numbers = {f"eval/{name}": value for name, value in at.metrics.items()}
    return {"step": at.step, "epoch": at.epochs, "minutes": at.minutes, **numbers}


def _result(
    run: RunFolder, evaluated: nn.Module, at: Position, finished: bool, number: int | None, device: torch.device
) -> TrainResult:
    return TrainResult(
        run=run,
        evaluated=evaluated,
        finished=finished,
        signal=number,
        step=at.step,
        epochs=at.epochs,
        chips=at.chips,
        minutes=at.minutes,
        metrics=dict(at.metrics),
        best=at.best,
        best_step=at.best_step,
        peak_memory_mb=peak_memory_mb(),
        peak_gpu_memory_mb=torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None,
    )
