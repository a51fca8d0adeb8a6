"""A quick look at an image file: its size; its header, and its end, which is missing where it was not copied whole."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import simplejpeg

from sniper.errors import DataError
from sniper.pixels.claims import refuse_claim
from sniper.pixels.decode import image_header
from sniper.pixels.open import image_size, open_pixels
from sniper.pixels.windowed import close

_HEAD_BYTES = 16_384
_TAIL_BYTES = 4_096


class FileFacts(NamedTuple):
    """What an image file is like, without decoding it."""

    error: str | None  # the sentence with which it cannot be used; None: nothing speaks against it
    identity: tuple[int, int] | None  # device and inode: links to one file have the same; None: it cannot be opened
    mark: bytes  # a digest of its length, beginning and end: files of the same bytes have the same


def quick_look(path: Path, *, size_wh: tuple[int, int], whole_pixels: float, image_id: int | None = None) -> FileFacts:
    """Check the header of an image file, also against the annotated size, and that it ends as its format does.

    A file that fails is decoded, as ``open_pixels`` does with ``whole_pixels``, and what this says is the answer: there
    are no false alarms. Damage in the middle of a file is not seen.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            head = file.read(_HEAD_BYTES)
            file.seek(max(0, status.st_size - _TAIL_BYTES))
            tail = file.read(_TAIL_BYTES)
    except (OSError, ValueError) as unopened:
        return FileFacts(_decoding_error(path, size_wh, whole_pixels, image_id) or str(unopened), None, b"")
    mark = hashlib.blake2b(head[:_TAIL_BYTES] + tail + str(status.st_size).encode(), digest_size=16).digest()
    sound = _is_whole(path, head, tail, status.st_size) and _has_size(path, head, size_wh, image_id)
    error = None if sound else _decoding_error(path, size_wh, whole_pixels, image_id)
    return FileFacts(error, (status.st_dev, status.st_ino), mark)


def quick_size(path: Path | str) -> tuple[int, int]:
    """Width and height after EXIF orientation, as ``open.image_size`` has them, ten times faster for most JPEG files.

    Raises:
        DataError: the file is missing, empty or no image.
    """
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  millions of files: a Path takes longer than the rest
            head, file_bytes = file.read(_HEAD_BYTES), os.fstat(file.fileno()).st_size
    except (OSError, ValueError):
        return image_size(path)
    size = _jpeg_size(head)
    if size is None:
        return image_size(path)
    refuse_claim(str(path), size, file_bytes, "JPEG")
    return size


def _jpeg_size(head: bytes) -> tuple[int, int] | None:
    """The size of a JPEG file that is not turned; None: of another file, or where it does not stand in the head."""
    if head[:2] != b"\xff\xd8" or b"Exif\0\0" in head:
        return None
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(head)
    except ValueError:
        return None
    return width, height


def _decoding_error(path: Path, size_wh: tuple[int, int], whole_pixels: float, image_id: int | None) -> str | None:
    try:
        close(open_pixels(path, whole_pixels=whole_pixels, size_wh=size_wh, image_id=image_id))
    except DataError as error:
        return str(error)
    return None


def _has_size(path: Path, head: bytes, size_wh: tuple[int, int], image_id: int | None) -> bool:
    """Whether the header can be read and fits the annotated size."""
    if (size := _jpeg_size(head)) is not None:
        return size == size_wh
    try:
        image_header(path, size_wh=size_wh, image_id=image_id)
    except DataError:
        return False
    return True


def _is_whole(path: Path, head: bytes, tail: bytes, size: int) -> bool:
    """Whether the file ends as files of its format do; True for formats that do not tell."""
    if head[:2] == b"\xff\xd8":  # in the data of the image neither mark can occur, in a thumbnail before it both do
        return tail.rfind(b"\xff\xd9") > tail.rfind(b"\xff\xda")
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return b"IEND" in tail
    if head[:4] == b"RIFF":
        return int.from_bytes(head[4:8], "little") + 8 <= size
    if head[4:8] == b"jP  " or head[:4] == b"\xff\x4f\xff\x51":  # JPEG 2000
        return b"\xff\xd9" in tail
    if head[:3] == b"GIF":
        return tail.rstrip(b"\0").endswith(b";")
    if head[:2] == b"BM":
        return int.from_bytes(head[2:6], "little") <= size
    if head[:2] in (b"II", b"MM"):
        return _tiff_is_whole(path, size)
    return len(head) > 0


def _tiff_is_whole(path: Path, size: int) -> bool:
    """Whether all strips or tiles of the first image lie inside the file."""
    from PIL import TiffImagePlugin

    try:
        with path.open("rb") as file:
            tags = TiffImagePlugin.TiffImageFile(file).tag_v2
            ends = [
                offset + length
                for offsets, lengths in ((273, 279), (324, 325))
                for offset, length in zip(tags.get(offsets, ()), tags.get(lengths, ()), strict=False)
            ]
    except Exception:  # Pillow fails in many ways at files that others can read
        return False
    return bool(ends) and max(ends) <= size
