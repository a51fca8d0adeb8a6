"""From one image to all its chips: decoded once, at the smallest size that serves."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from sniper.chips.table import ChipTable
from sniper.data.flags import REGION_FLAGS, ObjectFlag, any_flag
from sniper.data.table import AnnotationTable
from sniper.errors import DataError
from sniper.loader.config import AugmentConfig
from sniper.loader.outlines import outlines_in_chip
from sniper.loader.sample import Sample
from sniper.loader.shuffle import ImageTask, chip_generator
from sniper.loader.transforms import View, recolour, turn
from sniper.pixels.decode import Reduction, read_image
from sniper.pixels.resample import cut_region, planes
from sniper.structures import ObjectState

REDUCTIONS: tuple[Reduction, ...] = (8, 4, 2, 1)  # what a JPEG decoder offers
MIN_VISIBLE_PX = 1.0  # an object that shows less than this on either side is not in the chip


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An image that could not be decoded, and the chips that it would have given."""

    file: str
    reason: str
    chips: NDArray[np.int64]


class ImageChips(Dataset[list[Sample] | Unreadable]):
    """The chips of each visit. Item i decodes the image of ``tasks[i]`` once and cuts all its chips."""

    def __init__(
        self,
        table: AnnotationTable,
        chips: ChipTable,
        augment: AugmentConfig,
        tasks: Sequence[ImageTask],
        *,
        seed: int,
        epoch: int,
        outlines: bool = False,
    ) -> None:
        self.table, self.chips, self.augment, self.tasks = table, chips, augment, tasks
        self.seed, self.epoch = seed, epoch
        self.masks = table.masks if outlines else None

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, position: int) -> list[Sample] | Unreadable:
        return self.read(self.tasks[position])

    def read(self, task: ImageTask) -> list[Sample] | Unreadable:
        """The samples of ``task``, in its order; an image that cannot be used comes back as a value."""
        path = self.table.image_path(task.image)
        # By all chips of the epoch, also those that are another rank's or were before a resume: the same pixels.
        first, end = np.searchsorted(self.chips.image_index, [task.image, task.image + 1])
        reduction = reduction_for(self.chips.scale[first:end])
        width, height = self.table.sizes_wh[task.image].tolist()
        try:
            pixels = read_image(
                path,
                reduction=reduction,
                size_wh=(width, height),
                image_id=int(self.table.image_ids[task.image]),
            )
        except DataError as error:
            return Unreadable(str(path), str(error), task.chips)
        return [self._sample(pixels, chip, reduction) for chip in task.chips.tolist()]

    def _sample(self, pixels: NDArray[np.uint8], chip: int, reduction: int) -> Sample:
        chips, rng = self.chips, chip_generator(self.seed, self.epoch, chip)
        scale = float(chips.scale[chip])
        valid_wh = tuple(chips.valid_wh[chip].tolist())
        region = cut_region(pixels, tuple(chips.origin_xy[chip].tolist()), scale, valid_wh, reduction=reduction)
        objects = objects_in_chip(self.table, chips, chip)
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
        )


def reduction_for(scales: NDArray[np.floating]) -> Reduction:
    """The largest reduction in decoding that loses nothing at these zooms."""
    return next((r for r in REDUCTIONS if r * float(scales.max()) <= 1), 1)


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


@dataclass(slots=True)
class PackedSamples:
    """The samples of an image on their way out of a worker, all pixels in one block of shared memory.

    One block an image costs one file descriptor and stays in memory until its last chip is gone; so the
    receiver copies the chips out at once.
    """

    pixels: Tensor  # flat uint8
    shapes: list[tuple[int, ...]]
    samples: list[Sample]  # without their pixels


def pack(read: list[Sample] | Unreadable) -> PackedSamples | Unreadable:
    """The samples made ready to leave a worker."""
    if isinstance(read, Unreadable):
        return read
    nothing = np.zeros((3, 0, 0), np.uint8)
    return PackedSamples(
        torch.from_numpy(np.concatenate([sample.pixels.reshape(-1) for sample in read])),
        [sample.pixels.shape for sample in read],
        [replace(sample, pixels=nothing) for sample in read],
    )


def unpack(packed: PackedSamples | Unreadable) -> list[Sample] | Unreadable:
    """The samples as they were before ``pack``, in memory of their own."""
    if isinstance(packed, Unreadable):
        return packed
    ends = np.cumsum([int(np.prod(shape)) for shape in packed.shapes])
    blocks = np.split(packed.pixels.numpy(), ends[:-1])
    return [
        replace(sample, pixels=block.reshape(shape).copy())
        for sample, block, shape in zip(packed.samples, blocks, packed.shapes, strict=True)
    ]
