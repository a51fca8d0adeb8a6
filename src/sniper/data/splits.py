"""The parts that a dataset says it has: splits of one description, or several annotation files."""

import re
from pathlib import Path
from typing import NamedTuple

import yaml

from sniper.data.readers.openimages_files import is_openimages, openimages_splits
from sniper.data.readers.widerface_files import is_wider, wider_splits
from sniper.settings import read_yaml

SPLITS = ("train", "val", "valid", "test")
_DESCRIPTIONS = ("data.yaml", "data.yml", "dataset.yaml")


class Part(NamedTuple):
    """What ``load_dataset`` takes for one part of a dataset."""

    path: Path
    split: str | None

    @property
    def name(self) -> str:
        """The part as a user would say it."""
        return str(self.path) if self.split is None else f"{self.path} ({self.split})"


def parts_of(path: Path | str) -> list[Part]:
    """All parts of a dataset; the dataset itself where it does not tell any apart.

    They are the entries train, val (or valid) and test of a ``data.yaml``, lists of these names of a Pascal VOC set,
    files of boxes of OpenImages or annotation files of WIDER FACE, COCO files in ``annotations`` or the folder itself
    (of several kinds, those called ``instances...``), or folders of images. Nothing else of the dataset is read.
    """
    place = Path(path).expanduser()
    if place.is_file():
        return _with_splits(place, _described(place) if place.suffix.lower() in (".yaml", ".yml") else ())
    described = next((place / name for name in _DESCRIPTIONS if (place / name).is_file()), None)
    if described is not None:
        return _with_splits(place, _described(described))
    if is_wider(place):
        return _with_splits(place, tuple(name for name in SPLITS if name in wider_splits(place)))
    lists = place / "ImageSets" / "Main"
    if lists.is_dir():
        return _with_splits(place, tuple(name for name in SPLITS if (lists / f"{name}.txt").is_file()))
    if is_openimages(place):  # whose hierarchy is a JSON file
        return _with_splits(place, tuple(sorted(openimages_splits(place), key=lambda name: name != "train")))
    files = _coco_files(place)
    if files:
        return [Part(file, None) for file in files]
    return _with_splits(place, tuple(name for name in SPLITS if _has_folder(place, name)))


def _with_splits(place: Path, splits: tuple[str, ...]) -> list[Part]:
    return [Part(place, split) for split in splits] or [Part(place, None)]


def _described(file: Path) -> tuple[str, ...]:
    try:
        said = read_yaml(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError):
        return ()  # whoever reads the dataset says what is wrong
    return tuple(name for name in SPLITS if said.get(name)) if isinstance(said, dict) else ()


def _coco_files(folder: Path) -> list[Path]:
    """Files that begin as a JSON object, which lists of results or ids do not, from the first place that has any."""
    inner = [folder / name for name in SPLITS]
    for places in ([folder / "annotations"], [folder], inner):
        files = [file for place in places for file in sorted(place.glob("*.json")) if _begins_as_object(file)]
        if files:
            instances = [file for file in files if file.name.startswith("instances")]
            return sorted(instances or files, key=lambda file: SPLITS.index(split_in(file)))
    return []


def split_in(file: Path) -> str:
    """The split that a file is called after, or the folder it lies in; ``train`` where neither says one."""
    words = [*re.split(r"[_\-.\d]+", file.stem.lower()), file.parent.name.lower()]
    return next((word for word in words if word in SPLITS), "train")


def _begins_as_object(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            return opened.read(256).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{"
    except OSError:
        return False


def _has_folder(folder: Path, name: str) -> bool:
    return any((folder / inner).is_dir() for inner in (f"images/{name}", name)) or (folder / f"{name}.txt").is_file()
