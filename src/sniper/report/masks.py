"""Masks on pictures: a veil of the class's colour with an outline."""

from collections.abc import Sequence

import cv2
import numpy as np
from faster_coco_eval.core import mask as coco_mask
from numpy.typing import NDArray

from sniper.data.run_lengths import RunLengths
from sniper.report.palette import Color, Pixels

VEIL = 0.42  # share of the colour


def draw_masks(pixels: Pixels, masks: RunLengths, boxes_xyxy: NDArray[np.floating], colors: Sequence[Color]) -> None:
    """Lay N masks over (H, W, 3) uint8 RGB in place, in their order; they must be of the picture's size.

    ``boxes_xyxy`` (N, 4) hold the masks: only what is in a box is touched, one mask at a time.
    """
    height, width = pixels.shape[:2]
    low = np.floor(boxes_xyxy[:, :2]).astype(int).clip(0)
    high = np.minimum(np.ceil(boxes_xyxy[:, 2:]).astype(int), [width, height])
    for row, ((left, top), (right, bottom), color) in enumerate(zip(low, high, colors, strict=True)):
        inside = np.ascontiguousarray(coco_mask.decode(masks[row])[top:bottom, left:right])
        if not inside.any():
            continue
        part = pixels[top:bottom, left:right]
        tinted = part * (1 - VEIL) + np.asarray(color, np.float64) * VEIL
        part[:] = np.where(inside[:, :, None] > 0, tinted, part).astype(np.uint8)
        outlines, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(int(left), int(top)))
        cv2.drawContours(pixels, outlines, -1, color, 1, cv2.LINE_AA)
