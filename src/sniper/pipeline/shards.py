"""Work split by image: made in this process, in several of this machine, or in all processes of a launch.

A shard is made from beginning to end by one process, and inference batches images of one shard alone. So it does not
matter who makes which: the results of any number of processes are equal, bit for bit where each has as many threads
(``OMP_NUM_THREADS``; kernels of other thread counts may round otherwise).

One process alone needs no torch; what several need is imported when they are asked for.
"""

import shutil
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sniper.errors import RecipeError
from sniper.inference.backend import Backend
from sniper.pipeline.model import Model, load_model
from sniper.pipeline.watch import Result, ShardJob, Source, Watch

if TYPE_CHECKING:
    from torch import nn

MAX_SHARD_IMAGES = 200  # what a killed process does again at most
MANY_SHARDS = 64  # enough for the processes of one machine to end at about the same time


def opened(
    checkpoint: Path | str | Model,
    detector: "nn.Module | None",
    device: str,
    *,
    by_ranks: bool = False,
    form: Path | str | None = None,
    overrides: Iterable[str] = (),
    classes: Path | str | None = None,
) -> Model:
    """The model of a checkpoint, unless it is one; each process of a launch takes its own GPU for ``auto``.

    Raises:
        RecipeError: ``overrides`` for a model that is loaded already; or as ``load_model``.
    """
    overrides = list(overrides)
    if isinstance(checkpoint, Model):
        if overrides:
            raise RecipeError(f"{overrides[0]}: the model is loaded already; give overrides to sniper.load_model")
        return checkpoint if classes is None else checkpoint.with_classes(classes)
    if by_ranks and device == "auto" and _launched():
        from sniper.pipeline.ranks import process_device

        device = str(process_device())
    return load_model(checkpoint, detector=detector, device=device, form=form, overrides=overrides, classes=classes)


def is_main() -> bool:
    """Whether this is the first process of its launch, which writes what all have made."""
    from sniper.pipeline.ranks import this_process

    return this_process()[0] == 0


def _launched() -> bool:
    """Whether this process is one of several of a launch."""
    from sniper.pipeline.ranks import this_process

    return this_process()[1] > 1


def split(
    images: int, in_flight: int, *, alone: Sequence[bool] | None = None, max_images: int = MAX_SHARD_IMAGES
) -> list[range]:
    """Shards of consecutive images; they depend on the data alone, not on the number of processes.

    Each holds a multiple of ``in_flight`` images, those that inference batches together, so that cutting changes no
    group. ``alone`` marks images that are shards of their own, being large.
    """
    groups = min(-(-images // (in_flight * MANY_SHARDS)), max_images // in_flight)
    size = in_flight * max(groups, 1)
    shards: list[range] = []
    start = 0
    for end in range(1, images + 1):
        cut = end == images or end - start == size
        if alone is not None:
            cut = cut or alone[end - 1] or alone[end]
        if cut:
            shards.append(range(start, end))
            start = end
    return shards


def make_shards(
    job: ShardJob[Result],
    numbers: Sequence[int],
    backend: Backend,
    watch: Watch,
    *,
    processes: int = 1,
    source: Source | None = None,
    by_ranks: bool = False,
) -> Generator[Result, None, None]:
    """The results of the shards of these numbers, in their order.

    Made by this process with ``backend``; by ``processes`` new ones, each with its own network from ``source``; or, if
    ``by_ranks``, by all processes of this launch (torchrun, accelerate), each of which must call this and gets the
    results of all.

    Raises:
        SniperError: what a shard's maker raised, in whichever process, or a process was ended from outside.
    """
    if by_ranks and _launched():
        from sniper.pipeline.ranks import make_by_ranks

        yield from make_by_ranks(job, numbers, backend, watch)
    elif processes == 1 or len(numbers) < 2:
        for number in numbers:
            yield job.make(number, backend, watch)
    else:
        from sniper.pipeline.processes import in_processes

        assert source is not None
        yield from in_processes(job, numbers, source, min(processes, len(numbers)), watch)


class Parts(NamedTuple):
    """Files of finished shards beside an output, so that work that was stopped goes on where it was."""

    folder: Path
    name: str  # of all of them, made of a key of everything that can change what is in them

    @classmethod
    def beside(cls, output: Path, name: str) -> "Parts":
        """``<output>.parts``."""
        return cls(output.with_name(output.name + ".parts"), name)

    def path(self, number: int, suffix: str = ".safetensors") -> Path:
        """The file of a shard."""
        return self.folder / f"{self.name}-{number:06d}{suffix}"

    def remove(self) -> None:
        """Remove them all, those of other keys too."""
        shutil.rmtree(self.folder, ignore_errors=True)
