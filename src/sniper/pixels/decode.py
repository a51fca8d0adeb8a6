"""Image files as RGB pixels: every common format and colour form, whole or at a reduced scale, or a DataError.

See ``docs/method.md``, "Reading images".
"""

import logging
import math
import os
import struct
from io import BytesIO
from pathlib import Path
from typing import IO, Literal, NamedTuple, NoReturn

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageFile

from sniper.errors import DataError
from sniper.pixels.claims import refuse_claim
from sniper.pixels.orientation import oriented, oriented_size
from sniper.pixels.sample_map import SampleMap

log = logging.getLogger("sniper")

Pixels = NDArray[np.uint8]
Reduction = Literal[1, 2, 4, 8]

_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
_ORIENTATION = 0x0112
# What Pillow raises: of a page without dimensions, for instance, a TypeError.
_DAMAGED = (SyntaxError, IndexError, KeyError, TypeError, EOFError, ValueError, OSError, struct.error)
_told_of_frames: set[str | None] = set()
# Complaints of the JPEG decoder about bytes that no pixel depends on.
_HARMLESS = ("extraneous bytes", "Invalid SOS parameters", "JFIF", "Adobe", "subsampling")


def read_image(
    path: Path | str,
    *,
    reduction: Reduction = 1,
    size_wh: tuple[int, int] | None = None,
    image_id: int | None = None,
    sample_map: SampleMap = SampleMap(),  # noqa: B008  immutable
) -> Pixels:
    """Decode an image file to (H, W, 3) uint8 RGB.

    With ``reduction`` r the result is (ceil(H / r), ceil(W / r), 3), and its pixel i shows original pixels
    ``[i * r, (i + 1) * r)``: JPEGs are decoded at that DCT scale, other formats are averaged over the blocks.
    The EXIF orientation is applied. With ``size_wh``, the annotated width and height, it is applied only where the
    result then has that size; a file that has the size as it is stored stays as stored.

    Grey becomes three equal channels; alpha is dropped and the stored colours stay; palettes are looked up; CMYK is
    converted, inverted where an Adobe marker says so; 16-bit samples become 8 bits as ``sample_map`` says, which is
    their high byte (``value // 256``) if it says nothing.

    Raises:
        DataError: the file is missing, empty, cut off, no image, of another size than annotated, or has samples of
            another kind (floating point, 32-bit). The message names the file and ``image_id``.
    """
    place = _name(path, image_id)
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise _unreadable(place, error) from error
    jpeg = content[:2] == b"\xff\xd8"
    raw_wh, orientation = _jpeg_header(content, place) if jpeg else _header(BytesIO(content), content[:16], place)
    if size_wh is not None:
        orientation = _orientation_for(tuple(size_wh), raw_wh, orientation, place)
    if reduction > 1 and not _blocks_survive(orientation, raw_wh, reduction):
        return reduced(oriented(_decode(content, jpeg, 1, place, sample_map), orientation), reduction)
    return oriented(_decode(content, jpeg, reduction, place, sample_map), orientation)


class Header(NamedTuple):
    """What an image file says of itself before it is decoded."""

    form: str  # Pillow's name of the format: JPEG, PNG, TIFF, ...
    size_wh: tuple[int, int]  # upright, px
    orientation: int  # EXIF 1..8 of the pixels as stored


def image_header(path: Path | str, *, size_wh: tuple[int, int] | None = None, image_id: int | None = None) -> Header:
    """Format, size and orientation that ``read_image`` would apply with the same arguments.

    Raises:
        DataError: the file is missing, empty, no image, or of another size than annotated.
    """
    place = _name(path, image_id)
    try:
        with Path(path).open("rb") as file:
            start = file.read(16)
            file.seek(0)
            image = _open(file, start, place)
            form, raw_wh, orientation = image.format or "", image.size, _orientation(image)
            tiff = image.tag_v2.get(_ORIENTATION, 1) if form == "TIFF" else 1  # type: ignore[attr-defined]
    except (OSError, ValueError) as error:
        raise _unreadable(place, error) from error
    if size_wh is not None:
        orientation = _orientation_for(tuple(size_wh), raw_wh, orientation, place)
    if form == "TIFF":  # Pillow turns these itself, and its size is the upright one
        return Header(form, raw_wh, tiff if tiff in range(1, 9) else 1)
    return Header(form, oriented_size(raw_wh, orientation), orientation)


def _name(path: Path | str, image_id: int | None) -> str:
    return str(path) if image_id is None else f"{path} (image id {image_id})"


def _unreadable(place: str, error: OSError | ValueError) -> DataError:
    """``ValueError``: there is a NUL in the name, which no file can have."""
    reason = error.strerror if isinstance(error, OSError) else error
    return DataError(f"cannot read {place}: {reason}; restore the file or remove the image")


def _refuse(place: str, what: str) -> NoReturn:
    raise DataError(f"{place} {what}; replace the file or remove the image")


def _open(file: IO[bytes], start: bytes, place: str) -> ImageFile.ImageFile:
    """Pillow's lazy image. ``Image.open`` refuses more than 179 megapixels, which satellite scenes have."""
    if not start:
        _refuse(place, "is empty")
    Image.init()
    file_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    for factory, accept in (Image.OPEN[name] for name in _FORMATS if name in Image.OPEN):
        try:
            if accept is None or accept(start) is True:
                image = factory(file, "")
                refuse_claim(place, image.size, file_bytes, image.format)
                return image
        except (*_DAMAGED, Image.DecompressionBombError):
            file.seek(0)
    _refuse(place, "is not an image, or of an unknown format, or cut off in its header")


def _header(file: IO[bytes], start: bytes, place: str) -> tuple[tuple[int, int], int]:
    """Stored width and height, and the EXIF orientation (1 where Pillow applies it itself)."""
    image = _open(file, start, place)
    return image.size, _orientation(image)


def _orientation(image: ImageFile.ImageFile) -> int:
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1  # asking a PNG for EXIF that is not in its header would decode it
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except (SyntaxError, ValueError, TypeError, OSError):  # damaged metadata do not make the pixels wrong
        orientation = 1
    return orientation if orientation in range(1, 9) else 1


def _jpeg_header(content: bytes, place: str) -> tuple[tuple[int, int], int]:
    if b"Exif\0\0" not in content:
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(content)
            return (width, height), 1
        except ValueError:
            pass  # let Pillow say whether it is an image at all
    return _header(BytesIO(content), content[:16], place)


def _orientation_for(size_wh: tuple[int, ...], raw_wh: tuple[int, int], orientation: int, place: str) -> int:
    oriented = raw_wh[::-1] if orientation >= 5 else raw_wh
    if oriented == size_wh:
        return orientation
    if raw_wh == size_wh:
        return 1
    found = f"{oriented[0]}x{oriented[1]}" + (f" ({raw_wh[0]}x{raw_wh[1]} as stored)" if oriented != raw_wh else "")
    raise DataError(
        f"{place} is {found} px, but annotated as {size_wh[0]}x{size_wh[1]} px; "
        "use the image that was annotated, or correct the size in the annotations"
    )


def _decode(content: bytes, jpeg: bool, reduction: int, place: str, sample_map: SampleMap) -> Pixels:
    """Pixels as stored, without orientation."""
    if jpeg:
        pixels = _decode_jpeg(content, reduction, place)
        if pixels is not None:
            return pixels
    image = _open(BytesIO(content), content[:16], place)
    try:
        if getattr(image, "is_animated", False):
            _tell_of_frames(image, place)
        image.load()
    except (*_DAMAGED, Image.DecompressionBombError) as error:
        _refuse(place, f"cannot be decoded ({str(error).rstrip('.') or type(error).__name__})")
    return reduced(_to_rgb(image, content, place, sample_map), reduction)


def _tell_of_frames(image: ImageFile.ImageFile, place: str) -> None:
    """One warning for each form in each process: a dataset may have thousands of such files."""
    if image.format not in _told_of_frames:
        _told_of_frames.add(image.format)
        frames: int = image.n_frames  # type: ignore[attr-defined]
        log.warning(
            "%s has %d frames or pages, and the first is read; the same goes for other %s files. Make a video of them, "
            "or a file of each", place, frames, image.format,
        )  # fmt: skip


def _decode_jpeg(content: bytes, reduction: int, place: str) -> Pixels | None:
    """None where Pillow must do it: CMYK, and unusual subsampling."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError:
        return None
    if colours in ("CMYK", "YCCK"):
        return None
    options = {"min_height": math.ceil(height / reduction), "min_width": math.ceil(width / reduction)}
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(content, "RGB", **options)
    except ValueError as error:
        if not any(text in str(error) for text in _HARMLESS):
            _refuse(place, f"is damaged or cut off ({error})")
        pixels = simplejpeg.decode_jpeg(content, "RGB", **options, strict=False)
    return pixels


def deep_samples(content: bytes) -> NDArray[np.uint16] | None:
    """(H, W) or (H, W, 3) 16-bit samples as stored, red first; None: others, or OpenCV cannot read them."""
    try:
        values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if values is None or values.dtype != np.uint16:
        return None
    return values if values.ndim == 2 else np.ascontiguousarray(values[:, :, 2::-1])


def _to_rgb(image: ImageFile.ImageFile, content: bytes, place: str, sample_map: SampleMap) -> Pixels:
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
            _refuse(place, "has 32-bit samples, not 8 or 16 bit")
        return np.repeat(sample_map.to_8_bit(values)[:, :, None], 3, axis=2)
    # Pillow keeps the high byte of deep colours.
    if not sample_map.is_plain and image.format in ("PNG", "TIFF") and (deep := deep_samples(content)) is not None:
        pixels = sample_map.to_8_bit(deep)
        return pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)
    if image.mode == "F":
        _refuse(place, "has floating-point samples, not 8 or 16 bit")
    if image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
        # Pillow inverts every CMYK JPEG as Adobe's are; without Adobe's marker the inks are stored as they are.
        image_cmyk = Image.fromarray(255 - np.asarray(image), "CMYK")
        return np.asarray(image_cmyk.convert("RGB"))
    return np.asarray(image.convert("RGB"))


def _blocks_survive(orientation: int, raw_wh: tuple[int, int], reduction: int) -> bool:
    """Whether turning after reducing is the same: a mirrored side must be a whole number of blocks."""
    width, height = raw_wh
    mirrors_x, mirrors_y = orientation in (2, 3, 7, 8), orientation in (3, 4, 6, 7)
    return not (mirrors_x and width % reduction) and not (mirrors_y and height % reduction)


def reduced(pixels: Pixels, reduction: int) -> Pixels:
    """Means over blocks; those at the right and lower edge are over the pixels there are."""
    return pixels if reduction == 1 else np.asarray(Image.fromarray(pixels).reduce(reduction))
