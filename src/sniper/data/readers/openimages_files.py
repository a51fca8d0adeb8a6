"""Where the files of an OpenImages dataset are: as they are downloaded, or as FiftyOne and the OID toolkit lay them."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from sniper.data.options import IN_PYTHON, OptionNames, aliases, find_split, known_splits
from sniper.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
_FOLDERS = ("", "annotations", "annotation", "csv", "csv_folder", "labels", "metadata", "boxes")
_BOXES = ("*bbox*.csv", "detections.csv")
_LABELS = ("*imagelabels*.csv", "classifications.csv")
_DESCRIPTIONS = ("*class*description*.csv", "classes.csv")
_HIERARCHIES = ("*hierarchy*.json",)


class OpenImagesFiles(NamedTuple):
    """The files of one split."""

    boxes: Path
    descriptions: Path
    labels: Path | None  # verified labels of whole images
    hierarchy: Path | None


def is_openimages(folder: Path) -> bool:
    """Whether a folder has a file of boxes."""
    return bool(_box_files(folder))


def openimages_splits(folder: Path) -> list[str]:
    """The splits that the files of boxes are called after; none where none is."""
    return known_splits(name for file in _box_files(folder) if (name := _split_of(file)) is not None)


def openimages_files(place: Path, split: str | None, options: OptionNames = IN_PYTHON) -> OpenImagesFiles:
    """The files of a split of a folder, or those that belong to a file of boxes.

    Raises:
        DataError: there is no such file, there are several, or the descriptions of the classes are missing.
    """
    boxes = place if place.is_file() else _one_of(place, split, options)
    around = _folders_of_set(boxes, place)
    likeness = _Likeness(boxes)
    descriptions = likeness.best(around, _DESCRIPTIONS)
    if descriptions is None:
        raise DataError(
            f"{boxes} needs class-descriptions-boxable.csv (a MID and a name a line) beside it, and none was found in "
            f"{', '.join(map(str, around))}; download it there"
        )
    return OpenImagesFiles(
        boxes, descriptions, likeness.best(around, _LABELS, same_split=True), likeness.best(around, _HIERARCHIES)
    )


def image_folders(files: OpenImagesFiles, place: Path) -> list[Path]:
    """The folders in which the images of a split may be, those that are there, the likeliest first.

    A split may be in several parts (``train_0`` to ``train_f``); then their common folder is meant.
    """
    bases = _folders_of_set(files.boxes, place)[::-1]
    split = _split_of(files.boxes)
    names = aliases(split) if split else ()
    likely: list[Path] = []
    for base in bases:
        inner = [base, base / "images", base / "data", base / "Dataset"]
        likely += [folder / name for folder in inner for name in names]
        likely += [base / name / "data" for name in names]
    likely = [likelier for folder in likely for likelier in (folder / "data", folder)]
    likely += [base / "data" for base in bases] + [base / "images" for base in bases] + bases
    return [folder for folder in dict.fromkeys(likely) if folder.is_dir()]


def images_in(folder: Path) -> list[str]:
    """Names of the image files in a folder and the folders in it, relative to it, sorted."""
    names: list[str] = []
    root = str(folder)
    for here, folders, files in os.walk(root):
        folders.sort()
        start = "" if here == root else here[len(root) + 1 :].replace(os.sep, "/") + "/"
        names += [start + file for file in files if file.lower().endswith(IMAGE_SUFFIXES)]
    names.sort()
    return names


def _folders_of_set(boxes: Path, place: Path) -> list[Path]:
    """The folder of a file of boxes and those above it that belong to the dataset, from the inside out."""
    folders = [boxes.parent]
    while folders[-1].name.lower() in _FOLDERS[1:] or known_splits([folders[-1].name]):
        folders.append(folders[-1].parent)
    return list(dict.fromkeys([*folders, *([place] if place.is_dir() else [])]))


class _Likeness(NamedTuple):
    """How well a file goes with a file of boxes, by its name."""

    boxes: Path

    def best(self, folders: Iterable[Path], patterns: tuple[str, ...], *, same_split: bool = False) -> Path | None:
        """The file that goes best with the boxes; of several alike, the longest, which describes the most."""
        split = _split_of(self.boxes)
        files = [
            file
            for file in _files(folders, patterns)
            if "machine" not in file.name and (not same_split or _split_of(file) == split)
        ]
        return max(files, key=lambda file: (*self._words(file), file.stat().st_size), default=None)

    def _words(self, file: Path) -> tuple[bool, bool]:
        name = file.name.lower()
        return ("challenge" in name) == ("challenge" in self.boxes.name.lower()), "boxable" in name


def _box_files(folder: Path) -> list[Path]:
    inside = [folder / name for name in _split_names(folder)]
    return _files([folder, *inside], _BOXES)


def _split_names(folder: Path) -> list[str]:
    """Folders in a folder that are called like splits; the folder may hold millions of files."""
    if not folder.is_dir():
        return []
    return known_splits(name for split in ("train", "val", "test") for name in aliases(split)
                        if (folder / name).is_dir())  # fmt: skip


def _files(folders: Iterable[Path], patterns: tuple[str, ...]) -> list[Path]:
    places = [folder / inner for folder in folders for inner in _FOLDERS]
    # Only folders of annotations: to list one with millions of images takes seconds.
    small = [place for place in dict.fromkeys(places) if place.is_dir() and not _has_images(place)]
    return list(dict.fromkeys(file for place in small for pattern in patterns for file in sorted(place.glob(pattern))))


def _has_images(folder: Path) -> bool:
    """Whether one of the first entries of a folder is an image."""
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(IMAGE_SUFFIXES) for _, entry in zip(range(100), entries, strict=False))


def _one_of(folder: Path, split: str | None, options: OptionNames) -> Path:
    files = _box_files(folder)
    if not files:
        raise DataError(
            f"{folder} has no boxes of OpenImages; looked for {' and '.join(_BOXES)} in it and in "
            f"{', '.join(_FOLDERS[1:])}; give the folder or the file"
        )
    if split is not None:
        there = {name: file for file in reversed(files) if (name := _split_of(file)) is not None}
        name = find_split(split, sorted(there))
        if name is None:
            raise DataError(
                f"{folder} has no boxes of split {split!r}; it has {', '.join(file.name for file in files)}; "
                f"choose with {options.split}, or give the file"
            )
        return there[name]
    if len({_split_of(file) for file in files}) > 1:
        raise DataError(
            f"{folder} has several splits: {', '.join(file.name for file in files)}; choose one with {options.split}, "
            "or give the file"
        )
    return files[0]


def _split_of(file: Path) -> str | None:
    """The split that a file is called after, or a folder that it lies in."""
    words = [*re.split(r"[_\-.\d]+", file.stem.lower()), file.parent.name.lower(), file.parent.parent.name.lower()]
    return next((word for word in words if known_splits([word])), None)
