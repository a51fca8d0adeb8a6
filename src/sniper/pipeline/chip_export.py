"""Chips as files on disk, for trainers of other people: COCO or YOLO, with a manifest that leads back to the images.

``docs/chips_for_other_trainers.md``.
"""

import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper import __version__
from sniper.chips.table import ChipKind
from sniper.data.flags import ObjectFlag, flags_where
from sniper.data.table import AnnotationTable
from sniper.data.writers.coco import write_coco
from sniper.data.writers.yolo import write_description, write_yolo
from sniper.errors import DataError, RecipeError
from sniper.files import new_folder, require_new_folder, write_parts, write_text
from sniper.loader.blanking import blanked
from sniper.loader.config import AugmentConfig, worker_count
from sniper.loader.image_chips import ChipObjects, ImageChips, Part, objects_in_chip
from sniper.loader.sample import Sample
from sniper.loader.shuffle import image_tasks
from sniper.loader.workers import read_by_workers
from sniper.pipeline.chip_masks import masks_in_chips
from sniper.pipeline.chip_source import ChipSource
from sniper.pipeline.chips import chip_source
from sniper.pipeline.sources import Skipped
from sniper.pipeline.tables import Data, require_objects, table_for, table_of
from sniper.recipe import Recipe
from sniper.structures import ObjectState
from sniper.writers.images import encode

To = Literal["coco", "yolo"]
Ignored = Literal["crowd", "blank", "drop"]
TO: dict[str, tuple[Ignored, ...]] = {"coco": ("crowd", "blank", "drop"), "yolo": ("blank", "drop")}  # default first
MANIFEST = "chips.json"


@dataclass(frozen=True, slots=True)
class ExportedChips:
    """What was written."""

    folder: Path
    data: Path  # what ``load_dataset`` and trainers take, for the first part
    chips: dict[str, int]  # by part
    objects: dict[str, int]  # by part, in all chips; an object that two levels learn counts twice
    ignored: dict[str, int]  # likewise
    skipped: list[tuple[str, str]]  # images that could not be read, with the reason


class _Written(NamedTuple):
    """A chip that is on disk."""

    row: int  # of the chip table
    file: str  # below the folder of the part's images
    objects: ChipObjects


@dataclass(frozen=True, slots=True)
class ChipExport:
    """Chips that are mined and not yet written; ``prepare_export`` makes one."""

    folder: Path
    to: To
    ignored: Ignored
    suffix: str
    epoch: int
    masks: bool
    parts: dict[str, ChipSource]

    def __len__(self) -> int:
        return sum(len(source.chips(self.epoch)) for source in self.parts.values())

    def write(self, on_progress: Callable[[int], None] = lambda done: None) -> ExportedChips:
        """Write all, under the final name only when it is complete.

        Raises:
            DataError: an image cannot be read and ``loader.on_bad_image`` is "stop".
            StorageError: the folder has been filled meanwhile, or cannot be written.
        """
        skipped, chips, objects, ignored, records = Skipped(), {}, {}, {}, {}
        with new_folder(self.folder) as folder:
            for name, source in self.parts.items():
                cutter = source.cutter(self.epoch)
                written: list[_Written] = []
                files = self._images(cutter, source, written, skipped, on_progress)
                write_parts(folder / "images" / name, files)
                if not written:
                    raise DataError(f"{source.table.root}: none of the images with chips can be read")
                written.sort(key=lambda one: one.row)
                table = self._table(source.table, cutter, written, folder)
                self._write_annotations(table, folder, name)
                records[name] = {"root": str(source.table.root), "chips": list(_records(cutter, written, name))}
                chips[name] = len(written)
                valid = [int((one.objects.state == ObjectState.VALID).sum()) for one in written]
                objects[name] = sum(valid)
                ignored[name] = sum(len(one.objects.state) for one in written) - sum(valid)
            if self.to == "yolo":
                write_description(folder, list(self.parts), next(iter(self.parts.values())).table.class_names)
            write_text(folder / MANIFEST, json.dumps(self._manifest(records), ensure_ascii=False))
        first = f"{next(iter(self.parts))}.json" if self.to == "coco" else "data.yaml"
        return ExportedChips(self.folder, self.folder / first, chips, objects, ignored, skipped.files)

    def _images(
        self,
        cutter: ImageChips,
        source: ChipSource,
        written: list[_Written],
        skipped: Skipped,
        on_progress: Callable[[int], None],
    ) -> Iterator[tuple[str, bytes]]:
        """Name and content of each image file; ``written`` and ``skipped`` are added to."""
        with closing(_read(cutter, worker_count(source.recipe.loader.workers))) as parts:
            for part in parts:
                if part.unreadable is not None:
                    error = DataError(part.unreadable.reason)
                    skipped.handle(part.unreadable.file, error, source.recipe.loader.on_bad_image)
                stem = Path(source.table.file_name(part.image)).stem
                for sample in part.samples:
                    objects = objects_in_chip(cutter.table, cutter.chips, sample.chip)
                    name = f"{stem}_{sample.chip:06d}{self.suffix}"
                    yield name, encode(self._pixels(sample).transpose(1, 2, 0), self.suffix)
                    written.append(_Written(sample.chip, name, objects))
                    on_progress(1)

    def _pixels(self, sample: Sample) -> NDArray[np.uint8]:
        if self.ignored != "blank":
            return sample.pixels
        valid = sample.state == ObjectState.VALID
        return blanked(sample.pixels, sample.boxes[~valid], sample.boxes[valid])

    def _table(
        self, source: AnnotationTable, cutter: ImageChips, written: Sequence[_Written], folder: Path
    ) -> AnnotationTable:
        """The chips as a dataset of their own; ignored objects are crowds, or not there."""
        kept = [_kept(one.objects, self.ignored) for one in written]
        masks = None
        if self.masks and source.masks is not None:
            shown = zip([one.row for one in written], kept, strict=True)
            masks = masks_in_chips(source.masks, cutter.chips, shown)
        rows = np.concatenate([np.zeros(0, np.int64), *(one.rows for one in kept)])
        boxes = np.concatenate([np.zeros((0, 4), np.float32), *(one.boxes for one in kept)])
        states = np.concatenate([np.zeros(0, np.int64), *(one.state for one in kept)])
        chips = np.asarray([one.row for one in written], np.int64)
        return AnnotationTable(
            root=folder,
            file_names=[one.file for one in written],
            image_ids=chips + 1,
            sizes_wh=cutter.chips.size_wh[chips],
            offsets=np.cumsum([0, *(len(one.rows) for one in kept)]).astype(np.int64),
            boxes_xyxy=boxes,
            labels=source.labels[rows],
            flags=flags_where(states != ObjectState.VALID, ObjectFlag.CROWD),
            areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
            annotation_ids=np.arange(1, len(rows) + 1, dtype=np.int64),
            class_names=source.class_names,
            class_ids=next(iter(self.parts.values())).table.class_ids,  # a class has one id in all parts
            masks=masks,
        )

    def _write_annotations(self, table: AnnotationTable, folder: Path, name: str) -> None:
        if self.to == "yolo":
            write_yolo(table, folder / "labels" / name, list(table.file_names), masks=self.masks)
        else:
            write_coco(table, folder / f"{name}.json", [f"images/{name}/{file}" for file in table.file_names])

    def _manifest(self, records: dict[str, Any]) -> dict[str, Any]:
        source = next(iter(self.parts.values()))
        return {
            "sniper": __version__,
            "seed": source.recipe.train.seed,
            "epoch": self.epoch,
            "ignored": self.ignored,
            "pyramid": source.pyramid.model_dump(mode="json"),
            "parts": records,
        }


def prepare_export(
    data: Data,
    *,
    to: To,
    output: Path | str,
    recipe: Recipe | str | Path | None = None,
    split: str | None = None,
    val: Data | None = None,
    val_split: str | None = None,
    proposals: Path | str | None = None,
    epoch: int = 0,
    ignored: Ignored | None = None,
    lossless: bool = False,
    masks: bool = False,
) -> ChipExport:
    """Mine what ``export_chips`` writes, and refuse what it would refuse; arguments as there."""
    if to not in TO:
        raise RecipeError(f"--to takes {' or '.join(TO)}, got {to!r}")
    chosen = TO[to][0] if ignored is None else ignored
    if chosen not in TO[to]:
        known = ", ".join(TO[to])
        raise RecipeError(f"--ignored takes {known} with --to {to}, got {chosen!r}")
    require_new_folder(Path(output))
    settings = Recipe() if recipe is None else recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    settings = settings.model_copy(update={"augment": AugmentConfig(horizontal_flip=0)})  # the trainer's affair
    table = table_of(data, split, needs_images=True)
    require_objects(table, "to learn")
    if masks and table.masks is None:
        raise DataError(f"{table.root}: the data have no masks to write; leave out --masks (masks=True)")
    source = chip_source(settings, table, proposals)
    parts = {"train": source}
    if val is not None:
        bad = source.recipe.loader.on_bad_image
        parts["val"] = ChipSource(
            table_for(table.class_names, val, val_split, on_bad_image=bad), source.pyramid, source.recipe
        )
    for one in parts.values():
        one.useful_chips(epoch)
    return ChipExport(Path(output), to, chosen, ".png" if lossless else ".jpg", epoch, masks, parts)


def export_chips(
    data: Data,
    *,
    to: To,
    output: Path | str,
    recipe: Recipe | str | Path | None = None,
    split: str | None = None,
    val: Data | None = None,
    val_split: str | None = None,
    proposals: Path | str | None = None,
    epoch: int = 0,
    ignored: Ignored | None = None,
    lossless: bool = False,
    masks: bool = False,
    on_progress: Callable[[int], None] = lambda done: None,
) -> ExportedChips:
    """Write the chips of one epoch as images with annotations, and ``chips.json``, which leads back to the images.

    Args:
        data: a dataset of any form by path, a ``DataSource``, or a table.
        to: ``coco`` (``train.json``, ``images``) or ``yolo`` (``data.yaml``, ``images``, ``labels``).
        output: a new folder; it is there when it is complete.
        recipe: levels, chips and seed; its ``augment`` is left to the trainer. None: the defaults.
        split: of data by path; none: train.
        val: another dataset, whose chips at the same levels become the part ``val``.
        val_split: of ``val`` by path; none: val.
        proposals: a file of ``sniper propose`` or COCO results: negative chips of ``data``, too.
        epoch: whose chips.
        ignored: objects out of a level's valid range, and crowds. ``crowd`` (the default of coco): annotations with
            ``iscrowd: 1``; ``blank`` (of yolo): painted over with the mean colour; ``drop``: neither, so that trainers
            take them for background.
        lossless: PNG; else JPEG.
        masks: outlines of the objects too, cut to the chip.
        on_progress: told how many more chips are done.

    Raises:
        RecipeError: ``to``, ``ignored`` or a setting is wrong.
        DataError: the data cannot be used, or no object is valid at any level.
        StorageError: ``output`` is not empty, or cannot be written.
    """
    prepared = prepare_export(
        data, to=to, output=output, recipe=recipe, split=split, val=val, val_split=val_split,
        proposals=proposals, epoch=epoch, ignored=ignored, lossless=lossless, masks=masks,
    )  # fmt: skip
    return prepared.write(on_progress)


def _read(cutter: ImageChips, workers: int) -> Generator[Part]:
    """All chips, image by image."""
    tasks = image_tasks(np.arange(len(cutter.chips)), cutter.chips.image_index)
    if workers:
        yield from read_by_workers(cutter, tasks, workers)
        return
    for task in tasks:
        yield from cutter.read(task)


def _kept(objects: ChipObjects, ignored: Ignored) -> ChipObjects:
    if ignored == "crowd":
        return objects
    valid = objects.state == ObjectState.VALID
    return ChipObjects(*(column[valid] for column in objects))


def _records(cutter: ImageChips, written: Sequence[_Written], name: str) -> Iterator[dict[str, Any]]:
    """What the manifest says of each chip."""
    chips, table = cutter.chips, cutter.table
    windows = chips.windows_xyxy()
    for one in written:
        image = int(chips.image_index[one.row])
        yield {
            "file": f"images/{name}/{one.file}",
            "id": one.row + 1,
            "image": table.file_name(image),
            "image_id": int(table.image_ids[image]),
            "window_xyxy": windows[one.row].tolist(),
            "scale": float(chips.scale[one.row]),
            "origin_xy": chips.origin_xy[one.row].tolist(),
            "valid_wh": chips.valid_wh[one.row].tolist(),
            "level": int(chips.level[one.row]),
            "kind": ChipKind(chips.kind[one.row]).name.lower(),
        }
