"""Chips for other people's training loops: a torch ``Dataset`` over the chips that ``sniper train`` would see.

``docs/chips_for_other_trainers.md``.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2.functional import to_dtype

from sniper.boxes import xyxy_to_xywh
from sniper.chips.table import ChipTable
from sniper.data.table import AnnotationTable
from sniper.errors import DataError, RecipeError
from sniper.loader.blanking import blanked
from sniper.loader.clipping import clipped_rings
from sniper.loader.image_chips import ImageChips, objects_in_chip
from sniper.loader.outlines import rings_of
from sniper.loader.sample import Sample
from sniper.loader.shuffle import image_tasks
from sniper.loader.workers import compile_kernels
from sniper.pipeline.chip_masks import bitmaps
from sniper.pipeline.chips import chip_source
from sniper.pipeline.tables import Data, require_objects, table_of
from sniper.pyramid import Pyramid, PyramidConfig
from sniper.recipe import Recipe
from sniper.structures import ObjectState

Form = Literal["torchvision", "coco"]
Transform = Callable[[Tensor, dict[str, Any]], tuple[Tensor, dict[str, Any]]]
FORMS = ("torchvision", "coco")
Rings = list[list[NDArray[np.float64]]]  # of each object its outlines, (P, 2) xy in px of the chip, cut to it


class ChipDataset(Dataset[tuple[Tensor, dict[str, Any]]]):
    """The chips of one epoch as pairs of image and target; ``set_epoch`` makes those of another.

    The same data, settings and epoch give the same chips in the same order, and each chip the same flips and colours,
    in any number of ``DataLoader`` workers (persistent ones, too). Chips are padded to one size.

    In torchvision's form the image is (3, H, W) float32 RGB in [0, 1], and the target, with boxes as
    ``tv_tensors.BoundingBoxes`` in px of the chip (xyxy), has

    - ``boxes`` (N, 4), ``labels`` (N,) int64 from 1, ``area`` (N,), ``iscrowd`` (N,) all 0: what is learned;
    - ``ignored`` (M, 4), ``ignored_labels`` (M,), ``ignored_iscrowd`` (M,): objects out of the level's valid range,
      and crowds: neither objects nor background;
    - ``image_id`` int: the chip's row in ``chips``;
    - with ``masks``, ``masks`` (N, H, W) uint8 as ``tv_tensors.Mask``; what has no outline is ignored then.

    In COCO's form the image is (3, H, W) uint8 RGB and the target ``{"image_id", "annotations"}``, as the image
    processors of transformers take it: boxes as x, y, w, h, the dataset's own class ids, ignored objects with
    ``iscrowd: 1``; with ``masks``, learned ones have ``segmentation``, polygons cut to the chip.

    Attributes:
        table: the annotations of the data.
        recipe: the settings, levels written out.
        pyramid: the levels.
        class_names: names of the labels; label 1 is the first one.
    """

    def __init__(
        self,
        data: Data,
        pyramid: Pyramid | PyramidConfig | Mapping[str, Any] | None = None,
        *,
        recipe: Recipe | str | Path | None = None,
        overrides: Iterable[str] = (),
        split: str | None = None,
        proposals: Path | str | None = None,
        form: Form = "torchvision",
        ignored: Literal["keep", "blank"] = "keep",
        masks: bool = False,
        transforms: Transform | None = None,
    ) -> None:
        """Read the annotations and mine the chips of epoch 0.

        Args:
            data: a dataset of any form by path, a ``DataSource``, or a table.
            pyramid: levels and size of the chips, as in a recipe: ``{"levels": "auto", "chip_px": 320}``; none: those
                of ``recipe``.
            recipe: every other setting (``chips``, ``sampler``, ``augment``, ``train.seed``, ...); none: the defaults.
            overrides: ``a.b=c`` settings on top of it.
            split: of data by path; none: train.
            proposals: a file of ``sniper propose`` or COCO results: negative chips, too.
            form: of the targets, ``torchvision`` or ``coco``.
            ignored: ``blank`` paints ignored objects over with the mean colour, for trainers that would take them for
                background; pixels of valid objects stay.
            masks: outlines of the objects too; the data must have some.
            transforms: gets image and target, gives both, as torchvision's own datasets have it.

        Raises:
            RecipeError: a setting is wrong.
            DataError: the data cannot be used, or no object is valid at any level.
        """
        if form not in FORMS or ignored not in ("keep", "blank"):
            raise RecipeError(f"form is one of {', '.join(FORMS)}, ignored is keep or blank; got {form!r}, {ignored!r}")
        settings = _settings(recipe, pyramid, overrides)
        table = table_of(data, split, needs_images=True)
        require_objects(table, "to learn")
        if masks and table.masks is None:
            raise DataError(f"{table.root}: the data have no masks; leave out masks=True")
        self._source = chip_source(settings, table, proposals)
        self.form, self.ignored, self.masks, self.transforms = form, ignored, masks, transforms
        # Shared with workers, so that those that outlive an epoch follow.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._cutter: ImageChips | None = None
        compile_kernels(self.recipe.augment)
        self.set_epoch(0)

    @property
    def table(self) -> AnnotationTable:
        """The annotations of the data."""
        return self._source.table

    @property
    def recipe(self) -> Recipe:
        """The settings, levels written out."""
        return self._source.recipe

    @property
    def pyramid(self) -> Pyramid:
        """The levels."""
        return self._source.pyramid

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the labels; label 1 is the first one."""
        return self.table.class_names

    @property
    def epoch(self) -> int:
        """The epoch whose chips these are."""
        return int(self._epoch)

    @property
    def chips(self) -> ChipTable:
        """Image, level, scale and place of each chip; ``chips.windows_xyxy()`` are the windows in original px."""
        return self._cut_by().chips

    def set_epoch(self, epoch: int) -> None:
        """Go over to the chips of another epoch, before a ``DataLoader`` is iterated; the length changes.

        Raises:
            DataError: no object is valid at any level.
        """
        if epoch < 0:
            raise ValueError(f"epochs count from 0, got {epoch}")
        self._epoch.fill_(epoch)
        self._cut_by()  # before workers are forked, so that they need not mine

    def __len__(self) -> int:
        return len(self.chips)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        """One chip; its image is decoded for it. A ``DataLoader`` asks for batches (``__getitems__``)."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, dict[str, Any]]]:
        """Several chips; each of their images is decoded once.

        Raises:
            IndexError: there is no such chip.
            DataError: an image cannot be read and ``loader.on_bad_image`` is "stop", or none can.
        """
        rows = np.asarray([range(len(self))[index] for index in indices], np.int64)
        samples = self._samples(rows)
        return [self._item(samples.get(row) or self._next_readable(row)) for row in rows.tolist()]

    @staticmethod
    def collate_fn(batch: Sequence[tuple[Tensor, dict[str, Any]]]) -> tuple[list[Tensor], list[dict[str, Any]]]:
        """Images and targets of a batch as two lists, as torchvision's detectors take them."""
        return [image for image, _ in batch], [target for _, target in batch]

    def _cut_by(self) -> ImageChips:
        """What cuts the chips of the epoch that ``set_epoch`` named last, in this process or in the main one."""
        epoch = self.epoch
        if self._cutter is None or self._cutter.epoch != epoch:
            self._cutter = self._source.cutter(epoch, outlines=self.masks)
        return self._cutter

    def _samples(self, rows: NDArray[np.int64]) -> dict[int, Sample]:
        """The chips of ``rows`` by row; without those that cannot be read, where these are skipped."""
        cutter = self._cut_by()
        tasks = image_tasks(np.unique(rows), cutter.chips.image_index)
        samples: dict[int, Sample] = {}
        for part in (part for task in tasks for part in cutter.read(task)):
            if part.unreadable is not None and self.recipe.loader.on_bad_image == "stop":
                raise DataError(part.unreadable.reason)
            samples.update((sample.chip, sample) for sample in part.samples)
        return samples

    def _next_readable(self, row: int) -> Sample:
        """What stands in for a chip that cannot be read: the next one of another image that can."""
        images = self.chips.image_index
        others = np.roll(np.arange(len(images)), -row - 1)
        for other in others[np.sort(np.unique(images[others], return_index=True)[1])].tolist():
            found = self._samples(np.asarray([other]))
            if found:
                return found[other]
        raise DataError(f"{self.table.root}: none of the images with chips can be read; see 'sniper check'")

    def _item(self, sample: Sample) -> tuple[Tensor, dict[str, Any]]:
        valid = sample.state == ObjectState.VALID
        rings: Rings | None = None
        if sample.outlines is not None:
            rings = [clipped_rings(own, sample.valid_wh) for own in rings_of(sample.outlines)]
            valid &= np.asarray([len(own) > 0 for own in rings], bool)
        pixels = sample.pixels
        if self.ignored == "blank":
            pixels = blanked(pixels, sample.boxes[~valid], sample.boxes[valid])
        # Difficult objects have no label in a sample: there, ignored objects may teach their class.
        labels = self.table.labels[objects_in_chip(self.table, self.chips, sample.chip).rows]
        labels = np.where(sample.labels >= 0, sample.labels, labels)
        image: Tensor = tv_tensors.Image(torch.from_numpy(pixels))
        if self.form == "coco":
            target = _coco_target(sample, valid, self.table.class_ids[labels], rings)
        else:
            image = to_dtype(image, torch.float32, scale=True)
            target = _torchvision_target(sample, valid, (labels + 1).astype(np.int64))
            if rings is not None:
                learned = [own for own, is_valid in zip(rings, valid.tolist(), strict=True) if is_valid]
                target["masks"] = tv_tensors.Mask(torch.from_numpy(bitmaps(learned, pixels.shape[1:])))
        return (image, target) if self.transforms is None else self.transforms(image, target)


def _settings(
    recipe: Recipe | str | Path | None,
    pyramid: Pyramid | PyramidConfig | Mapping[str, Any] | None,
    overrides: Iterable[str],
) -> Recipe:
    settings = Recipe() if recipe is None else recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    if pyramid is not None:
        given = dict(pyramid) if isinstance(pyramid, Mapping) else pyramid.model_dump(mode="json")
        settings = Recipe.parse({**settings.model_dump(mode="json"), "pyramid": given}, "ChipDataset")
    return settings.changed(overrides)


def _torchvision_target(sample: Sample, valid: NDArray[np.bool_], labels: NDArray[np.int64]) -> dict[str, Any]:
    """The target in torchvision's form; ``labels`` (N,) count from 1."""
    areas = np.prod(sample.boxes[:, 2:] - sample.boxes[:, :2], axis=1)
    return {
        "boxes": _bounding_boxes(sample, valid),
        "labels": torch.from_numpy(labels[valid]),
        "area": torch.from_numpy(areas[valid]),
        "iscrowd": torch.zeros(int(valid.sum()), dtype=torch.int64),
        "image_id": sample.chip,
        "ignored": _bounding_boxes(sample, ~valid),
        "ignored_labels": torch.from_numpy(labels[~valid]),
        "ignored_iscrowd": torch.from_numpy((sample.state[~valid] == ObjectState.CROWD).astype(np.int64)),
    }


def _bounding_boxes(sample: Sample, wanted: NDArray[np.bool_]) -> Tensor:
    boxes: Tensor = tv_tensors.BoundingBoxes(
        torch.from_numpy(sample.boxes[wanted]), format="XYXY", canvas_size=sample.pixels.shape[1:]
    )
    return boxes


def _coco_target(
    sample: Sample, valid: NDArray[np.bool_], class_ids: NDArray[np.int64], rings: Rings | None
) -> dict[str, Any]:
    """The target in COCO's form."""
    boxes = xyxy_to_xywh(sample.boxes.astype(np.float64))
    columns = {
        "category_id": class_ids.tolist(),
        "bbox": boxes.tolist(),
        "area": np.prod(boxes[:, 2:], axis=1).tolist(),
        "iscrowd": (~valid).astype(int).tolist(),
    }
    rows = zip(*columns.values(), strict=True)
    annotations = [{"image_id": sample.chip, **dict(zip(columns, row, strict=True))} for row in rows]
    if rings is not None:
        for number in np.flatnonzero(valid).tolist():
            annotations[number]["segmentation"] = [ring.ravel().tolist() for ring in rings[number]]
    return {"image_id": sample.chip, "annotations": annotations}
