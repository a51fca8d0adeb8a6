"""The windows of one image at one level, and which detections a window border has cut.

A scaled image that is not larger than a window is one window; a larger one is covered by overlapping windows, so that
memory is bounded by the window and not by the image.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.pyramid import Pyramid
from sniper.validity import scaled_sizes

INPUT_STEP = 128  # padded inputs are rounded up to this, so that images of similar shape share a batch
CHIP_STEP = 64  # focus chips grow to this instead of being padded: finer, for chips are smaller


class Window(NamedTuple):
    """A rectangle of the scaled image, network px."""

    image: int  # position of the image in its group
    level: int
    scale: float  # network px per original px
    origin_xy: tuple[int, int]
    valid_wh: tuple[int, int]
    step: int = INPUT_STEP

    @property
    def padded_wh(self) -> tuple[int, int]:
        """Padded input that holds the valid region.

        It depends on this window alone, so a batch gives what one image gives.
        """
        width, height = self.valid_wh
        return self.step * math.ceil(width / self.step), self.step * math.ceil(height / self.step)

    @property
    def padded_pixels(self) -> int:
        """What the network has to compute."""
        width, height = self.padded_wh
        return width * height


class WindowTask(NamedTuple):
    """A window and what its borders may cut."""

    window: Window
    overlap_px: int  # what neighbouring windows have in common, network px
    chip_xyxy: tuple[float, float, float, float] | None = (
        None  # the focus chip it lies in, original px; None: the image
    )
    margin_px: float = 0.0  # a box this close to a side of the chip is taken for cut, original px
    rivals_xyxy: tuple[tuple[float, float, float, float], ...] = ()  # chips of the level that overlap it, original px


def with_rivals(tasks: list[WindowTask]) -> list[WindowTask]:
    """The windows at one level of an image, each with the other chips that overlap its own."""
    chips = list(dict.fromkeys(task.chip_xyxy for task in tasks if task.chip_xyxy is not None))
    if len(chips) < 2:
        return tasks
    boxes = np.asarray(chips)
    shared = np.minimum(boxes[:, None, 2:], boxes[:, 2:]) - np.maximum(boxes[:, None, :2], boxes[:, :2])
    overlap = (shared > 0).all(axis=2) & ~np.eye(len(boxes), dtype=bool)
    rivals = {chip: tuple(chips[k] for k in np.flatnonzero(overlap[row])) for row, chip in enumerate(chips)}
    return [task if task.chip_xyxy is None else task._replace(rivals_xyxy=rivals[task.chip_xyxy]) for task in tasks]


def scaled_size(size_wh: tuple[int, int], scale: float) -> tuple[int, int]:
    """Size of the scaled image in whole network px."""
    width, height = scaled_sizes(np.asarray([size_wh]), np.asarray([scale]))[0].tolist()
    return width, height


def region_around(
    box_xyxy: tuple[float, float, float, float], size_wh: tuple[int, int], scale: float, side_px: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Origin and valid size, network px, of the region of at most ``side_px`` a side around the middle of a box.

    It is moved into the image where it would reach over its border. Box and ``size_wh`` are in original px.
    """
    x1, y1, x2, y2 = box_xyxy
    whole = scaled_size(size_wh, scale)
    valid = min(whole[0], side_px), min(whole[1], side_px)
    middle = (x1 + x2) / 2 * scale, (y1 + y2) / 2 * scale
    places = zip(middle, valid, whole, strict=True)
    x0, y0 = (int(min(max(at - part / 2, 0), full - part)) for at, part, full in places)
    return (x0, y0), valid


def starts(length: int, window_px: int, overlap_px: int) -> list[int]:
    """Evenly spread window origins along an axis; neighbours share at least ``overlap_px``."""
    if length <= window_px:
        return [0]
    count = math.ceil((length - overlap_px) / (window_px - overlap_px))
    return [round(k * (length - window_px) / (count - 1)) for k in range(count)]


def windows_of(
    image: int, size_wh: tuple[int, int], level: int, scale: float, *, window_px: int, overlap_px: int
) -> list[Window]:
    """The windows of one image at one level, row by row."""
    width, height = scaled_size(size_wh, scale)
    return [
        Window(image, level, scale, (x, y), (min(window_px, width), min(window_px, height)))
        for y in starts(height, window_px, overlap_px)
        for x in starts(width, window_px, overlap_px)
    ]


def overlap_for(largest_px: float, scale: float, *, window_px: int, overlap: float) -> int:
    """What neighbouring windows share, network px: ``overlap`` of a window, or the largest object of the level.

    ``largest_px`` is in original px; half a window bounds the cost, and an open range asks for nothing.
    """
    wanted = min(largest_px * scale, window_px / 2) if math.isfinite(largest_px) else 0
    return int(max(overlap * window_px, wanted))


def pyramid_pixels(
    sizes_wh: NDArray[np.integer], pyramid: Pyramid, *, window_px: int, overlap: float
) -> NDArray[np.int64]:
    """(I,) padded pixels of the windows of images of (I, 2) original size at all levels: what ``windows_of`` gives."""
    scales, pixels = pyramid.scales(sizes_wh), np.zeros(len(sizes_wh), np.int64)
    for column, (_, largest_px) in zip(scales.T, pyramid.infer_ranges_px().tolist(), strict=True):
        of_scale, image = np.unique(column, return_inverse=True)
        overlaps = [overlap_for(largest_px, s, window_px=window_px, overlap=overlap) for s in of_scale.tolist()]
        shared = np.asarray(overlaps, np.int64)[image, None]
        sizes = scaled_sizes(sizes_wh, column).astype(np.int64)
        many = -((shared - sizes) // (window_px - shared))
        sides = -INPUT_STEP * (-np.minimum(sizes, window_px) // INPUT_STEP)
        pixels += (np.where(sizes <= window_px, 1, many) * sides).prod(axis=1)
    return pixels


def windows_of_chip(
    image: int,
    size_wh: tuple[int, int],
    level: int,
    scale: float,
    box_xyxy: tuple[int, int, int, int],
    *,
    window_px: int,
    overlap_px: int,
    margin_px: float,
) -> list[WindowTask]:
    """The windows of one focus chip ``box_xyxy`` (network px), row by row.

    The chip grows around its middle, on the image, to the padded input it costs anyway. One that takes all of the
    image has exactly the windows of the image.
    """
    scaled_wh = scaled_size(size_wh, scale)
    sides = []
    for axis, length in enumerate(scaled_wh):
        low, high = box_xyxy[axis], box_xyxy[axis + 2]
        size = min(CHIP_STEP * math.ceil((high - low) / CHIP_STEP), length)
        sides.append((min(max(low - (size - (high - low)) // 2, 0), length - size), size))
    (x, width), (y, height) = sides
    if (width, height) == scaled_wh:
        whole = windows_of(image, size_wh, level, scale, window_px=window_px, overlap_px=overlap_px)
        return [WindowTask(window, overlap_px) for window in whole]
    chip = x / scale, y / scale, (x + width) / scale, (y + height) / scale
    content = min(window_px, width), min(window_px, height)
    return [
        WindowTask(Window(image, level, scale, (x + dx, y + dy), content, CHIP_STEP), overlap_px, chip, margin_px)
        for dy in starts(height, window_px, overlap_px)
        for dx in starts(width, window_px, overlap_px)
    ]


def cut_by_border(
    boxes_xyxy: NDArray[np.floating],
    window: Window,
    size_wh: tuple[int, int],
    *,
    overlap_px: float,
    touch_px: float = 2.0,
) -> NDArray[np.bool_]:
    """(N,) whether a box touches a window side that is not an image side, and a neighbour surely sees it whole.

    Args:
        boxes_xyxy: (N, 4) boxes in the window, network px.
        window: the window they were found in.
        size_wh: size of the image, original px.
        overlap_px: what neighbouring windows share, network px; a larger box may be cut in every window and stays.
        touch_px: how close to the side counts as touching, network px.
    """
    scaled_wh = scaled_size(size_wh, window.scale)
    cut = np.zeros(len(boxes_xyxy), dtype=bool)
    for axis in (0, 1):
        whole_elsewhere = boxes_xyxy[:, axis + 2] - boxes_xyxy[:, axis] < overlap_px - 2 * touch_px
        if window.origin_xy[axis] > 0:
            cut |= whole_elsewhere & (boxes_xyxy[:, axis] < touch_px)
        if window.origin_xy[axis] + window.valid_wh[axis] < scaled_wh[axis]:
            cut |= whole_elsewhere & (boxes_xyxy[:, axis + 2] > window.valid_wh[axis] - touch_px)
    return cut
