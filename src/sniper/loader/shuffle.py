"""The order of an epoch's chips: decided ahead of time, on row numbers alone.

Images come in a random order, each once, and their chips pass a buffer of bounded size from which a random
chip leaves for each one that enters. The order is a function of the chip table's images, the seed, the
epoch, the rank and the sizes; so it does not depend on workers, and any batch can be reached without
decoding what came before it.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class _Purpose(IntEnum):
    IMAGES = 101
    BUFFER = 102


@dataclass(frozen=True, slots=True)
class ChipOrder:
    """The chips of one rank in one epoch, rows of the chip table. T chips, a multiple of the batch size."""

    read_order: NDArray[np.int64]  # (T,) as they enter the buffer: all chips of an image together
    output_order: NDArray[np.int64]  # (T,) as they leave it


@dataclass(frozen=True, slots=True)
class ImageTask:
    """An image to decode and the chips to cut from it."""

    image: int  # row of the annotation table
    chips: NDArray[np.int64]  # rows of the chip table, each once, in the order in which they enter the buffer


def chip_order(
    image_index: NDArray[np.integer],
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    capacity: int,
    rank: int = 0,
    world_size: int = 1,
) -> ChipOrder:
    """Order the chips of one epoch and deal them to ``world_size`` ranks.

    Each rank gets a contiguous part of the shuffled images' chips. All parts have the same number of chips,
    a multiple of ``batch_size``: the whole is padded by repeating it from its head, as often as needed. No
    chips give no batches.

    Args:
        image_index: (K,) image of each chip.
        seed: of the run.
        epoch: from 0.
        batch_size: chips of a batch on one rank.
        capacity: chips that the shuffle buffer holds.
        rank: this process.
        world_size: number of processes.
    """
    image_index = np.asarray(image_index)
    if len(image_index) == 0:
        return ChipOrder(np.zeros(0, np.int64), np.zeros(0, np.int64))
    rng = _generator(seed, epoch, _Purpose.IMAGES)
    images, row = np.unique(image_index, return_inverse=True)
    sequence = np.lexsort((rng.random(len(row)), rng.permutation(len(images))[row]))

    share = -(-len(sequence) // (world_size * batch_size)) * batch_size
    part = sequence[np.arange(rank * share, (rank + 1) * share) % len(sequence)]
    # A repeated image moves to where it came first, so that a rank decodes it once.
    _, first, row = np.unique(image_index[part], return_index=True, return_inverse=True)
    read_order = part[np.argsort(first[row], kind="stable")]
    return ChipOrder(read_order, _through_buffer(read_order, capacity, _generator(seed, epoch, _Purpose.BUFFER, rank)))


def remaining_tasks(order: ChipOrder, image_index: NDArray[np.integer], first: int) -> list[ImageTask]:
    """The images to decode for the emissions from number ``first`` on, in the order they are needed."""
    chips = order.read_order[np.isin(order.read_order, order.output_order[first:])]
    return image_tasks(chips[np.sort(np.unique(chips, return_index=True)[1])], image_index)


def image_tasks(chips: NDArray[np.int64], image_index: NDArray[np.integer]) -> list[ImageTask]:
    """The images of ``chips`` (K,), each chip once, as tasks: one for each run of chips of one image."""
    if len(chips) == 0:
        return []
    images = np.asarray(image_index)[chips]
    starts = np.flatnonzero(np.diff(images, prepend=-1))
    return [
        ImageTask(int(images[start]), group) for start, group in zip(starts, np.split(chips, starts[1:]), strict=True)
    ]


def chip_generator(seed: int, epoch: int, chip: int, *purpose: int) -> np.random.Generator:
    """The random numbers of one chip in one epoch, for each purpose others."""
    return np.random.default_rng((seed & 0xFFFFFFFFFFFFFFFF, epoch, chip, *purpose))


def _generator(seed: int, epoch: int, *purpose: int) -> np.random.Generator:
    return np.random.default_rng((seed & 0xFFFFFFFFFFFFFFFF, epoch, 0, *purpose))


def _through_buffer(read_order: NDArray[np.int64], capacity: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The order in which ``read_order`` leaves a buffer that gives up a random entry whenever it is full."""
    slots = rng.integers(capacity, size=max(0, len(read_order) - capacity)).tolist()
    buffer = read_order[:capacity].tolist()
    emitted = []
    for slot, incoming in zip(slots, read_order[capacity:].tolist(), strict=True):
        emitted.append(buffer[slot])
        buffer[slot] = incoming
    return np.concatenate([np.asarray(emitted, np.int64), rng.permutation(np.asarray(buffer, np.int64))])
