"""Background chips: random windows that show a detector what is not an object.

Images without objects would otherwise never be seen, and chips around objects show little of what is far from
them. See ``docs/method.md``, "Chips".
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.chips.grid import HOLD_SLACK, axis_count, axis_origin
from sniper.chips.seeding import Purpose, draw_below, draw_unit, stream_keys
from sniper.compiled import compiled
from sniper.data.table import AnnotationTable
from sniper.validity import ScaledImages


class Windows(NamedTuple):
    """Random windows. K windows."""

    image_index: NDArray[np.int32]  # (K,) never decreasing
    level: NDArray[np.int16]  # (K,)
    origin_xy: NDArray[np.int32]  # (K, 2) network px


@compiled
def _draw_origin(
    key: np.uint64, number: int, size_wh: NDArray[np.int32], chip_px: int, stride: int, origin_xy: NDArray[np.int32]
) -> None:
    """Write a random candidate's origin in a scaled image; takes two draws of the stream, from ``number`` on."""
    for axis in range(2):
        index = draw_below(key, number + axis, axis_count(size_wh[axis], chip_px, stride))
        origin_xy[axis] = axis_origin(index, size_wh[axis], chip_px, stride)


@compiled
def _random_windows(
    images: NDArray[np.int64],
    keys: NDArray[np.uint64],
    repeats: int,
    sizes: NDArray[np.int32],
    chip_px: int,
    stride: int,
) -> tuple[NDArray[np.int32], NDArray[np.int16], NDArray[np.int32]]:
    count = len(images) * repeats
    image_index, level, origin = np.empty(count, np.int32), np.empty(count, np.int16), np.empty((count, 2), np.int32)
    for k in range(count):
        image, key, number = images[k // repeats], keys[k // repeats], 3 * (k % repeats)
        image_index[k] = image
        level[k] = draw_below(key, number, sizes.shape[1])
        _draw_origin(key, number + 1, sizes[image, level[k]], chip_px, stride, origin[k])
    return image_index, level, origin


def of_empty_images(
    table: AnnotationTable, scaled_images: ScaledImages, stride: int, per_image: int, *, seed: int, epoch: int
) -> Windows:
    """``per_image`` random windows of every image without objects: a random level, a random candidate of it.

    An image with nothing but ignored objects counts as one without objects.
    """
    objects = np.concatenate(([0], np.cumsum(~table.ignored)))[table.offsets]
    images = np.flatnonzero(np.diff(objects) == 0)
    keys = stream_keys(seed, epoch, Purpose.EMPTY_IMAGE, table.image_ids[images])
    return Windows(*_random_windows(images, keys, per_image, scaled_images.sizes_wh, scaled_images.chip_px, stride))


def anywhere(count: int, scaled_images: ScaledImages, stride: int, *, seed: int, epoch: int) -> Windows:
    """``count`` random windows: each a random candidate of a random image and level.

    A level is drawn as often as detection runs on windows of it: by its area, at least that of a chip.
    """
    keys = stream_keys(seed, epoch, Purpose.EXTRA_BACKGROUND, np.arange(count))
    ends = np.maximum(scaled_images.sizes_wh.astype(np.float64), scaled_images.chip_px).prod(axis=-1).ravel().cumsum()
    return Windows(*_windows_by_area(keys, ends, scaled_images.sizes_wh, scaled_images.chip_px, stride))


@compiled
def _windows_by_area(
    keys: NDArray[np.uint64], ends: NDArray[np.float64], sizes: NDArray[np.int32], chip_px: int, stride: int
) -> tuple[NDArray[np.int32], NDArray[np.int16], NDArray[np.int32]]:
    levels = sizes.shape[1]
    places = np.empty(len(keys), np.int64)  # image and level as one number
    for k in range(len(keys)):
        places[k] = np.searchsorted(ends, draw_unit(keys[k], 0) * ends[-1], side="left")
    order = np.argsort(places, kind="mergesort")
    image_index, level = np.empty(len(keys), np.int32), np.empty(len(keys), np.int16)
    origin = np.empty((len(keys), 2), np.int32)
    for k in range(len(keys)):
        place, key = places[order[k]], keys[order[k]]
        image_index[k], level[k] = place // levels, place % levels
        _draw_origin(key, 1, sizes[image_index[k], level[k]], chip_px, stride, origin[k])
    return image_index, level, origin


def objects_inside(
    table: AnnotationTable, scaled_images: ScaledImages, windows: Windows, valid: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The objects that are valid at a window's level and lie fully inside it.

    Args:
        valid: (N, L), see ``positive.valid_objects``.

    Returns:
        (K,) how many each window holds, and their rows, grouped by window.
    """
    first = table.offsets[windows.image_index]
    boxes = table.offsets[windows.image_index + 1] - first
    window = np.repeat(np.arange(len(boxes)), boxes)
    row = np.arange(len(window)) + np.repeat(first - (np.cumsum(boxes) - boxes), boxes)
    level = windows.level[window]
    scale = scaled_images.scales[windows.image_index[window], level][:, None]
    low = table.boxes_xyxy[row, :2].astype(np.float64) * scale - windows.origin_xy[window]
    high = table.boxes_xyxy[row, 2:].astype(np.float64) * scale - windows.origin_xy[window]
    held = ((low >= -HOLD_SLACK) & (high <= scaled_images.chip_px + HOLD_SLACK)).all(axis=1) & valid[row, level]
    return np.bincount(window[held], minlength=len(boxes)).astype(np.int32), row[held]
