"""Where the images and boxes of ImageNet are: in folders by synset, or as the ILSVRC archives unpack."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from sniper.data.options import IN_PYTHON, OptionNames, find_split, known_splits
from sniper.data.text_files import lines_of
from sniper.errors import DataError

SYNSET = re.compile(r"n\d{8}")
IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")
_TASKS = ("DET", "CLS-LOC")  # of ILSVRC
_BOXES = ("Annotation", "Annotations", "annotation", "annotations", "bbox", "boxes")
_LISTS = ("classes.txt", "synset_words.txt", "LOC_synset_mapping.txt", "synsets.txt")


class ImagenetFiles(NamedTuple):
    """The files of a split. Images and pages are found by their stems, which are unique in ImageNet."""

    images: Path  # folder
    pages: tuple[Path, ...]  # folders
    classes: Path | None  # a synset a line, its name behind it


def is_imagenet(folder: Path) -> bool:
    """Whether there are folders named as synsets, also in folders of splits, or those of an ILSVRC archive."""
    return _archive(folder) is not None or bool(_synset_bases(folder))


def imagenet_splits(folder: Path) -> list[str]:
    """The splits that have a folder."""
    archive = _archive(folder)
    if archive is not None:
        root, task = archive
        return known_splits(_folders(root / "Annotations" / task))
    return known_splits(base.name for base in _synset_bases(folder) if base != folder)


def imagenet_files(folder: Path, split: str | None, options: OptionNames = IN_PYTHON) -> ImagenetFiles:
    """Where the images and pages of a split are, or of all where none is given.

    Raises:
        DataError: the split is not there, or an archive holds several tasks.
    """
    there = imagenet_splits(folder)
    name = None if split is None else find_split(split, there)
    if split is not None and name is None:
        raise DataError(
            f"{folder} has no split {split!r}; it has {', '.join(there) or 'none'}: choose one with {options.split}"
        )
    archive = _archive(folder)
    inner = name or ""
    if archive is not None:
        root, task = archive
        pages: tuple[Path, ...] = (root / "Annotations" / task / inner,)
        return ImagenetFiles(root / "Data" / task / inner, pages, _class_list((root, root.parent)))
    images = folder / inner
    parts = dict.fromkeys((inner, ""))
    around = [base / boxes / part for base in (images, folder) for boxes in _BOXES for part in parts]
    pages = (images, *(place for place in around if place.is_dir() and images not in place.parents))
    return ImagenetFiles(images, pages, _class_list((images, folder)))


def files_by_stem(folders: Iterable[Path], suffixes: tuple[str, ...]) -> dict[str, Path]:
    """The files with one of the suffixes in the folders and all folders below, by stem; the first of a stem counts."""
    found: dict[str, Path] = {}
    for folder in folders:
        for place, inner, names in os.walk(folder):
            inner.sort()
            for name in sorted(names):
                stem, dot, suffix = name.rpartition(".")
                if f"{dot}{suffix}".lower() in suffixes:
                    found.setdefault(stem, Path(place, name))
    return found


def images_by_stem(folder: Path) -> dict[str, Path]:
    """The image files in a folder and all folders in it."""
    return files_by_stem([folder], IMAGE_SUFFIXES)


def class_names(file: Path) -> dict[str, str]:
    """Each synset of a list with its name, in the order of the file.

    A line is a synset and, behind a space or a tab, words for it, of which the first counts. Without words, or where
    the first word stands for an earlier synset too, the synset is part of the name.

    Raises:
        DataError: it cannot be read, a line is none, or a synset comes twice.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for number, line in enumerate(lines_of(file, "a synset and its name"), start=1):
        synset, _, words = line.replace("\t", " ").partition(" ")
        if SYNSET.fullmatch(synset) is None or synset in names:
            wrong = "comes a second time" if synset in names else "is no synset"
            raise DataError(f"{file}: entry {number}: {synset!r} {wrong}; expected lines such as 'n01440764 tench'")
        word = words.split(",")[0].strip()
        name = f"{word} ({synset})" if word in taken else word or synset
        taken.add(word)
        names[synset] = name
    return names


def _archive(folder: Path) -> tuple[Path, str] | None:
    """Root and task of an ILSVRC archive; ``folder`` is its root, the folder around it, or ``Data/<task>`` in it."""
    if folder.name in _TASKS and (folder.parents[1] / "Annotations" / folder.name).is_dir():
        return folder.parents[1], folder.name
    for root in (folder, folder / "ILSVRC"):
        tasks = [task for task in _TASKS if (root / "Annotations" / task).is_dir()]
        if len(tasks) > 1:
            raise DataError(f"{root} holds {' and '.join(tasks)}; give {root / 'Data' / tasks[0]} or the other")
        if tasks:
            return root, tasks[0]
    return None


def _synset_bases(folder: Path) -> list[Path]:
    """``folder``, or those of its splits, that hold folders named as synsets."""
    if any(map(SYNSET.fullmatch, _folders(folder))):
        return [folder]
    splits = (folder / name for name in known_splits(_folders(folder)))
    return [base for base in splits if any(map(SYNSET.fullmatch, _folders(base)))]


def _class_list(places: Iterable[Path]) -> Path | None:
    return next((place / name for place in places for name in _LISTS if (place / name).is_file()), None)


def _folders(place: Path) -> Iterator[str]:
    if place.is_dir():
        with os.scandir(place) as entries:
            yield from (entry.name for entry in entries if entry.is_dir())
