"""Which COCO file of a folder is meant, and where its images may be."""

import re
from pathlib import Path

from sniper.data.options import IN_PYTHON, OptionNames, aliases, find_split, known_splits
from sniper.errors import DataError
from sniper.files import is_file

_BOM = b"\xef\xbb\xbf"


def is_coco(folder: Path, split: str | None = None) -> bool:
    """Whether there is a file of annotations in the folder, in ``annotations`` or in a folder of a split."""
    return bool(_json_files(folder, split)) or bool(_split_folders(folder))


def coco_splits(folder: Path) -> list[str]:
    """The splits that names of annotation files, or folders with one, tell."""
    files = _json_files(folder, None)
    if files and files[0].parent != folder:
        return _in_names(files)
    return sorted({*_split_folders(folder), *_in_names(files)})


def coco_file(folder: Path, split: str | None, options: OptionNames = IN_PYTHON) -> Path:
    """The annotation file of a split, or the only one.

    Raises:
        DataError: there is none, or which one is not said.
    """
    names = [split] if split is None else [find_split(split, coco_splits(folder)) or split]
    files = _json_files(folder, names[0])
    if not files:
        folders = ", ".join(_split_folders(folder))
        raise DataError(
            f"{folder} has no COCO file: looked for annotations/*.json, *.json and <split>/*.json"
            + (f"; it has folders of splits ({folders}): choose one with {options.split}" if folders else "")
        )
    chosen = files
    if split is not None and any(file.parent != folder / str(names[0]) for file in files):
        either = "|".join(map(re.escape, dict.fromkeys([str(names[0]), *aliases(split)])))
        part = re.compile(rf"(^|[_\-.])({either})(\d{{4}})?($|[_\-.])", re.IGNORECASE)
        chosen = [file for file in files if part.search(file.stem)]
    if len(chosen) > 1:
        chosen = [file for file in chosen if file.stem.startswith("instances")] or chosen
    if len(chosen) == 1:
        return chosen[0]
    there = ", ".join(file.name for file in files[:12])
    if not chosen:
        raise DataError(
            f"{folder} has no annotations of split {split!r}; it has {there}; choose one of these splits with "
            f"{options.split}, or give the file itself"
        )
    wanted = "which split to read" if split is None else f"which file of split {split!r} is meant"
    raise DataError(f"{folder} does not say {wanted}; it has {there}; give the file itself, or say {options.split}")


def image_roots(file: Path) -> list[Path]:
    """The folders around an annotation file that its images may be in, the likeliest first."""
    folder, above = file.parent, file.parent.parent
    splits = _splits_of(file)
    inner = [
        "",
        "images",
        *splits,
        *(f"images/{s}" for s in splits),
        *(f"{s}/images" for s in splits),
        "JPEGImages",
        "data",
    ]
    return list(dict.fromkeys(base / name for base in (folder, above) for name in inner))


def guess_image_root(file: Path, *file_names: str) -> Path:
    """The folder around an annotation file in which one of ``file_names`` lies; the likeliest one if none does."""
    for name in file_names:
        for candidate in image_roots(file):
            if is_file(candidate / name):
                return candidate
    folder, above = file.parent, file.parent.parent
    named = [base / name for base in (above, folder) for name in _splits_of(file) if (base / name).is_dir()]
    return named[0] if named else folder


def _splits_of(file: Path) -> list[str]:
    stem = re.sub(r"^(instances|person_keypoints|captions|image_info|annotations)_|_(annotations|coco)$", "", file.stem)
    return list(dict.fromkeys([stem, re.sub(r"\d{4}$", "", stem)]))


def _in_names(files: list[Path]) -> list[str]:
    return known_splits(re.sub(r"\d{4}$", "", part) for file in files for part in re.split(r"[_\-.]", file.stem))


def _split_folders(folder: Path) -> list[str]:
    names = known_splits(child.name for child in folder.iterdir() if child.is_dir()) if folder.is_dir() else []
    return [name for name in names if any(map(_looks_like_coco, (folder / name).glob("*.json")))]


def _json_files(folder: Path, split: str | None) -> list[Path]:
    """JSON files that may hold annotations, from the first place that has any."""
    inside = [folder / split] if split else []
    for place in (folder / "annotations", *inside, folder):
        files = sorted(file for file in place.glob("*.json") if _looks_like_coco(file))
        if files:
            return files
    return []


def _looks_like_coco(file: Path) -> bool:
    """Whether the file begins as an object: result files and id lists are arrays."""
    with file.open("rb") as opened:
        return opened.read(256).removeprefix(_BOM).lstrip()[:1] == b"{"
