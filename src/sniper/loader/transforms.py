"""Random flips, quarter turns and colour changes of a chip."""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torchvision.transforms.v2 import functional

from sniper.config import Config


class AugmentConfig(Config):
    """How chips are varied in training. Colour changes are torchvision's; each is off at 0."""

    horizontal_flip: float = Field(0.5, ge=0, le=1, description="probability of mirroring left and right")
    vertical_flip: float = Field(0.0, ge=0, le=1, description="probability of mirroring top and bottom")
    rotate90: float = Field(
        0.0, ge=0, le=1, description="probability of a quarter, half or three-quarter turn; for pictures without an up"
    )
    brightness: float = Field(0.0, ge=0, description="brightness is multiplied by 1 -/+ up to this")
    contrast: float = Field(0.0, ge=0, description="contrast is multiplied by 1 -/+ up to this")
    saturation: float = Field(0.0, ge=0, description="saturation is multiplied by 1 -/+ up to this")
    hue: float = Field(0.0, ge=0, le=0.5, description="hue is shifted by up to this, as a share of the colour circle")


class View(NamedTuple):
    """A chip's picture and boxes, before it is laid on its canvas."""

    content: NDArray[np.uint8]  # (h, w, 3) RGB
    boxes: NDArray[np.float32]  # (N, 4) xyxy, network px
    size_wh: tuple[int, int]  # the canvas
    points: NDArray[np.float32] | None = None  # (P, 2) xy of outlines, network px


def turn(view: View, config: AugmentConfig, rng: np.random.Generator) -> View:
    """The chip mirrored and turned at random; boxes and points follow exactly (half-open: ``x' = W - x``).

    Only the picture moves, so it stays in the top-left corner of its canvas. An odd number of quarter turns
    swaps the sides of the canvas too.
    """
    # All is drawn whatever is switched on, so that a chip mirrored with one setting is so with another.
    chances, quarters = rng.random(3), int(rng.integers(1, 4))
    mirror_x = chances[0] < config.horizontal_flip
    mirror_y = chances[1] < config.vertical_flip
    quarters = quarters if chances[2] < config.rotate90 else 0
    if not (mirror_x or mirror_y or quarters):
        return view

    content, size_wh = view.content, view.size_wh
    height, width = content.shape[:2]
    x1, y1, x2, y2 = view.boxes.T
    if mirror_x or mirror_y:
        content = cv2.flip(content, -1 if mirror_x and mirror_y else int(mirror_x))
        x1, x2 = (width - x2, width - x1) if mirror_x else (x1, x2)
        y1, y2 = (height - y2, height - y1) if mirror_y else (y1, y2)
    if quarters:
        content = cv2.rotate(
            content, (cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)[quarters - 1]
        )
    for _ in range(quarters):  # counterclockwise
        x1, y1, x2, y2 = y1, width - x2, y2, width - x1
        width, height = height, width
        size_wh = size_wh[::-1]
    boxes = np.stack([x1, y1, x2, y2], axis=1).astype(np.float32, copy=False)
    points = None
    if view.points is not None:
        points = _turned(view.points, view.content.shape[1], view.content.shape[0], mirror_x, mirror_y, quarters)
    return View(content, boxes, size_wh, points)


def _turned(
    points: NDArray[np.float32], width: int, height: int, mirror_x: bool, mirror_y: bool, quarters: int
) -> NDArray[np.float32]:
    """(P, 2) points of a picture that is mirrored, then turned by quarters counterclockwise."""
    x, y = points.T
    x, y = width - x if mirror_x else x, height - y if mirror_y else y
    for _ in range(quarters):
        x, y = y, width - x
        width, height = height, width
    return np.stack([x, y], axis=1).astype(np.float32, copy=False)


def recolour(
    pixels: NDArray[np.uint8], content_wh: tuple[int, int], config: AugmentConfig, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """The picture of a (3, H, W) canvas with brightness, contrast, saturation and hue changed in random order.

    The padding keeps its colour and does not count into the mean that contrast is relative to.
    """
    strengths = (config.brightness, config.contrast, config.saturation, config.hue)
    if not any(strengths):
        return pixels
    draws, order = rng.uniform(-1, 1, size=4), rng.permutation(4)
    changes = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    )
    canvas = torch.from_numpy(pixels)
    content = canvas[:, : content_wh[1], : content_wh[0]]
    changed = content
    for index in order:
        if strengths[index]:
            shift = float(draws[index] * strengths[index])
            changed = changes[index](changed, shift if index == 3 else max(0.0, 1 + shift))
    content.copy_(changed)
    return pixels
