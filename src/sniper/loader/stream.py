"""The chip loader: a seeded, sharded, resumable stream of batches that decodes each image once.

See ``docs/method.md``, "The loader".
"""

import logging
from collections.abc import Generator, Iterator
from contextlib import closing

import numpy as np

from sniper.chips.table import ChipTable
from sniper.data.table import AnnotationTable
from sniper.errors import DataError
from sniper.loader.collate import collate
from sniper.loader.config import AugmentConfig, LoaderConfig, worker_count
from sniper.loader.image_chips import ImageChips, Part, Unreadable
from sniper.loader.sample import Sample
from sniper.loader.shuffle import ImageTask, chip_order, remaining_tasks
from sniper.loader.workers import read_by_workers
from sniper.pixels.sample_map import SampleMap
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
    still to come; one of more than ``whole_megapixels`` is read by windows instead. Chips come in parts of 32 MB, so
    that memory is bounded whatever the number of chips of an image. Iterating again starts over at ``first_batch``.
    With ``expand_classes``, an object teaches its class or one above it, chip by chip.
    With ``outlines``, batches carry those of a table that has masks (``Batch.polygons``). ``sample_map`` says how
    samples of files become 8-bit colours.

    Attributes:
        num_batches: batches of the whole epoch; ``len(loader)`` is what is left from ``first_batch``.
        decodes: images decoded since iteration began, or opened where they are read by windows.
        skipped: (file, reason) of the images that could not be read, with ``on_bad_image="skip"``; their
            chips are replaced by the chip before. Of an image that is read by windows, only those chips are that
            show what cannot be read.
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
        expand_classes: bool = False,
        sample_map: SampleMap = SampleMap(),  # noqa: B008  immutable
    ) -> None:
        self.config = config
        capacity = buffer_capacity(chips, config.shuffle_chips)
        self._held = capacity + config.batch_size
        self._order = chip_order(
            chips.image_index,
            seed=seed,
            epoch=epoch,
            batch_size=config.batch_size,
            capacity=capacity,
            rank=rank,
            world_size=world_size,
        )
        self.num_batches = len(self._order.output_order) // config.batch_size
        if not 0 <= first_batch <= self.num_batches:
            raise ValueError(f"first_batch must be in 0..{self.num_batches}, got {first_batch}")
        self._first = first_batch * config.batch_size
        self._tasks = remaining_tasks(self._order, chips.image_index, self._first)
        pixels = config.whole_megapixels * 1e6
        self._source = ImageChips(
            table,
            chips,
            augment,
            whole_pixels=pixels,
            seed=seed,
            epoch=epoch,
            outlines=outlines,
            expand_classes=expand_classes,
            sample_map=sample_map,
        )
        self._workers = worker_count(config.workers, world_size)
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
        image = -1
        with closing(self._read()) as read:
            for position, chip in enumerate(order.tolist(), start=self._first):
                while chip not in held and chip not in failed:
                    part = next(read)
                    self.decodes += part.image != image
                    image = part.image
                    held.update((sample.chip, sample) for sample in part.samples)
                    if part.unreadable is not None:
                        self._skip(part.unreadable)
                        failed.update(part.unreadable.chips.tolist())
                uses[chip] -= 1
                sample = held.get(chip) if uses[chip] else held.pop(chip, None)
                latest = sample or latest or self._stand_in(position)
                yield latest

    def _skip(self, bad: Unreadable) -> None:
        if self.config.on_bad_image == "stop":
            raise DataError(bad.reason)
        if bad.file not in dict(self.skipped):
            log.warning("skipped chips of an image: %s", bad.reason)
            self.skipped.append((bad.file, bad.reason))

    def _stand_in(self, position: int) -> Sample:
        """What replaces an unreadable chip when no chip has been emitted yet.

        That is the nearest readable one before it in the whole epoch, so that a resumed epoch goes on as if it
        had not stopped; at the epoch's very start, the nearest one after it.
        """
        order, image_index = self._order.output_order, self._source.chips.image_index
        tried: set[int] = set()
        bad: set[int] = set()
        for chip in (*order[:position][::-1].tolist(), *order[position:].tolist()):
            image = int(image_index[chip])
            if image not in bad:
                (part,) = self._source.read(ImageTask(image, np.asarray([chip])))
                self.decodes += 1
                tried.add(image)
                if part.unreadable is None:
                    return part.samples[0]
                if part.unreadable.is_whole:
                    bad.add(image)
        raise DataError(f"none of the {len(tried)} images with chips can be read; the first: {self.skipped[0][1]}")

    def _read(self) -> Generator[Part]:
        """The parts of all tasks in order, cut here or by workers."""
        if self._workers == 0:
            return (part for task in self._tasks for part in self._source.read(task))
        return read_by_workers(self._source, self._tasks, self._workers, held_chips=self._held)
