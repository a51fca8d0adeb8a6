"""The chip loader: a seeded, sharded, resumable stream of batches that decodes each image once.

See ``docs/method.md``, "The loader".
"""

import logging
import signal
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from sniper.chips.table import ChipTable
from sniper.data.table import AnnotationTable
from sniper.errors import DataError
from sniper.loader.collate import collate
from sniper.loader.config import _FORKS, AugmentConfig, LoaderConfig, worker_count
from sniper.loader.image_chips import ImageChips, Unreadable, pack, unpack
from sniper.loader.sample import Sample
from sniper.loader.shuffle import ImageTask, chip_order, remaining_tasks
from sniper.pixels.resample import cut, planes
from sniper.structures import Batch

log = logging.getLogger("sniper")


def buffer_capacity(chips: ChipTable, shuffle_chips: int) -> int:
    """Chips in the shuffle buffer: as many as fit into the memory of ``shuffle_chips`` of 512 px.

    One, that is no buffer, where no image has more than one chip: images come in random order already.
    """
    if len(np.unique(chips.image_index)) == len(chips):
        return 1
    padded = float(chips.size_wh.astype(np.int64).prod(axis=1).mean())
    return max(1, int(shuffle_chips * min(1.0, 512 * 512 / padded)))


class ChipLoader:
    """The batches of one epoch on one rank.

    Batches are the same, bit for bit, for any number of workers, and those from ``first_batch`` on are the
    same as in an epoch read from its start. Each image is decoded at most once, and only if chips of it are
    still to come. Iterating again starts over at ``first_batch``. With ``outlines``, batches carry those of a table
    that has masks (``Batch.polygons``).

    Attributes:
        num_batches: batches of the whole epoch; ``len(loader)`` is what is left from ``first_batch``.
        decodes: images decoded since iteration began.
        skipped: (file, reason) of the images that could not be read, with ``on_bad_image="skip"``; their
            chips are replaced by the chip before.
    """

    def __init__(
        self,
        table: AnnotationTable,
        chips: ChipTable,
        config: LoaderConfig,
        augment: AugmentConfig,
        *,
        seed: int,
        epoch: int,
        rank: int = 0,
        world_size: int = 1,
        first_batch: int = 0,
        outlines: bool = False,
    ) -> None:
        self.config = config
        self._order = chip_order(
            chips.image_index,
            seed=seed,
            epoch=epoch,
            batch_size=config.batch_size,
            capacity=buffer_capacity(chips, config.shuffle_chips),
            rank=rank,
            world_size=world_size,
        )
        self.num_batches = len(self._order.output_order) // config.batch_size
        if not 0 <= first_batch <= self.num_batches:
            raise ValueError(f"first_batch must be in 0..{self.num_batches}, got {first_batch}")
        self._first = first_batch * config.batch_size
        tasks = remaining_tasks(self._order, chips.image_index, self._first)
        self._source = ImageChips(table, chips, augment, tasks, seed=seed, epoch=epoch, outlines=outlines)
        self._workers = min(worker_count(config.workers, world_size), len(tasks))
        self.decodes = 0
        self.skipped: list[tuple[str, str]] = []

    def __len__(self) -> int:
        return self.num_batches - self._first // self.config.batch_size

    def __iter__(self) -> Iterator[Batch]:
        """Batches on the CPU, pixels uint8.

        Raises:
            DataError: an image cannot be read and ``on_bad_image`` is "stop", or no image at all can be.
        """
        self.decodes, self.skipped = 0, []
        batch: list[Sample] = []
        with closing(self._samples()) as samples:
            for sample in samples:
                batch.append(sample)
                if len(batch) == self.config.batch_size:
                    yield collate(batch)
                    batch = []

    def _samples(self) -> Generator[Sample]:
        """The samples in emission order; holds those that have arrived and whose turn has not come."""
        order = self._order.output_order[self._first :]
        chips, counts = np.unique(order, return_counts=True)
        uses = dict(zip(chips.tolist(), counts.tolist(), strict=True))
        held: dict[int, Sample] = {}
        failed: set[int] = set()
        latest: Sample | None = None
        with closing(self._read()) as read:
            for position, chip in enumerate(order.tolist(), start=self._first):
                while chip not in held and chip not in failed:
                    received = next(read)
                    if isinstance(received, Unreadable):
                        self._skip(received)
                        failed.update(received.chips.tolist())
                    else:
                        held.update((sample.chip, sample) for sample in received)
                uses[chip] -= 1
                sample = held.get(chip) if uses[chip] else held.pop(chip, None)
                latest = sample or latest or self._stand_in(position)
                yield latest

    def _skip(self, bad: Unreadable) -> None:
        if self.config.on_bad_image == "stop":
            raise DataError(bad.reason)
        log.warning("skipped an image and its %d chips: %s", len(bad.chips), bad.reason)
        self.skipped.append((bad.file, bad.reason))

    def _stand_in(self, position: int) -> Sample:
        """What replaces an unreadable chip when no chip has been emitted yet.

        That is the nearest readable one before it in the whole epoch, so that a resumed epoch goes on as if it
        had not stopped; at the epoch's very start, the nearest one after it.
        """
        order, image_index = self._order.output_order, self._source.chips.image_index
        bad: set[int] = set()
        for chip in (*order[:position][::-1].tolist(), *order[position:].tolist()):
            image = int(image_index[chip])
            if image not in bad:
                read = self._source.read(ImageTask(image, np.asarray([chip])))
                self.decodes += 1
                if not isinstance(read, Unreadable):
                    return read[0]
                bad.add(image)
        raise DataError(f"none of the {len(bad)} images with chips can be read; the first: {self.skipped[0][1]}")

    def _read(self) -> Generator[list[Sample] | Unreadable]:
        """The visits' samples in order, read here or by workers."""
        if self._workers == 0:
            for position in range(len(self._source)):
                self.decodes += 1
                yield self._source[position]
            return
        _compile()
        # Its own generator: DataLoader would else draw from torch's global one, and resuming would differ.
        loader: DataLoader[Any] = DataLoader(
            self._source,
            batch_size=None,
            num_workers=self._workers,
            collate_fn=pack,
            worker_init_fn=_begin_worker,
            multiprocessing_context="fork" if _FORKS else None,
            generator=torch.Generator(),
        )
        packed_items = iter(loader)
        try:
            for packed in packed_items:
                self.decodes += 1
                yield unpack(packed)
        finally:
            _stop_workers(packed_items)


def _begin_worker(_: int) -> None:
    cv2.setNumThreads(0)
    # Ctrl-C reaches every process of the terminal; the main one ends the workers, quietly.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _stop_workers(packed_items: Iterable[Any]) -> None:
    # DataLoader stops its workers when its iterator is collected; a trace that is kept delays that for ever.
    stop = getattr(packed_items, "_shutdown_workers", None)
    if stop is not None:
        stop()


def _compile() -> None:
    """Compile (or load) the kernels before workers fork, so that they inherit them."""
    pixel = np.zeros((1, 1, 3), np.uint8)
    cut(pixel, (0, 0), 1.5, (1, 1), (1, 1))
    planes(cut(pixel, (0, 0), 0.4, (1, 1), (1, 1)), (1, 1))
