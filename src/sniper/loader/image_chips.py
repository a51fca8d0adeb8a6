"""From one image to all its chips: decoded once, at the smallest size that serves."""

from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.chips.table import ChipTable
from sniper.data.class_tree import lines_of, with_kinds
from sniper.data.flags import REGION_FLAGS, ObjectFlag, any_flag
from sniper.data.table import AnnotationTable
from sniper.errors import DataError
from sniper.loader.colours import recolour
from sniper.loader.config import AugmentConfig
from sniper.loader.outlines import outlines_in_chip
from sniper.loader.sample import Sample
from sniper.loader.shuffle import ImageTask, chip_generator
from sniper.loader.transforms import View, turn
from sniper.pixels.decode import Pixels, Reduction
from sniper.pixels.open import open_pixels
from sniper.pixels.resample import planes
from sniper.pixels.sample_map import SampleMap
from sniper.pixels.windowed import PixelSource, close, cut_region_from
from sniper.structures import ObjectState

PART_BYTES = 32_000_000  # pixels of the chips that leave a worker at once: 40 chips of 512 px
REDUCTIONS: tuple[Reduction, ...] = (8, 4, 2, 1)  # what a JPEG decoder offers
MIN_VISIBLE_PX = 1.0  # an object that shows less than this on either side is not in the chip


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Chips that cannot be had, because their image cannot be read, or not where they lie."""

    file: str
    reason: str
    chips: NDArray[np.int64]
    is_whole: bool  # nothing of the image can be read


@dataclass(frozen=True, slots=True)
class Part:
    """Some chips of an image: one, or as many as ``PART_BYTES`` hold."""

    image: int  # row of the annotation table
    samples: list[Sample]
    unreadable: Unreadable | None
    is_last: bool  # of its task


class ImageChips:
    """Cuts the chips of image tasks; each task opens its image once and gives its chips in parts.

    Memory holds one image of up to ``whole_pixels``, decoded, and one part. Larger images are read by windows.
    """

    def __init__(
        self,
        table: AnnotationTable,
        chips: ChipTable,
        augment: AugmentConfig,
        *,
        whole_pixels: float,
        seed: int,
        epoch: int,
        outlines: bool = False,
        expand_classes: bool = False,
        sample_map: SampleMap = SampleMap(),  # noqa: B008  immutable
    ) -> None:
        self.table, self.chips, self.augment, self.whole_pixels = table, chips, augment, whole_pixels
        self.sample_map = sample_map
        self.seed, self.epoch = seed, epoch
        self.masks = table.masks if outlines else None
        self.lines = lines_of(table.class_ancestors, len(table.class_names), up=True) if expand_classes else None

    def read(self, task: ImageTask) -> Generator[Part]:
        """The parts of ``task``, in its order; chips that cannot be read come back as a value.

        Raises:
            StorageError: there is no room to decode a huge image.
        """
        path, parts = self.table.image_path(task.image), parts_of(task.chips, self.chips)
        # By all chips of the epoch, also those that are another rank's or were before a resume: the same pixels.
        first, end = np.searchsorted(self.chips.image_index, [task.image, task.image + 1])
        reduction = reduction_for(self.chips.scale[first:end])
        width, height = self.table.sizes_wh[task.image].tolist()
        with ExitStack() as opened:
            try:
                pixels = open_pixels(
                    path,
                    whole_pixels=self.whole_pixels,
                    reduction=reduction,
                    in_order=len(parts) == 1,
                    size_wh=(width, height),
                    image_id=int(self.table.image_ids[task.image]),
                    sample_map=self.sample_map,
                )
                opened.callback(close, pixels)
                if not isinstance(pixels, np.ndarray):
                    pixels.read(0, 0, 1, 1)  # decodes what can only be decoded from the beginning
            except DataError as error:
                yield Part(task.image, [], Unreadable(str(path), str(error), task.chips, True), is_last=True)
                return
            for number, chips in enumerate(parts, start=1):
                samples, unreadable = self._cut(pixels, chips, reduction, path)
                if number == len(parts):  # before it waits for its turn
                    opened.close()
                    del pixels
                yield Part(task.image, samples, unreadable, number == len(parts))

    def _drawn(self, labels: NDArray[np.int64], chip: int) -> NDArray[np.int64]:
        """(N,) for each object its class or one above it, all equally likely; -1 stays.

        Over many chips this is training on one box a class, as the official expansion of OpenImages has it. Boxes in
        the same place would all give their regions the first one's class.
        """
        assert self.lines is not None
        classes, offsets = self.lines
        known = np.maximum(labels, 0)
        first, count = offsets[known], np.diff(offsets)[known]
        place = chip_generator(self.seed, self.epoch, chip, 1).random(len(labels))
        drawn = classes[first + np.minimum((place * count).astype(np.int64), count - 1)] if len(labels) else labels
        return np.where(labels >= 0, drawn, labels).astype(np.int64)

    def is_huge(self, image: int) -> bool:
        """Whether an image, decoded at full size, is more than memory should hold."""
        width, height = self.table.sizes_wh[image].tolist()
        return bool(width * height > self.whole_pixels)

    def _cut(
        self, pixels: Pixels | PixelSource, chips: NDArray[np.int64], reduction: int, path: Path
    ) -> tuple[list[Sample], Unreadable | None]:
        """The chips that can be read, and the others: a matter of the file and the chip alone, so that it is the
        same ones for any number of workers and after a resume."""
        samples, missing, reason = [], [], ""
        for chip in chips.tolist():
            try:
                samples.append(self._sample(pixels, chip, reduction))
            except DataError as error:
                missing.append(chip)
                reason = reason or str(error)
        return samples, Unreadable(str(path), reason, np.asarray(missing, np.int64), False) if missing else None

    def _sample(self, pixels: Pixels | PixelSource, chip: int, reduction: int) -> Sample:
        chips, rng = self.chips, chip_generator(self.seed, self.epoch, chip)
        scale = float(chips.scale[chip])
        valid_wh = tuple(chips.valid_wh[chip].tolist())
        region = cut_region_from(pixels, tuple(chips.origin_xy[chip].tolist()), scale, valid_wh, reduction=reduction)
        objects = objects_in_chip(self.table, chips, chip)
        if self.lines is not None:
            objects = objects._replace(labels=self._drawn(objects.labels, chip))
        outlines = None
        if self.masks is not None:
            crowd = objects.state == ObjectState.CROWD
            outlines = outlines_in_chip(self.masks, objects.rows, crowd, chips.origin_xy[chip], scale)
        points = None if outlines is None else outlines.points_xy
        view = turn(View(region, objects.boxes, tuple(chips.size_wh[chip].tolist()), points), self.augment, rng)
        if outlines is not None and view.points is not None:
            outlines = replace(outlines, points_xy=view.points)
        height, width = view.region.shape[:2]
        padded = planes(view.region, view.size_wh)
        low, high = (chips.range_px[chip] * scale).tolist()
        return Sample(
            pixels=recolour(padded, (width, height), self.augment, rng),
            valid_wh=(width, height),
            scale=scale,
            boxes=view.boxes,
            labels=objects.labels,
            state=objects.state,
            range_px=(low, high),
            chip=chip,
            outlines=None if outlines is None else outlines.rows(objects.labels),
            known_classes=known_classes(self.table, int(chips.image_index[chip])),
        )


def parts_of(rows: NDArray[np.int64], chips: ChipTable) -> list[NDArray[np.int64]]:
    """Chips of one image, split into runs of at most ``PART_BYTES`` of pixels, but one chip at least.

    Inside each they are sorted by their place in the image, top first, so that strips of a file are decoded once.
    """
    ends = np.cumsum(3 * chips.size_wh[rows].astype(np.int64).prod(axis=1))
    parts, start, before = [], 0, 0
    while start < len(rows):
        stop = max(start + 1, int(np.searchsorted(ends, before + PART_BYTES, side="right")))
        part = rows[start:stop]
        left, top = (chips.origin_xy[part] / chips.scale[part, None]).T
        parts.append(part[np.lexsort((left, top))])
        start, before = stop, int(ends[stop - 1])
    return parts


def reduction_for(scales: NDArray[np.floating]) -> Reduction:
    """The largest reduction in decoding that loses nothing at these scales."""
    return next((r for r in REDUCTIONS if r * float(scales.max()) <= 1), 1)


def known_classes(table: AnnotationTable, image: int) -> NDArray[np.bool_] | None:
    """(C,) classes whose objects in an image all have boxes, or that it does not show; None: all of them.

    Where a dataset has labels of whole images, only these were looked for: verified present or absent. A class with
    boxes counts as looked for, and so does every kind of a class that is absent.
    """
    if table.image_labels is None:
        return None
    known, absent = np.zeros((2, len(table.class_names)), np.bool_)
    verified = table.image_labels.of_image(image)
    labels, confidence = table.image_labels.labels[verified], table.image_labels.confidence[verified]
    absent[labels[confidence == 0]] = True
    known[labels[confidence == 1]] = True
    known[table.labels[table.objects(image)]] = True
    return known | with_kinds(absent, table.class_ancestors)


class ChipObjects(NamedTuple):
    """The objects of a chip: (N, 4) boxes in network px, (N,) labels, (N,) ``ObjectState``, (N,) table rows."""

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    state: NDArray[np.int64]
    rows: NDArray[np.int64]


def objects_in_chip(table: AnnotationTable, chips: ChipTable, chip: int) -> ChipObjects:
    """What the chip shows of each object of its image, in the order of the table.

    Objects that the chip table lists are valid, crowds and group-ofs are crowds, and everything else of which at least
    1 x 1 network px shows is ignored; what shows less is left out. Difficult objects are ignored, with label -1: where
    ignored objects teach their class too (the original's second stage), these do not.
    """
    image = chips.image_index[chip]
    rows = slice(int(table.offsets[image]), int(table.offsets[image + 1]))
    corners = table.boxes_xyxy[rows].reshape(-1, 2, 2) * chips.scale[chip] - chips.origin_xy[chip]
    corners = np.minimum(np.maximum(corners, 0, out=corners), chips.valid_wh[chip], out=corners)
    listed = chips.object_rows[chips.object_offsets[chip] : chips.object_offsets[chip + 1]] - rows.start

    state = np.full(len(corners), int(ObjectState.IGNORED), dtype=np.int64)
    state[listed] = ObjectState.VALID
    flags = table.flags[rows]
    state[any_flag(flags, REGION_FLAGS)] = ObjectState.CROWD
    shown = (corners[:, 1] - corners[:, 0]).min(axis=1, initial=np.inf)
    kept = np.where(state == ObjectState.VALID, shown > 0, shown >= MIN_VISIBLE_PX)
    boxes = corners[kept].reshape(-1, 4).astype(np.float32)
    labels = np.where(any_flag(flags, ObjectFlag.DIFFICULT), -1, table.labels[rows])[kept].astype(np.int64)
    return ChipObjects(boxes, labels, state[kept], np.flatnonzero(kept) + rows.start)
