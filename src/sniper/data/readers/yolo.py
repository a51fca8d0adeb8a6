"""YOLO labels: one text file an image, one object a line, in shares of the image's size."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.data.building import ObjectRows, build_table
from sniper.data.columns import MaskBuilder
from sniper.data.options import IN_PYTHON, OptionNames
from sniper.data.readers.yolo_images import class_names_of, no_class_names, yolo_images
from sniper.data.table import AnnotationTable
from sniper.errors import DataError
from sniper.pixels.open import image_size

logger = logging.getLogger("sniper")

_PIXELS_FROM = 1.5  # centre, width and height above it are no shares of an image, however badly drawn
_quiet = np.errstate(over="ignore", invalid="ignore")  # boxes that are not finite are dropped, and told
_THREADS = 8  # headers and label files are small reads, mostly waiting


def read_yolo(
    path: Path | str,
    split: str | None = None,
    *,
    image_root: Path | str | None = None,
    names: Sequence[str] | None = None,
    known_as: Sequence[str] | None = None,
    skip_bad_images: bool = False,
    options: OptionNames = IN_PYTHON,
) -> AnnotationTable:
    """Read a ``data.yaml`` or a folder.

    ``data.yaml`` has ``path``, ``train``/``val``/``test`` (a folder, a list file, or several) and ``names``; the split
    is train unless given. A folder has ``images/`` and ``labels/`` (each with splits, or inside each split), or label
    files beside the images; its class names stand in ``data.yaml``, ``classes.txt`` or ``*.names``; else they are
    ``names``, or those of a detector, ``known_as``, with a warning. With beside-lying labels a split is a list file
    ``<split>.txt``. ``image_root`` replaces the folder that images are looked for in; labels may stay where they are.
    Lines are ``class cx cy w h`` or ``class x y x y x y ...`` (a polygon); an image without a label file has no
    objects. ``skip_bad_images`` leaves out, with a warning, images without a readable size.

    Raises:
        DataError: no images, labels or names are found, a line is wrong (file and line are named), or the labels are in
            pixels.
    """
    place = Path(path)
    found = yolo_images(place, split, image_root, options)
    root, images = found.root, found.images
    folder = place if place.is_dir() else place.parent
    class_names = found.class_names or class_names_of(folder) or names
    if class_names is None:
        if known_as is None:
            raise no_class_names(folder, options)
        class_names = known_as
        told = ", ".join(class_names[:20])
        logger.warning("%s has no class names; its numbers are taken for the detector's classes: %s", folder, told)
    if not images:
        raise DataError(f"{path} has no images in {root}; check the path, {options.split} and {options.images}")
    sizes, images, unreadable = _sizes(path, images, skip_bad_images)
    labels = [_label_path(image, root, folder) for image in images]
    present = [label if label.is_file() else None for label in labels]
    if not any(present):
        raise DataError(f"{path}: none of {len(images)} images has a label file, e.g. {labels[0]}; put labels there")
    with ThreadPoolExecutor(_THREADS) as pool:
        objects = list(pool.map(lambda label: _parse(label, len(class_names)), present))
    _refuse_pixels(path, present, objects)
    return _build(path, root, images, sizes, objects, class_names, unreadable)


@_quiet
def _refuse_pixels(path: Path | str, files: Sequence[Path | None], objects: "list[_Labels]") -> None:
    """Labels in pixels would all lie outside of their images, and nothing would be learned."""
    boxes = np.concatenate([labels.boxes for labels in objects])
    low, high = boxes[:, :2], boxes[:, 2:]
    in_pixels = (low + high > 2 * _PIXELS_FROM).all(axis=1) & (high - low > _PIXELS_FROM).all(axis=1)
    count = int(in_pixels.sum())
    if not count:
        return
    ends = np.cumsum([len(labels.classes) for labels in objects])
    file = files[int(np.searchsorted(ends, np.argmax(in_pixels), side="right"))]
    what = f"{path}: {count} of {len(boxes)} labels look like pixels, not like shares of the image, e.g. in {file}"
    if count >= len(boxes) / 2:
        raise DataError(f"{what}; divide cx and w by the image's width, cy and h by its height")
    logger.warning("%s; they are left out", what)


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


@_quiet
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
        lines = path.read_text(encoding="utf-8-sig").splitlines()
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


@_quiet
def _corners(centre_size: NDArray[np.float64]) -> NDArray[np.float64]:
    centre, half = centre_size[:, :2], centre_size[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def _label_path(image: Path, root: Path, folder: Path) -> Path:
    """The twin of an image in ``labels/`` where it lies under ``images/``, else beside it, else in ``folder``."""
    candidates = [image.with_suffix(".txt")]
    parts = list(image.parts)
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[-2::-1].index("images")
        candidates.insert(0, Path(*parts[:last], "labels", *parts[last + 1 :]).with_suffix(".txt"))
    if not image.is_relative_to(folder) and image.is_relative_to(root):
        inner = image.relative_to(root).with_suffix(".txt")
        candidates += [folder / "labels" / inner, folder / inner]
    return next((file for file in candidates if file.is_file()), candidates[0])


def _relative(image: Path, root: Path) -> str:
    return image.relative_to(root).as_posix() if image.is_relative_to(root) else str(image.absolute())
