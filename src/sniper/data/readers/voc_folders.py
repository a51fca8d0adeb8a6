"""Where the annotation files and images of a Pascal VOC dataset are, in the layouts that people have."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from sniper.data.options import IN_PYTHON, OptionNames, find_split, known_splits
from sniper.data.text_files import lines_of
from sniper.errors import DataError

_ANNOTATIONS = ("annotations", "annots", "annotation", "xmls", "xml", "labels")
_IMAGES = ("jpegimages", "images", "imgs", "image", "img", "photos")


class VocFiles(NamedTuple):
    """The annotation files of a split, and where else class names stand."""

    pages: list[Path]
    others: list[Path]  # of other splits, so that the classes of splits agree
    folder: Path  # that images are looked for around


def is_voc(folder: Path) -> bool:
    """Whether there are annotation files: in a folder of the usual names, beside the images, or so in split folders."""
    return _annotations(folder) is not None or bool(_split_folders(folder))


def voc_splits(folder: Path) -> list[str]:
    """The splits that ``ImageSets/Main`` lists, or else those that have a folder."""
    listed = known_splits(file.stem for file in _lists(folder))
    return listed or ([] if _annotations(folder) is not None else list(_split_folders(folder)))


def voc_files(folder: Path, split: str | None, options: OptionNames = IN_PYTHON) -> VocFiles:
    """The annotation files of a split, or of all where none is given.

    Raises:
        DataError: there are none, or not all of those that the split lists.
    """
    annotations = _annotations(folder)
    if annotations is None:
        return _of_split_folders(folder, split, options)
    files = {file.stem: file for file in _pages(annotations)}
    if split is None:
        return VocFiles(list(files.values()), [], folder)
    stems = _listed(folder, split, options)
    absent = [stem for stem in stems if stem not in files]
    if absent:
        raise DataError(f"{annotations} lacks {absent[0]}.xml of split {split!r} ({len(absent)} such); restore it")
    chosen = set(stems)
    return VocFiles([files[stem] for stem in stems], [files[stem] for stem in files if stem not in chosen], folder)


def image_folders(folder: Path, pages: Collection[Path]) -> list[Path]:
    """The folders in which the images of annotation files are looked for, the likeliest first."""
    beside = dict.fromkeys(page.parent for page in pages)
    around = dict.fromkeys([folder, *(place.parent for place in beside)])
    named = [child for base in around for child in _named(base, _IMAGES)]
    return list(dict.fromkeys([*named, folder / "JPEGImages", *beside, *around]))


def _annotations(folder: Path) -> Path | None:
    """The folder with the annotation files, which may be ``folder`` itself."""
    for child in [*_named(folder, _ANNOTATIONS), folder]:
        for place in (child, *(_named(child, _ANNOTATIONS) if child != folder else ())):
            if next(place.glob("*.xml"), None) is not None:
                return place
    return None


def _named(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """Folders in ``folder`` by these names in any case, in the order of the names."""
    if not folder.is_dir():
        return []
    children = {child.name.lower(): child for child in sorted(folder.iterdir(), reverse=True) if child.is_dir()}
    return [children[name] for name in names if name in children]


def _split_folders(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    names = known_splits(child.name for child in folder.iterdir() if child.is_dir())
    return {name: folder / name for name in names if _annotations(folder / name) is not None}


def _of_split_folders(folder: Path, split: str | None, options: OptionNames) -> VocFiles:
    parts = _split_folders(folder)
    if not parts:
        raise DataError(
            f"{folder} has no annotation files: looked for *.xml in Annotations, annots, xml or the like, in any case, "
            "beside the images, and in folders of splits; give the folder that contains them"
        )
    if split is None:
        return VocFiles([page for part in parts.values() for page in _pages_in(part)], [], folder)
    name = find_split(split, list(parts))
    if name is None:
        raise _no_split(folder, split, "folders", list(parts), options)
    others = [page for other, part in parts.items() if other != name for page in _pages_in(part)]
    return VocFiles(_pages_in(parts[name]), others, parts[name])


def _pages_in(folder: Path) -> list[Path]:
    annotations = _annotations(folder)
    assert annotations is not None
    return _pages(annotations)


def _pages(annotations: Path) -> list[Path]:
    return sorted(annotations.glob("*.xml"))


def _lists(folder: Path) -> Iterator[Path]:
    return (folder / "ImageSets" / "Main").glob("*.txt")


def _listed(folder: Path, split: str, options: OptionNames) -> list[str]:
    """Image names of a split; a second column (the per-class lists have it) is left out."""
    files = {file.stem: file for file in _lists(folder)}
    name = find_split(split, sorted(files))
    if name is None:
        raise _no_split(folder, split, "ImageSets/Main", sorted(files)[:20], options)
    return [line.split()[0] for line in lines_of(files[name], "images")]


def _no_split(folder: Path, split: str, where: str, there: list[str], options: OptionNames) -> DataError:
    has = f"it has {', '.join(there)}: choose one with" if there else "there are no lists of images: leave out"
    return DataError(f"{folder} has no split {split!r} in {where}; {has} {options.split}")
