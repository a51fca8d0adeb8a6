"""A folder of photos to learn classes from: one subfolder a class."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sniper.data.voc_pages import read_page
from sniper.errors import DataError
from sniper.files import existing
from sniper.pipeline.source_files import IMAGE_SUFFIXES

BACKGROUND_FOLDER = "background"  # photos that show none of the classes


@dataclass(frozen=True, slots=True)
class ClassPhoto:
    """A photo and what it is said to show."""

    path: Path
    class_name: str | None  # None: none of the classes
    content: str  # SHA-256 of the file
    boxes_xyxy: NDArray[np.float64] | None = None  # (K, 4) of its class, original px; None: not told

    @property
    def name(self) -> str:
        """Folder and file."""
        return f"{self.path.parent.name}/{self.path.name}"


def read_photo_folder(folder: Path | str) -> list[ClassPhoto]:
    """All photos of all classes, by class and name; boxes from Pascal VOC XML beside a photo.

    A subfolder ``background`` holds photos of none of the classes.

    Raises:
        DataError: there is no such folder, it has no subfolders, one of these has no photo, or a photo is in two.
    """
    place = existing(folder, "give a folder with one subfolder of photos a class")
    if not place.is_dir():
        raise DataError(f"{place} is a file; give a folder with one subfolder of photos a class")
    folders = sorted(one for one in place.iterdir() if one.is_dir() and not one.name.startswith("."))
    if not folders:
        raise DataError(f"{place} has no subfolders; put the photos of each class into a subfolder of its name")
    photos = [photo for one in folders for photo in _photos_of(one)]
    seen: dict[str, ClassPhoto] = {}
    for photo in photos:
        twin = seen.setdefault(photo.content, photo)
        if twin.class_name != photo.class_name:
            raise DataError(f"{photo.path} is the same photo as {twin.path}, and in another class; remove one of them")
    return photos


def _photos_of(folder: Path) -> list[ClassPhoto]:
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
    if not files:
        raise DataError(f"{folder} has no photo ({', '.join(sorted(IMAGE_SUFFIXES))}); add some or remove the folder")
    name = None if folder.name == BACKGROUND_FOLDER else folder.name
    return [ClassPhoto(file, name, _content(file), _boxes(file, name)) for file in files]


def _content(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}; restore or remove it") from error


def _boxes(file: Path, name: str | None) -> NDArray[np.float64] | None:
    """Boxes of the class from the XML beside a photo: those of its name, or all where none has it."""
    page = file.with_suffix(".xml")
    if name is None or not page.is_file():
        return None
    told = read_page(page, lambda _, written: file)
    names, boxes = told.names, np.array(told.corners, np.float64).reshape(-1, 4) - [1, 1, 0, 0]  # half-open
    sound = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    own = sound & np.array([one.lower() == name.lower() for one in names], np.bool_)
    chosen = boxes[own if own.any() else sound]
    return chosen if len(chosen) else None
