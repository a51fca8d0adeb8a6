"""Worker processes that cut chips, each the images of its own, and hand them over part by part.

Each worker is a ``DataLoader`` of one process: parts are asked of the worker whose image has its turn, so chips arrive
in one order for any number of workers, an image is decoded by one of them, and the others get no further ahead than
``READY_PARTS``. One ``DataLoader`` of many processes would deal the parts of an image to all of them. Pixels stay in
memory that both processes share (``slots``), and what passes between them is small.
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
from sniper.loader.colours import recolour
from sniper.loader.config import FORKS, AugmentConfig
from sniper.loader.image_chips import PART_BYTES, ImageChips, Part, parts_of
from sniper.loader.shuffle import ImageTask
from sniper.loader.slots import Slots
from sniper.pixels.open import has_random_access
from sniper.pixels.resample import cut, planes

READY_PARTS = 4  # parts that a worker cuts ahead of their turn


def read_by_workers(
    source: ImageChips, tasks: Sequence[ImageTask], workers: int, *, held_chips: int = 0
) -> Generator[Part]:
    """The parts of all tasks, in the order of ``tasks``, cut by up to ``workers`` processes.

    ``held_chips`` are those that the caller keeps of earlier parts. The pixels of more are copied on their way.

    Raises:
        StorageError: a worker found no room to decode a huge image.
    """
    compile_kernels(source.augment)
    tasks = _dealt(source, tasks)
    workers = min(workers, len(tasks))
    rooms = [_room(source, tasks, held_chips) if FORKS else None for _ in range(workers)]
    shares: list[Iterator[PackedPart | StorageError]] = []
    try:
        shares.extend(iter(_worker(source, tasks[first::workers], rooms[first])) for first in range(workers))
        for number in range(len(tasks)):
            is_last = False
            while not is_last:
                packed = next(shares[number % workers])
                if isinstance(packed, StorageError):
                    raise packed
                part = unpack(packed, rooms[number % workers])
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


def _room(source: ImageChips, tasks: Sequence[ImageTask], held_chips: int) -> Slots | None:
    """Room for all chips that one worker may have cut and the caller not yet let go; None where there is none."""
    sizes = 3 * source.chips.size_wh[np.concatenate([task.chips for task in tasks])].astype(np.int64).prod(axis=1)
    largest = min(max(len(task.chips) for task in tasks), PART_BYTES // int(sizes.min()) + 1)
    # Parts that are ready, the one being cut, the one that the caller looks at, and a chip that stands in for others.
    try:
        return Slots(held_chips + (READY_PARTS + 2) * largest + 1, int(sizes.max()))
    except OSError:  # a machine that promises no more memory than it has
        return None


class _Share(IterableDataset["PackedPart | StorageError"]):
    """The parts of one worker's tasks."""

    def __init__(self, source: ImageChips, tasks: Sequence[ImageTask], room: Slots | None) -> None:
        self.source, self.tasks, self.room = source, tasks, room

    def __iter__(self) -> Iterator["PackedPart | StorageError"]:
        try:
            for task in self.tasks:
                for part in self.source.read(task):
                    yield pack(part, self.room)
        except StorageError as error:  # as a value: DataLoader would put a trace into its message
            yield error


def _worker(source: ImageChips, tasks: Sequence[ImageTask], room: Slots | None) -> DataLoader[Any]:
    return DataLoader(
        _Share(source, tasks, room),
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
    """A part on its way out of a worker: its pixels lie in slots, or, without room for them, in a block.

    A block costs one file descriptor and stays in memory until its last chip is gone; so the receiver copies its
    chips out at once.
    """

    part: Part  # samples without their pixels
    shapes: list[tuple[int, ...]]  # of the pixels of each sample
    slots: list[int | None]  # of each sample
    block: Tensor  # flat uint8, the others one after the other


_NOTHING = np.zeros((3, 0, 0), np.uint8)


def pack(part: Part, room: Slots | None) -> PackedPart:
    """A part made ready to leave a worker."""
    chips = [sample.pixels for sample in part.samples]
    slots = [None if room is None else room.fill(chip) for chip in chips]
    left = [chip.reshape(-1) for chip, slot in zip(chips, slots, strict=True) if slot is None]
    return PackedPart(
        replace(part, samples=[replace(sample, pixels=_NOTHING) for sample in part.samples]),
        [chip.shape for chip in chips],
        slots,
        torch.from_numpy(np.concatenate(left) if left else _NOTHING.reshape(-1)),
    )


def unpack(packed: PackedPart, room: Slots | None) -> Part:
    """The part as it was before ``pack``; pixels stay in their slots, or are copied."""
    block, start = packed.block.numpy(), 0
    samples = []
    for sample, shape, slot in zip(packed.part.samples, packed.shapes, packed.slots, strict=True):
        if slot is None or room is None:
            end = start + int(np.prod(shape))
            chip, start = block[start:end].reshape(shape).copy(), end
        else:
            chip = room.show(slot, shape)
        samples.append(replace(sample, pixels=chip))
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


def compile_kernels(augment: AugmentConfig) -> None:
    """Compile (or load) the kernels that cut and recolour chips before workers fork, so that they inherit them."""
    pixel = np.zeros((1, 1, 3), np.uint8)
    cut(pixel, (0, 0), 1.5, (1, 1), (1, 1))
    padded = planes(cut(pixel, (0, 0), 0.4, (1, 1), (1, 1)), (1, 1))
    recolour(padded, (1, 1), augment, np.random.default_rng(0))
