"""Pascal VOC: one XML file an image."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from sniper.data.building import ObjectRows, build_table
from sniper.data.flags import ObjectFlag
from sniper.data.table import AnnotationTable
from sniper.errors import DataError
from sniper.pixels.open import image_size

_MARKS = {
    "difficult": ObjectFlag.DIFFICULT,
    "truncated": ObjectFlag.TRUNCATED,
    "occluded": ObjectFlag.OCCLUDED,
}
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, slots=True)
class _Page:
    """One annotation file."""

    file_name: str  # relative to the image folder
    size_wh: tuple[int, int]
    names: list[str]
    corners: list[tuple[float, ...]]  # 1-based, both ends inclusive, as written
    flags: list[int]  # bits of ObjectFlag


def read_voc(path: Path | str, split: str | None = None, *, image_root: Path | str | None = None) -> AnnotationTable:
    """Read a folder with ``Annotations``, ``JPEGImages`` and ``ImageSets/Main``.

    ``split`` is a list in ``ImageSets/Main``; without it every annotated image is taken. Classes are all the names in
    ``Annotations``, sorted, whatever the split, so that splits agree. The inclusive corners that count from 1 become
    half-open boxes: ``x1 - 1, y1 - 1, x2, y2``; one whose corners are a single point is empty.
    Objects may be marked difficult, truncated and occluded. ``image_root`` replaces ``JPEGImages``.

    Raises:
        DataError: a folder, list or annotation is missing, or an XML file is damaged or incomplete.
    """
    folder = Path(path)
    annotations = folder / "Annotations"
    if not annotations.is_dir():
        raise DataError(f"{folder} has no folder Annotations; give the folder that contains it")
    root = Path(image_root) if image_root is not None else folder / "JPEGImages"
    files = {file.stem: file for file in sorted(annotations.glob("*.xml"))}
    stems = list(files) if split is None else _listed(folder, split)
    images = {file.name for file in root.iterdir()} if root.is_dir() else set()
    by_stem = {Path(name).stem: name for name in sorted(images)}
    absent = [stem for stem in stems if stem not in files]
    if absent:
        raise DataError(f"{annotations} lacks {absent[0]}.xml of split {split!r} ({len(absent)} such); restore it")
    chosen = set(stems)
    others = (stem for stem in files if stem not in chosen)
    names = {name for stem in others for name in _class_names(files[stem])}
    with ThreadPoolExecutor(8) as pool:
        pages = list(pool.map(lambda stem: _page(files[stem], root, images, by_stem), stems))
    classes = sorted(names.union(*(page.names for page in pages)))
    index = {name: label for label, name in enumerate(classes)}
    corners = np.array([box for page in pages for box in page.corners], np.float64).reshape(-1, 4)
    clicked = (corners[:, :2] == corners[:, 2:]).all(axis=1)[:, None]  # an accident of labelling, left empty
    return build_table(
        ObjectRows(
            image_row=np.repeat(np.arange(len(pages)), [len(page.names) for page in pages]),
            boxes_xyxy=corners - np.where(clicked, 0, [1, 1, 0, 0]),
            labels=np.array([index[name] for page in pages for name in page.names], np.int32),
            flags=np.array([flags for page in pages for flags in page.flags], np.uint8),
        ),
        source=folder if split is None else f"{folder} ({split})",
        root=root,
        file_names=[page.file_name for page in pages],
        image_ids=None,
        sizes_wh=np.array([page.size_wh for page in pages], np.int64).reshape(-1, 2),
        class_names=classes,
    )


def _listed(folder: Path, split: str) -> list[str]:
    """Image names of a split; a second column (the per-class lists have it) is left out."""
    sets = folder / "ImageSets" / "Main"
    file = sets / f"{split}.txt"
    if not file.is_file():
        there = ", ".join(sorted(found.stem for found in sets.glob("*.txt"))[:20]) or "no lists"
        raise DataError(f"{folder} has no split {split!r} in ImageSets/Main; it has {there}")
    return [line.split()[0] for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _parse(file: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(file).getroot()
    except ElementTree.ParseError as error:
        raise DataError(f"{file}, line {error.position[0]}: damaged XML ({error}); write the file again") from error
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}; restore the file") from error


def _class_names(file: Path) -> Iterable[str]:
    return [(item.findtext("name") or "").strip() for item in _parse(file).iter("object")]


def _page(file: Path, root: Path, images: set[str], by_stem: dict[str, str]) -> _Page:
    page = _parse(file)
    written = (page.findtext("filename") or "").strip()
    # Renamed sets keep the old name inside; the file of the annotation's own name is then meant.
    name = written if written in images else by_stem.get(file.stem, written or f"{file.stem}.jpg")
    names, corners, flags = [], [], []
    for number, item in enumerate(page.iter("object"), start=1):
        label = (item.findtext("name") or "").strip()
        if not label:
            raise DataError(f"{file}: object {number} has no name; add it or remove the object")
        names.append(label)
        corners.append(_corners(file, number, item))
        flags.append(sum(int(flag) for word, flag in _MARKS.items() if _is_marked(item, word)))
    return _Page(name, _size(file, page, root / name), names, corners, flags)


def _is_marked(item: ElementTree.Element, word: str) -> bool:
    return (item.findtext(word) or "0").strip().lower() not in ("0", "", "false")


def _corners(file: Path, number: int, item: ElementTree.Element) -> tuple[float, ...]:
    texts = [item.findtext(f"bndbox/{corner}") for corner in _CORNERS]
    try:
        return tuple(float(text or "missing") for text in texts)
    except ValueError as error:
        said = dict(zip(_CORNERS, texts, strict=True))
        raise DataError(f"{file}: object {number} has corners {said}; four numbers are needed") from error


def _size(file: Path, page: ElementTree.Element, image: Path) -> tuple[int, int]:
    try:
        width, height = (int(float(page.findtext(f"size/{side}") or 0)) for side in ("width", "height"))
    except ValueError as error:
        raise DataError(f"{file}: the size is not in numbers; write width and height in pixels") from error
    return (width, height) if width > 0 and height > 0 else image_size(image)
