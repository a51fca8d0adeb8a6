"""Worker processes that cut chips, each the images of its own, and hand them over part by part.

Each worker is a ``DataLoader`` of one process: parts are asked of the worker whose image has its turn, so chips arrive
in one order for any number of workers, an image is decoded by one of them, and the others get no further ahead than
``READY_PARTS``. One ``DataLoader`` of many processes would deal the parts of an image to all of them.
"""

import signal
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from sniper.errors import StorageError
from sniper.loader.config import FORKS
from sniper.loader.image_chips import ImageChips, Part, parts_of
from sniper.loader.sample import Sample
from sniper.loader.shuffle import ImageTask
from sniper.pixels.open import has_random_access
from sniper.pixels.resample import cut, planes

READY_PARTS = 4  # parts that a worker cuts ahead of their turn


def read_by_workers(source: ImageChips, tasks: Sequence[ImageTask], workers: int) -> Generator[Part]:
    """The parts of all tasks, in the order of ``tasks``, cut by up to ``workers`` processes.

    Raises:
        StorageError: a worker found no room to decode a huge image.
    """
    compile_kernels()
    tasks = _dealt(source, tasks)
    shares: list[Iterator[PackedPart | StorageError]] = []
    try:
        shares.extend(iter(_worker(source, tasks[first::workers])) for first in range(min(workers, len(tasks))))
        for number in range(len(tasks)):
            is_last = False
            while not is_last:
                packed = next(shares[number % workers])
                if isinstance(packed, StorageError):
                    raise packed
                part = unpack(packed)
                is_last = part.is_last
                yield part
    finally:
        _stop(shares)


def _dealt(source: ImageChips, tasks: Sequence[ImageTask]) -> list[ImageTask]:
    """Tasks for one worker each; those of huge files with random access are split, so that all workers share them."""
    dealt = []
    for task in tasks:
        parts = parts_of(task.chips, source.chips) if source.is_huge(task.image) else []
        if len(parts) > 1 and has_random_access(source.table.image_path(task.image)):
            dealt += [ImageTask(task.image, part) for part in parts]
        else:
            dealt.append(task)
    return dealt


class _Share(IterableDataset["PackedPart | StorageError"]):
    """The parts of one worker's tasks."""

    def __init__(self, source: ImageChips, tasks: Sequence[ImageTask]) -> None:
        self.source, self.tasks = source, tasks

    def __iter__(self) -> Iterator["PackedPart | StorageError"]:
        try:
            for task in self.tasks:
                yield from map(pack, self.source.read(task))
        except StorageError as error:  # as a value: DataLoader would put a trace into its message
            yield error


def _worker(source: ImageChips, tasks: Sequence[ImageTask]) -> DataLoader[Any]:
    return DataLoader(
        _Share(source, tasks),
        batch_size=None,
        num_workers=1,
        prefetch_factor=READY_PARTS,
        collate_fn=_as_it_is,
        worker_init_fn=_begin_worker,
        multiprocessing_context="fork" if FORKS else None,
        # Its own generator: DataLoader would else draw from torch's global one, and resuming would differ.
        generator=torch.Generator(),
    )


@dataclass(slots=True)
class PackedPart:
    """A part on its way out of a worker, all pixels in one block of shared memory.

    One block costs one file descriptor and stays in memory until its last chip is gone; so the receiver copies the
    chips out at once.
    """

    pixels: Tensor  # flat uint8
    shapes: list[tuple[int, ...]]
    part: Part  # samples without their pixels


def pack(part: Part) -> PackedPart:
    """A part made ready to leave a worker."""
    pixels = [sample.pixels.reshape(-1) for sample in part.samples]
    nothing = np.zeros((3, 0, 0), np.uint8)
    return PackedPart(
        torch.from_numpy(np.concatenate(pixels) if pixels else nothing.reshape(-1)),
        [sample.pixels.shape for sample in part.samples],
        replace(part, samples=[replace(sample, pixels=nothing) for sample in part.samples]),
    )


def unpack(packed: PackedPart) -> Part:
    """The part as it was before ``pack``, in memory of its own."""
    ends = np.cumsum([int(np.prod(shape)) for shape in packed.shapes])
    blocks = np.split(packed.pixels.numpy(), ends[:-1])
    samples: list[Sample] = [
        replace(sample, pixels=block.reshape(shape).copy())
        for sample, block, shape in zip(packed.part.samples, blocks, packed.shapes, strict=False)
    ]
    return replace(packed.part, samples=samples)


def _as_it_is(item: Any) -> Any:
    return item


def _begin_worker(_: int) -> None:
    cv2.setNumThreads(0)
    # Ctrl-C reaches every process of the terminal; the main one ends the workers, quietly.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _stop(shares: Sequence[Iterator[Any]]) -> None:
    # DataLoader stops its worker when its iterator is collected; a trace that is kept delays that for ever.
    for share in shares:  # all are told first, so that they end at the same time
        done = getattr(share, "_workers_done_event", None)
        if done is not None:
            done.set()
    for share in shares:
        stop = getattr(share, "_shutdown_workers", None)
        if stop is not None:
            stop()


def compile_kernels() -> None:
    """Compile (or load) the kernels that cut chips before workers fork, so that they inherit them."""
    pixel = np.zeros((1, 1, 3), np.uint8)
    cut(pixel, (0, 0), 1.5, (1, 1), (1, 1))
    planes(cut(pixel, (0, 0), 0.4, (1, 1), (1, 1)), (1, 1))
