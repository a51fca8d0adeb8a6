"""Where the images and class names of a YOLO dataset are: in a ``data.yaml``, or around a folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sniper.data.options import IN_PYTHON, OptionNames, aliases, find_split, known_splits
from sniper.data.text_files import lines_of
from sniper.errors import DataError
from sniper.files import is_there
from sniper.settings import read_yaml

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".jp2", ".ppm", ".pgm"})
DESCRIPTIONS = ("data.yaml", "data.yml", "dataset.yaml")
_NAME_FILES = ("classes.txt", "obj.names", "*.names")
_NOTHING = ("", "null", "~", "Null", "NULL")  # as YAML writes no value


class YoloImages(NamedTuple):
    """The images of a split, and the class names that come with them."""

    root: Path
    images: list[Path]
    class_names: tuple[str, ...] | None  # None: not said here


def yolo_splits(place: Path) -> list[str]:
    """The splits that a ``data.yaml`` or a folder has."""
    described = _description(place)
    if described is not None:
        return known_splits(key for key, value in _read(described).items() if _is_said(value))
    if not place.is_dir():
        return []
    inner = place / "images"
    folders = [child for base in (place, inner) if base.is_dir() for child in base.iterdir() if child.is_dir()]
    lists = [file.stem for file in place.glob("*.txt")]
    return known_splits([*(folder.name for folder in folders), *lists])


def yolo_images(
    place: Path, split: str | None, image_root: Path | str | None, options: OptionNames = IN_PYTHON
) -> YoloImages:
    """The images of ``place``, sorted; the split of a description is train unless given.

    Raises:
        DataError: there is no such split, or the description is wrong.
    """
    described = _description(place)
    if described is not None:
        found = _from_description(described, split or "train", image_root, options)
    else:
        base = Path(image_root) if image_root is not None else place
        found = YoloImages(base, _from_folder(base, split, options), None)
    return found._replace(images=sorted(found.images))


def class_names_of(folder: Path, options: OptionNames = IN_PYTHON) -> tuple[str, ...] | None:
    """The class names that a file in or around a folder of labels lists, one a line; None: there is no such file."""
    for base in (folder, folder / "labels", folder.parent):
        for pattern in _NAME_FILES:
            for file in sorted(base.glob(pattern)):
                names = tuple(lines_of(file, "names of classes"))
                if names:
                    check_names(file, names)
                    return names
    return None


def no_class_names(folder: Path, options: OptionNames) -> DataError:
    """The error of labels whose classes have no names."""
    return DataError(
        f"{folder} has no class names: looked for data.yaml, {', '.join(_NAME_FILES)}; "
        f"add one, or name the classes with {options.classes}"
    )


def check_names(file: Path, names: Sequence[str]) -> None:
    """Refuse a class name that is given twice.

    Raises:
        DataError: one is, with both of its numbers.
    """
    for number, name in enumerate(names):
        first = names.index(name)
        if first != number:
            raise DataError(f"{file}: classes {first} and {number} are both called {name!r}; give each its own name")


def _description(place: Path) -> Path | None:
    if place.suffix.lower() in (".yaml", ".yml"):
        return place
    return next((place / name for name in DESCRIPTIONS if (place / name).is_file()), None)


def _read(file: Path) -> dict[str, Any]:
    """The description, every value as it is written: a class may be called no, or 007."""
    try:
        said: Any = read_yaml(file.read_text(encoding="utf-8-sig"), as_written=True)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"cannot read {file}: {' '.join(str(error).split())}; mend the file") from error
    return said if isinstance(said, dict) else {}


def _is_said(value: Any) -> bool:
    return bool(value) and value not in _NOTHING


def _names(file: Path, said: dict[str, Any]) -> tuple[str, ...]:
    names = said.get("names")
    if not _is_said(names):
        raise DataError(f"{file} has no names; list the class names in it, e.g. 'names: [car, bus]'")
    if isinstance(names, dict):
        numbered = {int(key) if key.isdecimal() and len(key) < 10 else key: name for key, name in names.items()}
        if set(numbered) != set(range(len(names))):
            found = _short(repr(list(names)[:10]))
            raise DataError(f"{file}: names must be numbered 0..{len(names) - 1}, not {found}; number them so")
        names = [numbered[number] for number in range(len(numbered))]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{file}: names is {_short(repr(names))}; list the class names, e.g. 'names: [car, bus]'")
    if _is_said(said.get("nc")) and said["nc"] != str(len(names)):
        raise DataError(f"{file}: nc is {said['nc']}, but {len(names)} names are listed; correct the wrong one")
    check_names(file, names)
    return tuple(names)


def _from_description(file: Path, split: str, image_root: Path | str | None, options: OptionNames) -> YoloImages:
    said = _read(file)
    names = _names(file, said)
    there = [key for key, value in said.items() if _is_said(value)]
    key = find_split(split, there)
    if key is None:
        raise DataError(
            f"{file} has no split {split!r}; it has {', '.join(known_splits(there)) or 'none'}; "
            f"choose another with {options.split}"
        )
    root = Path(image_root) if image_root is not None else file.parent / _path(file, "path", said.get("path") or "")
    if not is_there(root) and image_root is None:  # written for another machine, or relative to somewhere else
        root = file.parent
    images: list[Path] = []
    for entry in said[key] if isinstance(said[key], list) else [said[key]]:
        place = _path(file, key, entry)
        # Exported files often say ../train/images although the folders lie beside them.
        tried = [root / place, file.parent / place, file.parent / place.removeprefix("../")]
        target = next((option for option in tried if is_there(option)), None)
        if target is None:
            where = ", ".join(dict.fromkeys(_short(str(option)) for option in tried))
            raise DataError(
                f"{file}: {key} is {_short(repr(place))}, which is not there (looked for {where}); "
                f"correct it, or give the folder that it is relative to with {options.images}"
            )
        images += _images_under(target) if target.is_dir() else _images_listed(target)
    return YoloImages(root, images, names)


def _path(file: Path, key: str, entry: Any) -> str:
    if not isinstance(entry, str):
        raise DataError(f"{file}: {key} is {_short(repr(entry))}; expected the path of a folder or of a list of images")
    return entry


def _short(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:300]}..."


def _from_folder(folder: Path, split: str | None, options: OptionNames) -> list[Path]:
    if split is None:
        inner = folder / "images"
        return _images_under(inner if inner.is_dir() else folder)
    there = yolo_splits(folder)
    for name in dict.fromkeys([find_split(split, there) or split, *aliases(split)]):
        for candidate in (folder / "images" / name, folder / name / "images", folder / name):
            if candidate.is_dir():
                return _images_under(candidate)
        if (folder / f"{name}.txt").is_file():
            return _images_listed(folder / f"{name}.txt")
    raise DataError(
        f"{folder} has no split {split!r}: looked for images/{split}, {split}/images, {split} and {split}.txt; "
        + (f"it has {', '.join(there)}: choose one with {options.split}" if there else f"leave {options.split} out")
    )


def _images_under(folder: Path) -> list[Path]:
    return [
        file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
    ]


def _images_listed(file: Path) -> list[Path]:
    """Images of a list file, a path a line, relative to the file."""
    return [file.parent / line for line in lines_of(file, "images")]
