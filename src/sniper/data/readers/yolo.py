"""YOLO labels: one text file an image, one object a line, in shares of the image's size."""

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from sniper.data.building import ObjectRows, build_table
from sniper.data.columns import MaskBuilder
from sniper.data.table import AnnotationTable
from sniper.errors import DataError
from sniper.pixels.open import image_size

logger = logging.getLogger("sniper")

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".jp2", ".ppm", ".pgm"})
_NAME_FILES = ("classes.txt", "obj.names", "*.names")
_THREADS = 8  # headers and label files are small reads, mostly waiting


def read_yolo(
    path: Path | str,
    split: str | None = None,
    *,
    image_root: Path | str | None = None,
    names: Sequence[str] | None = None,
    skip_bad_images: bool = False,
) -> AnnotationTable:
    """Read a ``data.yaml`` or a folder.

    ``data.yaml`` has ``path``, ``train``/``val``/``test`` (a folder, a list file, or several) and ``names``; the split
    is train unless given. A folder has ``images/`` and ``labels/`` (each with splits, or inside each split), or label
    files beside the images; its class names stand in ``data.yaml``, ``classes.txt`` or ``*.names``, or are given as
    ``names``. With beside-lying labels a split is a list file ``<split>.txt``. ``image_root`` replaces the folder that
    images are looked for in. Lines are ``class cx cy w h`` or ``class x y x y x y ...`` (a polygon); an image without
    a label file has no objects. ``skip_bad_images`` leaves out, with a warning, images without a readable size.

    Raises:
        DataError: no images, labels or names are found, or a line is wrong (file and line are named).
    """
    place = Path(path)
    described = next((f for f in _descriptions(place) if f.is_file()), None)
    if described is not None:
        root, images, found = _from_description(described, split or "train", image_root)
    else:
        root, images = _from_folder(Path(image_root) if image_root is not None else place, split)
        found = None
    names = found or names or _names_in(place if place.is_dir() else place.parent)
    images = sorted(images)
    if not images:
        raise DataError(
            f"{path} has no images in {root} ({' '.join(sorted(IMAGE_SUFFIXES))}); check the path and the split"
        )
    sizes, images, unreadable = _sizes(path, images, skip_bad_images)
    labels = [_label_path(image) for image in images]
    present = [label if label.is_file() else None for label in labels]
    if not any(present):
        raise DataError(f"{path}: none of {len(images)} images has a label file, e.g. {labels[0]}; put labels there")
    with ThreadPoolExecutor(_THREADS) as pool:
        objects = list(pool.map(lambda label: _parse(label, len(names)), present))
    return _build(path, root, images, sizes, objects, names, unreadable)


class _Sizes(NamedTuple):
    """What headers say."""

    sizes_wh: NDArray[np.int64]  # (I, 2)
    images: list[Path]  # (I,) that have a size
    unreadable: list[DataError]  # of the others


def _sizes(path: Path | str, images: list[Path], skip_bad: bool) -> _Sizes:
    """Sizes from the headers, and the images that have one."""

    def size(image: Path) -> tuple[int, int] | DataError:
        try:
            return image_size(image)
        except DataError as error:
            return error

    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(zip(images, pool.map(size, images), strict=True))
    bad = [(image, answer) for image, answer in found if isinstance(answer, DataError)]
    if bad and (not skip_bad or len(bad) == len(images)):
        raise bad[0][1]
    if bad:
        logger.warning(
            "%s: %d unreadable images left out: %s", path, len(bad), ", ".join(str(image) for image, _ in bad)
        )
    good = [(image, answer) for image, answer in found if not isinstance(answer, DataError)]
    sizes = np.array([answer for _, answer in good], np.int64)
    return _Sizes(sizes, [image for image, _ in good], [answer for _, answer in bad])


@dataclass(frozen=True, slots=True)
class _Labels:
    """The objects of one image, in shares of its size."""

    classes: NDArray[np.int32]  # (N,)
    boxes: NDArray[np.float64]  # (N, 4) xyxy
    rings: dict[int, NDArray[np.float64]]  # polygons (points, 2) by object


_NONE = _Labels(np.zeros(0, np.int32), np.zeros((0, 4)), {})


def _build(
    path: Path | str,
    root: Path,
    images: list[Path],
    sizes: NDArray[np.int64],
    objects: list[_Labels],
    names: Sequence[str],
    unreadable: Sequence[DataError],
) -> AnnotationTable:
    counts = [len(labels.classes) for labels in objects]
    image_row = np.repeat(np.arange(len(images)), counts)
    scale = np.tile(sizes[image_row], 2).astype(np.float64)
    starts = np.concatenate([[0], np.cumsum(counts)])
    rings = {
        int(start) + row: ring * size
        for start, size, labels in zip(starts, sizes, objects, strict=False)
        for row, ring in labels.rings.items()
    }

    def add_mask(row: int, builder: MaskBuilder) -> None:
        builder.add([rings[row].ravel().tolist()] if row in rings else ())

    return build_table(
        ObjectRows(
            image_row,
            np.concatenate([labels.boxes for labels in objects]) * scale,
            np.concatenate([labels.classes for labels in objects]),
        ),
        source=path,
        root=root,
        file_names=[_relative(image, root) for image in images],
        image_ids=None,
        sizes_wh=sizes,
        class_names=names,
        add_mask=add_mask if rings else None,
        unreadable=unreadable,
    )


def _parse(path: Path | None, classes: int) -> _Labels:
    if path is None:
        return _NONE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read label file {path}: {error}; write it again as text") from error
    fields = [line.split() for line in lines]
    if not any(fields):
        return _NONE
    if {len(parts) for parts in fields if parts} == {5}:
        try:
            values = np.array([parts for parts in fields if parts], np.float64)
        except ValueError:
            pass  # found and named line by line below
        else:
            index = values[:, 0]
            if ((index >= 0) & (index < classes) & (index == np.floor(index))).all():
                return _Labels(index.astype(np.int32), _corners(values[:, 1:]), {})
    return _parse_lines(path, fields, classes)


def _parse_lines(path: Path, fields: list[list[str]], classes: int) -> _Labels:
    labels: list[int] = []
    boxes: list[NDArray[np.float64]] = []
    rings: dict[int, NDArray[np.float64]] = {}
    for number, parts in enumerate(fields, start=1):
        if not parts:
            continue
        if len(parts) != 5 and (len(parts) < 7 or len(parts) % 2 == 0):
            raise DataError(
                f"{path}, line {number}: {len(parts)} fields; a box has 5 (class cx cy w h), a polygon a class and "
                "three or more pairs x y; mend the line"
            )
        try:
            values = np.array(parts, np.float64)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}; write numbers only") from error
        if not (0 <= values[0] < classes and values[0] == int(values[0])):
            raise DataError(
                f"{path}, line {number}: class {parts[0]} is not in 0..{classes - 1}; mend it or add the class"
            )
        if len(parts) == 5:
            boxes.append(_corners(values[None, 1:])[0])
        else:
            ring = values[1:].reshape(-1, 2)
            rings[len(labels)] = ring
            boxes.append(np.concatenate([ring.min(axis=0), ring.max(axis=0)]))
        labels.append(int(values[0]))
    return _Labels(np.array(labels, np.int32), np.array(boxes).reshape(-1, 4), rings)


def _corners(centre_size: NDArray[np.float64]) -> NDArray[np.float64]:
    centre, half = centre_size[:, :2], centre_size[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def _label_path(image: Path) -> Path:
    """The twin of an image in ``labels/`` where it lies under ``images/``, else beside it."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[-2::-1].index("images")
        twin = Path(*parts[:last], "labels", *parts[last + 1 :]).with_suffix(".txt")
        beside = image.with_suffix(".txt")
        return beside if not twin.is_file() and beside.is_file() else twin
    return image.with_suffix(".txt")


def _relative(image: Path, root: Path) -> str:
    return image.relative_to(root).as_posix() if image.is_relative_to(root) else str(image.absolute())


def _images_under(folder: Path) -> list[Path]:
    return [
        file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
    ]


def _images_listed(file: Path) -> list[Path]:
    """Images of a list file, a path a line, relative to the file."""
    return [file.parent / line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _descriptions(place: Path) -> list[Path]:
    if place.suffix.lower() in (".yaml", ".yml"):
        return [place]
    return [place / "data.yaml", place / "data.yml", place / "dataset.yaml"]


def _from_description(
    file: Path, split: str, image_root: Path | str | None
) -> tuple[Path, list[Path], tuple[str, ...]]:
    try:
        said: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"cannot read {file}: {' '.join(str(error).split())}; mend the file") from error
    if not isinstance(said, dict) or not said.get("names"):
        raise DataError(f"{file} has no names; list the class names in it, e.g. 'names: [car, bus]'")
    names = said["names"]
    ordered = [names[key] for key in sorted(names)] if isinstance(names, dict) else names
    if isinstance(names, dict) and sorted(names) != list(range(len(names))):
        raise DataError(f"{file}: names must be numbered 0..{len(names) - 1}, not {sorted(names)[:10]}; number them so")
    keys = [split, "valid"] if split == "val" else [split, "val"] if split == "valid" else [split]
    entry = next((said[key] for key in keys if said.get(key)), None)
    if entry is None:
        there = [key for key in ("train", "val", "valid", "test") if said.get(key)]
        raise DataError(f"{file} has no split {split!r}; it has {', '.join(there) or 'none'}")
    root = Path(image_root) if image_root is not None else file.parent / (said.get("path") or "")
    if not root.is_dir() and image_root is None:  # written for another machine, or relative to somewhere else
        root = file.parent
    images: list[Path] = []
    for place in _as_list(entry):
        # Exported files often say ../train/images although the folders lie beside them.
        options = [root / place, file.parent / place, file.parent / str(place).removeprefix("../")]
        target = next((option for option in options if option.exists()), None)
        if target is None:
            raise DataError(f"{file}: {split} is {place!r}, which is not there ({options[0]}); correct the path")
        images += _images_under(target) if target.is_dir() else _images_listed(target)
    return root, images, tuple(str(name) for name in ordered)


def _as_list(entry: Any) -> Iterable[str]:
    return [str(place) for place in entry] if isinstance(entry, list) else [str(entry)]


def _from_folder(folder: Path, split: str | None) -> tuple[Path, list[Path]]:
    if split is None:
        inner = folder / "images"
        return folder, _images_under(inner if inner.is_dir() else folder)
    for candidate in (folder / "images" / split, folder / split / "images", folder / split):
        if candidate.is_dir():
            return folder, _images_under(candidate)
    listed = folder / f"{split}.txt"
    if listed.is_file():
        return folder, _images_listed(listed)
    raise DataError(
        f"{folder} has no split {split!r}: looked for images/{split}, {split}/images, {split} and {split}.txt"
    )


def _names_in(folder: Path) -> tuple[str, ...]:
    for base in (folder, folder / "labels", folder.parent):
        for pattern in _NAME_FILES:
            for file in sorted(base.glob(pattern)):
                lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
                if any(lines):
                    return tuple(line for line in lines if line)
    raise DataError(
        f"{folder} has no class names: looked for data.yaml, {', '.join(_NAME_FILES)}; add one or give classes"
    )
