"""Masks on images: a veil of the class's colour with an outline."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from sniper.compiled import compiled, read_only
from sniper.data.run_lengths import RunLengths
from sniper.report.palette import Color, Pixels

VEIL = 0.42  # share of the colour
TRACED_PX = 512  # larger masks are traced more coarsely


def draw_masks(
    pixels: Pixels,
    masks: RunLengths,
    boxes_xyxy: NDArray[np.floating],
    colors: Sequence[Color],
    *,
    scale: float = 1.0,
) -> None:
    """Lay N masks over (H, W, 3) uint8 RGB in place, in their order.

    ``boxes_xyxy`` (N, 4), px of ``pixels``, hold the masks: only what is in a box is touched, one mask at a time.
    ``scale`` is px of ``pixels`` per px of the image that the masks are of; 1 where they have the same size. No mask
    is decoded where it is not drawn.
    """
    height, width = pixels.shape[:2]
    low = np.floor(boxes_xyxy[:, :2]).astype(int).clip(0)
    high = np.minimum(np.ceil(boxes_xyxy[:, 2:]).astype(int), [width, height])
    for row, ((left, top), (right, bottom), color) in enumerate(zip(low, high, colors, strict=True)):
        inside = sampled_mask(masks, row, _middles(left, right, scale), _middles(top, bottom, scale))
        if not inside.any():
            continue
        part = pixels[top:bottom, left:right]
        tinted = part * (1 - VEIL) + np.asarray(color, np.float64) * VEIL
        part[:] = np.where(inside[:, :, None] > 0, tinted, part).astype(np.uint8)
        outlines, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(int(left), int(top)))
        cv2.drawContours(pixels, outlines, -1, color, 1, cv2.LINE_AA)


def trace_masks(masks: RunLengths, boxes_xyxy: NDArray[np.floating]) -> list[list[NDArray[np.float64]]]:
    """Of each of N masks the rings around its parts, (K, 2) px of the image, a quarter of a pixel inside of it.

    Holes are not traced. Masks in boxes (N, 4) with a side of more than ``TRACED_PX`` are sampled every few pixels.
    """
    traced = []
    for row, (x1, y1, x2, y2) in enumerate(np.asarray(boxes_xyxy, np.float64).tolist()):
        step = max(1, math.ceil(max(x2 - x1, y2 - y1) / TRACED_PX))
        left, top = math.floor(max(x1, 0)), math.floor(max(y1, 0))
        columns, rows = np.arange(left, math.ceil(x2), step), np.arange(top, math.ceil(y2), step)
        inside = sampled_mask(masks, row, columns, rows).repeat(2, axis=0).repeat(2, axis=1)
        found, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        traced.append([(one[:, 0] + 0.5) / 2 * step + (left, top) for one in found])
    return traced


def _middles(low: int, high: int, scale: float) -> NDArray[np.int64]:
    """Pixels of the image under the middles of the pixels ``low`` to ``high`` of a drawing of it."""
    return np.floor((np.arange(low, max(high, low)) + 0.5) / scale).astype(np.int64)


def sampled_mask(masks: RunLengths, row: int, columns: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """(rows, columns) 0 or 1: the mask ``row`` of an image at ascending pixel columns and rows of it.

    What is outside of the image is 0. Only the run lengths are gone through, never all pixels of the image.
    """
    height, width = masks.sizes_hw[row].tolist()
    letters = masks.counts.blob[masks.counts.offsets[row] : masks.counts.offsets[row + 1]]
    columns, rows = columns[columns < width], rows[rows < height]
    return _sampled(read_only(letters), height, columns, rows)


@compiled
def _sampled(
    letters: NDArray[np.uint8], height: int, columns: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[np.uint8]:
    out = np.zeros((len(rows), len(columns)), np.uint8)
    before, last, start = np.int64(0), np.int64(0), np.int64(0)  # the run before last, the last, where the next starts
    number, at, first = 0, 0, 0
    while at < len(letters):
        value, shift, going = np.int64(0), 0, True
        while going:  # five bits a letter, lowest first; the sixth says that more follow, the sign is in the fifth
            letter = np.int64(letters[at]) - 48
            value |= (letter & 31) << shift
            shift, at, going = shift + 5, at + 1, letter & 32 != 0
            if not going and letter & 16:
                value |= np.int64(-1) << shift
        if number > 2:
            value += before
        before, last, end = last, value, start + value
        if number % 2:  # runs of zeros and of ones take turns, down the columns
            while first < len(columns) and (columns[first] + 1) * height <= start:
                first += 1
            k = first
            while k < len(columns) and columns[k] * height < end:
                top = columns[k] * height
                for j in range(np.searchsorted(rows, start - top), np.searchsorted(rows, end - top)):
                    out[j, k] = 1
                k += 1
        start, number = end, number + 1
    return out
