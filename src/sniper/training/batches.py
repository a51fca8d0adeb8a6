"""Where batches come from, and their groups: one group a step."""

import logging
from collections.abc import Generator, Iterator
from typing import NamedTuple, Protocol

from accelerate import Accelerator

from sniper.errors import DataError
from sniper.structures import Batch
from sniper.training.devices import pinned
from sniper.training.interrupt import StopRequest
from sniper.training.position import Position

logger = logging.getLogger("sniper")


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


class StepBatches(NamedTuple):
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


def steps_of_epoch(
    source: ChipSource, epoch: int, first_batch: int, accumulate: int, accelerator: Accelerator, asked: StopRequest
) -> Generator[StepBatches | None]:
    """Batches of an epoch in groups of ``accumulate``; the last group may be smaller.

    Ctrl-C reaches the loader's workers too, which then end: None, and nothing after it, if batches fail to come once
    the run was asked to stop.

    Raises:
        DataError: the epoch has no batches.
    """
    try:
        yield from _groups(source, epoch, first_batch, accumulate, accelerator)
    except Exception:
        if not asked.requested:
            raise
        yield None


def _groups(
    source: ChipSource, epoch: int, first_batch: int, accumulate: int, accelerator: Accelerator
) -> Generator[StepBatches]:
    stream = source.epoch(epoch, first_batch, accelerator.process_index, accelerator.num_processes)
    total = stream.num_batches
    if total < 1:
        raise DataError(f"epoch {epoch} has no chips to train on; check that objects are in range (sniper chips stats)")
    gathered: list[Batch] = []
    come = first_batch
    for come, batch in zip(range(first_batch + 1, total + 1), stream, strict=False):
        gathered.append(pinned(batch, accelerator.device))
        if len(gathered) == accumulate or come == total:
            yield StepBatches(gathered, epoch, come - len(gathered), total, getattr(stream, "decodes", None))
            gathered = []
    if come == 0:
        raise DataError(f"epoch {epoch} should have {total} batches and gave none; check the images of the dataset")
    if come < total:
        logger.warning("epoch %d ended after %d of %d batches", epoch, come, total)
