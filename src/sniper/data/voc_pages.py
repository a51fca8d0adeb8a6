"""Annotation files as XML, in the form that Pascal VOC began and ImageNet uses too."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from sniper.data.flags import ObjectFlag
from sniper.errors import DataError
from sniper.pixels.open import image_size

_MARKS = {
    "difficult": ObjectFlag.DIFFICULT,
    "truncated": ObjectFlag.TRUNCATED,
    "occluded": ObjectFlag.OCCLUDED,
}
_MAX_SIDE = 2**31 - 1  # px
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, slots=True)
class VocPage:
    """One annotation file."""

    file: Path  # the image
    size_wh: tuple[int, int]
    names: list[str]
    corners: list[tuple[float, ...]]  # xmin, ymin, xmax, ymax as written, both ends inclusive
    flags: list[int]  # bits of ObjectFlag


def _parse(file: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(file).getroot()
    except ElementTree.ParseError as error:
        raise DataError(f"{file}, line {error.position[0]}: damaged XML ({error}); write the file again") from error
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}; restore the file") from error
    except (LookupError, ValueError) as error:  # of an encoding
        raise DataError(f"cannot read {file}: {error}; write the file again as UTF-8") from error


def class_names(file: Path) -> list[str]:
    """What the objects of a file are called; empty where one has no name.

    Raises:
        DataError: the file is damaged.
    """
    return [(item.findtext("name") or "").strip() for item in _parse(file).iter("object")]


def read_page(file: Path, find_image: Callable[[Path, str], Path]) -> VocPage:
    """Read an annotation file; ``find_image`` tells its image from it and the name that is written there.

    Raises:
        DataError: the file is damaged or incomplete, or the size of the image is to be read from it and cannot be.
    """
    page = _parse(file)
    # Some programs write a path of the machine on which the boxes were drawn.
    written = re.split(r"[/\\]", (page.findtext("filename") or "").strip())[-1]
    image = find_image(file, written)
    names, corners, flags = [], [], []
    for number, item in enumerate(page.iter("object"), start=1):
        label = (item.findtext("name") or "").strip()
        if not label:
            raise DataError(f"{file}: object {number} has no name; add it or remove the object")
        names.append(label)
        corners.append(_corners(file, number, item))
        flags.append(sum(int(flag) for word, flag in _MARKS.items() if _is_marked(item, word)))
    return VocPage(image, _size(file, page, image), names, corners, flags)


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
    except (ValueError, OverflowError) as error:
        raise DataError(f"{file}: the size is not in numbers; write width and height in pixels") from error
    if max(width, height) > _MAX_SIDE:
        raise DataError(f"{file}: the size is {width:.6g}x{height:.6g} px; write width and height in pixels")
    return (width, height) if width > 0 and height > 0 else image_size(image)
