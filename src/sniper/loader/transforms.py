"""Random flips and quarter turns of a chip."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sniper.loader.config import AugmentConfig


class View(NamedTuple):
    """A chip's valid region and boxes, before it is laid on its padded input."""

    region: NDArray[np.uint8]  # (h, w, 3) RGB
    boxes: NDArray[np.float32]  # (N, 4) xyxy, network px
    size_wh: tuple[int, int]  # the padded input
    points: NDArray[np.float32] | None = None  # (P, 2) xy of outlines, network px


def turn(view: View, config: AugmentConfig, rng: np.random.Generator) -> View:
    """The chip mirrored and turned at random; boxes and points follow exactly (half-open: ``x' = W - x``).

    Only the valid region moves, so it stays in the top-left corner of its padded input. An odd number of quarter turns
    swaps the sides of the padded input too.
    """
    # All is drawn whatever is switched on, so that a chip mirrored with one setting is so with another.
    chances, quarters = rng.random(3), int(rng.integers(1, 4))
    mirror_x = chances[0] < config.horizontal_flip
    mirror_y = chances[1] < config.vertical_flip
    quarters = quarters if chances[2] < config.rotate90 else 0
    if not (mirror_x or mirror_y or quarters):
        return view

    region, size_wh = view.region, view.size_wh
    height, width = region.shape[:2]
    x1, y1, x2, y2 = view.boxes.T
    if mirror_x or mirror_y:
        region = cv2.flip(region, -1 if mirror_x and mirror_y else int(mirror_x))
        x1, x2 = (width - x2, width - x1) if mirror_x else (x1, x2)
        y1, y2 = (height - y2, height - y1) if mirror_y else (y1, y2)
    if quarters:
        region = cv2.rotate(
            region, (cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)[quarters - 1]
        )
    for _ in range(quarters):  # counterclockwise
        x1, y1, x2, y2 = y1, width - x2, y2, width - x1
        width, height = height, width
        size_wh = size_wh[::-1]
    boxes = np.stack([x1, y1, x2, y2], axis=1).astype(np.float32, copy=False)
    points = None
    if view.points is not None:
        points = _turned(view.points, view.region.shape[1], view.region.shape[0], mirror_x, mirror_y, quarters)
    return View(region, boxes, size_wh, points)


def _turned(
    points: NDArray[np.float32], width: int, height: int, mirror_x: bool, mirror_y: bool, quarters: int
) -> NDArray[np.float32]:
    """(P, 2) points of a region that is mirrored, then turned by quarters counterclockwise."""
    x, y = points.T
    x, y = width - x if mirror_x else x, height - y if mirror_y else y
    for _ in range(quarters):
        x, y = y, width - x
        width, height = height, width
    return np.stack([x, y], axis=1).astype(np.float32, copy=False)
