"""Brightness, contrast, saturation and hue of a chip, changed in place: torchvision's arithmetic, compiled.

The rounding is that of ``torchvision.transforms.v2`` on uint8: every change truncates, grey is floored. Hue is
torchvision's own.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms.v2 import functional

from sniper.compiled import compiled
from sniper.loader.config import AugmentConfig


def recolour(
    pixels: NDArray[np.uint8], valid_wh: tuple[int, int], config: AugmentConfig, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Change brightness, contrast, saturation and hue of a (3, H, W) padded input's valid region, in random order.

    The padding keeps its colour and does not count into the mean that contrast is relative to.
    """
    strengths = (config.brightness, config.contrast, config.saturation, config.hue)
    if not any(strengths):
        return pixels
    draws, order = rng.uniform(-1, 1, size=4), rng.permutation(4)
    width, height = valid_wh
    for index in order.tolist():
        if not strengths[index]:
            continue
        shift = float(draws[index] * strengths[index])
        if index == 3:
            shown = torch.from_numpy(pixels)[:, :height, :width]
            shown.copy_(functional.adjust_hue(shown, shift))
            continue
        factor = np.float32(max(0.0, 1 + shift))
        if index == 0:
            _blend(pixels, height, width, factor, np.float32(0))
        elif index == 1:
            _blend(pixels, height, width, factor, np.float32((1 - factor) * _mean_grey(pixels, height, width)))
        else:
            _saturate(pixels, height, width, factor, np.float32(1 - factor))
    return pixels


@compiled
def _blend(pixels: NDArray[np.uint8], height: int, width: int, factor: np.float32, added: np.float32) -> None:
    for channel in range(3):
        for v in range(height):
            line = pixels[channel, v]
            for u in range(np.uint64(width)):  # type: ignore[call-overload]
                line[u] = _colour(line[u] * factor + added)


@compiled
def _saturate(pixels: NDArray[np.uint8], height: int, width: int, factor: np.float32, of_grey: np.float32) -> None:
    for v in range(height):
        red, green, blue = pixels[0, v], pixels[1, v], pixels[2, v]
        for u in range(np.uint64(width)):  # type: ignore[call-overload]
            added = np.float32(_grey(red[u], green[u], blue[u])) * of_grey
            red[u] = _colour(red[u] * factor + added)
            green[u] = _colour(green[u] * factor + added)
            blue[u] = _colour(blue[u] * factor + added)


@compiled
def _mean_grey(pixels: NDArray[np.uint8], height: int, width: int) -> float:
    total = 0
    for v in range(height):
        red, green, blue = pixels[0, v], pixels[1, v], pixels[2, v]
        row = np.int32(0)
        for u in range(np.uint64(width)):  # type: ignore[call-overload]
            row += _grey(red[u], green[u], blue[u])
        total += int(row)
    return total / (height * width)


@compiled
def _colour(value: np.float32) -> np.uint8:
    """A value brought between 0 and 255 and truncated."""
    value = value if value > np.float32(0) else np.float32(0)
    return np.uint8(np.int32(value if value < np.float32(255) else np.float32(255)))


@compiled
def _grey(red: np.uint8, green: np.uint8, blue: np.uint8) -> np.int32:
    return np.int32(red * np.float32(0.2989) + green * np.float32(0.587) + blue * np.float32(0.114))
