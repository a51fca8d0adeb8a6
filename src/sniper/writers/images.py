"""Pictures as image files."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sniper.errors import StorageError
from sniper.files import write_bytes

# Full colour resolution: halved, thin coloured lines would bleed.
_FULL_COLOUR = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_OPTIMIZE, 1, *_FULL_COLOUR]


def encode(pixels: NDArray[np.uint8], suffix: str = ".jpg") -> bytes:
    """The bytes of an image file.

    Raises:
        StorageError: OpenCV cannot write this kind of file.
    """
    try:
        done, content = cv2.imencode(suffix, pixels[..., ::-1], _JPEG if suffix.lower() in (".jpg", ".jpeg") else [])
    except cv2.error:
        done, content = False, np.empty(0, np.uint8)
    if not done:
        raise StorageError(f"cannot write pictures as {suffix}; use .jpg or .png")
    return bytes(content.tobytes())


def save_picture(path: Path | str, pixels: NDArray[np.uint8]) -> None:
    """Write pixels as the kind of file the name says, completely or not at all.

    Raises:
        StorageError: the kind is unknown, the folder cannot be written or the disk is full.
    """
    write_bytes(path, encode(pixels, Path(path).suffix))
