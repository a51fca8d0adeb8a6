"""From any form of dataset to another."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from sniper.data.dividing import divide, groups_of
from sniper.data.options import AS_WORDS, Format, OptionNames
from sniper.data.source import DataSource
from sniper.data.splits import Part, parts_of, split_in
from sniper.data.table import AnnotationTable
from sniper.data.writers.coco import relative_names, write_coco
from sniper.data.writers.voc import write_voc
from sniper.data.writers.yolo import write_description, write_yolo
from sniper.errors import DataError, RecipeError, StorageError
from sniper.files import require_new_folder

TO = ("coco", "yolo", "voc")
To = Literal["coco", "yolo", "voc"]
_FOLDERS = {"coco": "images", "yolo": "images", "voc": "JPEGImages"}


@dataclass(frozen=True, slots=True)
class Converted:
    """What was written."""

    folder: Path
    data: Path  # what load_dataset takes, for the first part
    images: dict[str, int]  # by part
    objects: dict[str, int]  # by part
    lost: list[str]  # what the form cannot hold, a line each, with the part where there are several
    missing_images: int  # files that are not there, which were neither linked nor copied


class _Named(NamedTuple):
    name: str
    table: AnnotationTable


def convert(
    data: Path | str | AnnotationTable,
    *,
    to: To,
    output: Path | str,
    split: float | str | None = None,
    group_by: str | None = None,
    masks: bool = False,
    copy: bool = False,
    seed: int = 0,
    format: Format | None = None,
    images: Path | str | None = None,
    classes: Sequence[str] | None = None,
    options: OptionNames = AS_WORDS,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Converted:
    """Write a dataset in another form. Boxes and classes stay; the result names what else the form cannot hold.

    Args:
        data: a dataset of any form by path, or a table.
        to: ``coco``, ``yolo`` (``data.yaml``, ``images``, ``labels``) or ``voc``.
        output: a new folder.
        split: a share such as 0.8: so many images go to ``train``, the others to ``val``; the name of a split: it
            alone; none: all splits that the dataset has.
        group_by: with a share, a regular expression on file names; images for which it finds the same are of one group
            (frames of one video), and are never separated.
        masks: yolo: outlines in place of boxes.
        copy: copy the images; else COCO refers to them where they are, and the other forms link to them.
        seed: with a share, another one divides otherwise.
        format: form of ``data``; none: found.
        images: folder of the images of ``data``, if not the usual one.
        classes: these only, in this order.
        options: how messages call ``split``, ``format``, ``images`` and ``classes``.
        on_progress: told how many more images are done.

    Raises:
        DataError: ``data`` cannot be used, or cannot be divided.
        RecipeError: ``to``, ``split`` or ``group_by`` is wrong.
        StorageError: ``output`` is not empty, or cannot be written.
    """
    if to not in TO:
        raise RecipeError(f"--to takes coco, yolo or voc, got {to!r}")
    if group_by is not None and not isinstance(split, float):
        raise RecipeError("--group-by says what a split must not separate; give --split a share too, such as 0.8")
    folder = Path(output)
    require_new_folder(folder)

    def load(part: Part) -> AnnotationTable:
        chosen = None if classes is None else tuple(classes)
        return DataSource(part.path, part.split, format, images, chosen, options).open()

    parts = _parts(data, split, load)
    if isinstance(split, float):
        parts = _divided(parts, split, group_by, seed)
    if to == "yolo":  # labels are places in one list of names
        names = tuple(dict.fromkeys(name for part in parts for name in part.table.class_names))
        parts = [_Named(part.name, part.table.with_classes(names, missing="allow")) for part in parts]
    lost: dict[str, list[str]] = {}
    missing = 0
    taken: set[str] = set()
    for name, table in parts:
        # VOC keeps all splits in one folder; the others a folder a split.
        placed = _names_in(table, flat=to == "voc", taken=taken if to == "voc" else set())
        place = folder / _FOLDERS[to] / ("" if to == "voc" else name)
        if to != "coco" or copy:
            missing += _place_images(table, place, placed, copy, on_progress)
        lost[name] = _write(to, table, name, folder, placed, masks=masks, copied=copy)
    if to == "yolo":
        write_description(folder, [part.name for part in parts], parts[0].table.class_names)
    return Converted(
        folder,
        folder / f"{parts[0].name}.json" if to == "coco" else folder / "data.yaml" if to == "yolo" else folder,
        {part.name: len(part.table) for part in parts},
        {part.name: part.table.num_objects for part in parts},
        _lines(lost),
        missing,
    )


def _parts(
    data: Path | str | AnnotationTable, split: float | str | None, load: Callable[[Part], AnnotationTable]
) -> list[_Named]:
    if isinstance(data, AnnotationTable):
        return [_Named("train", data)]
    parts = [Part(Path(data), split)] if isinstance(split, str) else parts_of(data)
    if isinstance(split, float) and len(parts) > 1:
        there = ", ".join(part.split or part.path.name for part in parts)
        raise DataError(f"{data} is divided already, into {there}; leave the share out, or give one of its parts")
    tables = [load(part) for part in parts]
    names = [part.split or split_in(part.path) for part in parts]
    if len(set(names)) < len(names):
        names = [part.path.stem for part in parts]
    return [_Named(name, table) for name, table in zip(names, tables, strict=True)]


def _divided(parts: list[_Named], share: float, group_by: str | None, seed: int) -> list[_Named]:
    if not 0 < share < 1:
        raise RecipeError(f"--split is a share between 0 and 1, such as 0.8, or the name of a split, got {share:g}")
    table = parts[0].table
    first = divide(groups_of(list(table.file_names), group_by), share, seed)
    return [_Named("train", table.select(first.nonzero()[0])), _Named("val", table.select((~first).nonzero()[0]))]


def _names_in(table: AnnotationTable, *, flat: bool, taken: set[str]) -> list[str]:
    """(I,) names below the new folder of images, each with a stem of its own; ``taken`` stems are added to."""
    names = []
    for file_name in table.file_names:
        path = Path(file_name)
        inside = not path.is_absolute() and ".." not in path.parts
        # YOLO finds labels by the last folder called images, which is ours.
        folders = [part for part in path.parts[:-1] if part != "images"] if inside and not flat else []
        wanted = Path(*folders, path.name)
        stem, number = wanted.with_suffix("").as_posix(), 1
        chosen = stem
        while chosen.lower() in taken:  # some file systems take a.jpg and A.jpg for one
            number += 1
            chosen = f"{stem}-{number}"
        taken.add(chosen.lower())
        names.append(f"{chosen}{path.suffix}")
    return names


def _place_images(
    table: AnnotationTable, folder: Path, names: Sequence[str], copy: bool, on_progress: Callable[[int], None]
) -> int:
    """Link or copy the images to their new names; how many are not there."""
    missing = 0
    made: set[Path] = set()
    for row, name in enumerate(names):
        source, target = table.image_path(row).absolute(), folder / name
        try:
            if target.parent not in made:
                target.parent.mkdir(parents=True, exist_ok=True)
                made.add(target.parent)
            if not source.is_file():
                missing += 1
            elif copy or not _linked(source, target):
                shutil.copyfile(source, target)
        except OSError as error:
            raise StorageError(
                f"cannot write {target}: {error.strerror or error}; free space or choose another folder"
            ) from error
        on_progress(1)
    return missing


def _linked(source: Path, target: Path) -> bool:
    """Whether a link could be made; Windows wants a right for it."""
    try:
        target.symlink_to(source)
    except OSError:
        if target.parent.is_dir() and os.name == "nt":
            return False
        raise
    return True


def _write(
    to: To, table: AnnotationTable, name: str, folder: Path, placed: list[str], *, masks: bool, copied: bool
) -> list[str]:
    if to == "yolo":
        return write_yolo(table, folder / "labels" / name, placed, masks=masks)
    if to == "voc":
        return write_voc(table, folder, placed, name)
    inside = [f"images/{name}/{one}" for one in placed]
    return write_coco(table, folder / f"{name}.json", inside if copied else relative_names(table, folder))


def _lines(lost: dict[str, list[str]]) -> list[str]:
    if len(lost) == 1:
        return next(iter(lost.values()))
    everywhere = [line for line in next(iter(lost.values())) if all(line in lines for lines in lost.values())]
    own = [f"{name}: {line}" for name, lines in lost.items() for line in lines if line not in everywhere]
    return own + everywhere
