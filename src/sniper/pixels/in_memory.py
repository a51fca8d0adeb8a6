"""Images that are in memory already, whatever library holds them, as RGB pixels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from sniper.errors import DataError


def rgb_of(image: Any) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of an image in memory.

    Args:
        image: a PIL image (its EXIF orientation is applied), an array (H, W, 3), (H, W, 4) or (H, W), uint8, or a
            tensor (3, H, W) or (1, H, W), uint8 or floating point in [0, 1]. Alpha is dropped, grey is expanded.

    Raises:
        DataError: another shape or type of number; the sentence says which.
    """
    if isinstance(image, Image.Image):
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    pixels = _of_tensor(image) if hasattr(image, "detach") else np.asarray(image)
    if pixels.dtype != np.uint8:
        raise DataError(f"expected an image of uint8, got {pixels.dtype}; scale its values to 0..255 and convert it")
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or 0 in pixels.shape:
        raise DataError(f"expected an image (H, W, 3), got an array {pixels.shape}; give images one by one, or a list")
    return np.ascontiguousarray(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[:, :, :3])


def _of_tensor(image: Any) -> NDArray:
    """(H, W, C) of a tensor, uint8 where it was floating point; without importing its library."""
    values = image.detach().cpu()
    if values.ndim != 3 or values.shape[0] not in (1, 3):
        raise DataError(f"expected a tensor (3, H, W), got {tuple(values.shape)}; give images one by one, or a list")
    if not values.dtype.is_floating_point:
        return np.moveaxis(values.numpy(), 0, -1)
    pixels: NDArray[np.float32] = np.moveaxis(values.float().numpy(), 0, -1)
    low, high = pixels.min(initial=0), pixels.max(initial=0)
    if not (low >= 0 and high <= 1):
        raise DataError(
            f"expected a floating-point tensor with values in [0, 1], got {low:g} to {high:g}; undo its normalisation, "
            "or give uint8"
        )
    return np.round(pixels * 255).astype(np.uint8)
