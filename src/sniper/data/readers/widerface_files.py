"""Where the annotation files of WIDER FACE and their images are, in the official layout."""

import re
from pathlib import Path

from sniper.data.options import IN_PYTHON, OptionNames, find_split
from sniper.errors import DataError

_FILE = re.compile(r"wider_face_(train|val|test)(_bbx_gt\.txt|\.mat)", re.IGNORECASE)
_PLACES = (".", "wider_face_split", "ground_truth")


def is_wider(folder: Path) -> bool:
    """Whether the official annotation files are in the folder, or in ``wider_face_split`` or ``ground_truth`` in it."""
    return bool(_files(folder))


def is_wider_file(file: Path) -> bool:
    """Whether a file is called as an official annotation file; of others the form must be said."""
    return _FILE.fullmatch(file.name) is not None


def wider_splits(folder: Path) -> list[str]:
    """The splits that have a file."""
    return sorted(_files(folder))


def wider_file(folder: Path, split: str | None, options: OptionNames = IN_PYTHON) -> Path:
    """The annotation file of a split, or the only one.

    Raises:
        DataError: there is none, or which one is not said.
    """
    files = _files(folder)
    name = find_split(split, sorted(files)) if split is not None else next(iter(files)) if len(files) == 1 else None
    if name is not None:
        return files[name]
    if not files:
        raise DataError(
            f"{folder} has no WIDER FACE annotations: looked for wider_face_<split>_bbx_gt.txt and .mat there, in "
            f"{' and '.join(_PLACES[1:])}; give the folder that contains them"
        )
    wanted = f"has no split {split!r}" if split is not None else "does not say which split to read"
    raise DataError(f"{folder} {wanted}; it has {', '.join(sorted(files))}: choose one with {options.split}")


def image_folders(file: Path) -> list[Path]:
    """The folders in which the images of an annotation file are looked for, the likeliest first."""
    matched = _FILE.fullmatch(file.name)
    inner = [f"WIDER_{matched[1].lower()}/images", f"WIDER_{matched[1].lower()}"] if matched else []
    bases = [file.parent.parent, file.parent] if file.parent.name in _PLACES else [file.parent, file.parent.parent]
    return [base / name for base in bases for name in (*inner, "images")]


def _files(folder: Path) -> dict[str, Path]:
    """The annotation file of each split: the text file, or else the MATLAB file."""
    found: dict[str, Path] = {}
    for place in (folder / name for name in _PLACES):
        for file in sorted(place.iterdir(), reverse=True) if place.is_dir() else ():
            if matched := _FILE.fullmatch(file.name):
                found.setdefault(matched[1].lower(), file)
    return found
