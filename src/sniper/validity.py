"""Which objects are valid at which level: the one rule of mining, derived levels, tiles, reports and inference.

The size of an object is the square root of its box's area in original px. It is in a level's range if
``low <= size < high``, in training as at inference. In training an object is *valid* at a level if it is in range,
neither side is tiny, and it fits: along each axis its scaled side leaves the largest stride of the chip free (so that
some chip holds it wherever chips lie), or the whole scaled image is no longer than a chip.
``docs/method.md``, "Levels and valid ranges".
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sniper.compiled import compiled, read_only
from sniper.pyramid import Pyramid

CEIL_SLACK = 1e-6  # 640 px at 0.8 are 512 px, although 640 * 0.8 may be 512.0000000001


def scaled_sizes(sizes_wh: NDArray[np.integer], scale: NDArray[np.floating]) -> NDArray[np.int32]:
    """Sizes of scaled images in network px: ``ceil(size * scale)``, at least 1.

    Args:
        sizes_wh: (I, 2) original px.
        scale: (I,) or (I, L) network px per original px.

    Returns:
        (I, 2) or (I, L, 2).
    """
    level_scale = np.asarray(scale, dtype=np.float64)[..., None]
    sizes = np.asarray(sizes_wh, dtype=np.float64).reshape((len(level_scale),) + (1,) * (level_scale.ndim - 2) + (2,))
    return np.maximum(np.ceil(sizes * level_scale - CEIL_SLACK), 1).astype(np.int32)


@dataclass(frozen=True, slots=True)
class ScaledImages:
    """Every image of a table at every level of a pyramid. I images, L levels."""

    scales: NDArray[np.float64]  # (I, L) network px per original px
    sizes_wh: NDArray[np.int32]  # (I, L, 2) scaled size, network px
    ranges_px: NDArray[np.float64]  # (L, 2) valid ranges in training, sqrt(area) in original px, may be inf
    chip_px: int

    @classmethod
    def of(cls, sizes_wh: NDArray[np.integer], pyramid: Pyramid) -> "ScaledImages":
        """The scaled images of images of (I, 2) original size."""
        scales = pyramid.scales(sizes_wh)
        return cls(scales, scaled_sizes(sizes_wh, scales), pyramid.train_ranges_px(), pyramid.chip_px)


@compiled
def in_range(area: float, low: float, high: float) -> bool:
    """Whether ``low <= sqrt(area) < high``."""
    return low * low <= area < high * high


@compiled
def is_valid(w: float, h: float, low: float, high: float, min_side: float, limit_w: float, limit_h: float) -> bool:
    """Whether an object of ``w x h`` px is in range, has no tiny side, and fits (limits in px)."""
    return in_range(w * h, low, high) and min(w, h) >= min_side and w <= limit_w and h <= limit_h


@compiled
def fit_limit(extent: int, scale: float, chip_px: int, stride_max: int) -> float:
    """The longest object, in original px, that always finds a chip along an axis of ``extent`` network px."""
    return np.inf if extent <= chip_px else (chip_px - stride_max) / scale


@compiled
def _mark_valid(
    object_wh: NDArray[np.floating],
    object_image: NDArray[np.int64],
    scales: NDArray[np.float64],
    sizes: NDArray[np.int32],
    ranges: NDArray[np.float64],
    chip_px: int,
    min_side: float,
    stride_max: int,
    valid: NDArray[np.bool_],
) -> None:
    for row in range(len(object_wh)):
        image = object_image[row]
        w, h = np.float64(object_wh[row, 0]), np.float64(object_wh[row, 1])
        for level in range(len(ranges)):
            limit_w = fit_limit(sizes[image, level, 0], scales[image, level], chip_px, stride_max)
            limit_h = fit_limit(sizes[image, level, 1], scales[image, level], chip_px, stride_max)
            valid[row, level] = is_valid(w, h, ranges[level, 0], ranges[level, 1], min_side, limit_w, limit_h)


def valid_sizes(
    object_wh: NDArray[np.floating],
    object_image: NDArray[np.integer],
    images: ScaledImages,
    *,
    stride_max: int,
    min_side_px: float,
) -> NDArray[np.bool_]:
    """(N, L) whether objects of these sizes are valid at each level; takes one byte an object and level.

    Args:
        object_wh: (N, 2) original px.
        object_image: (N,) image of each object, row of ``images``.
        images: the images at every level, I of them.
        stride_max: part of a chip that an object must leave free to be sure to fit, network px.
        min_side_px: objects with a shorter side are never valid, original px.
    """
    valid = np.empty((len(object_wh), len(images.ranges_px)), np.bool_)
    _mark_valid(
        read_only(object_wh),
        read_only(np.asarray(object_image, np.int64)),
        images.scales,
        images.sizes_wh,
        images.ranges_px,
        images.chip_px,
        float(min_side_px),
        stride_max,
        valid,
    )
    return valid


@compiled
def _mark_in_range(
    boxes: NDArray[np.floating], low: NDArray[np.float64], high: NDArray[np.float64], marks: NDArray[np.bool_]
) -> None:
    for row in range(len(boxes)):
        w = max(np.float64(boxes[row, 2]) - np.float64(boxes[row, 0]), 0.0)
        h = max(np.float64(boxes[row, 3]) - np.float64(boxes[row, 1]), 0.0)
        marks[row] = in_range(w * h, low[row], high[row])


def boxes_in_range(
    boxes_xyxy: NDArray[np.floating],
    low_px: float | NDArray[np.floating],
    high_px: float | NDArray[np.floating],
) -> NDArray[np.bool_]:
    """(N,) whether ``low <= sqrt(area) < high``; inverted boxes count as empty.

    Args:
        boxes_xyxy: (N, 4) original px.
        low_px, high_px: numbers or (N,), original px; a lower bound of 0 keeps empty boxes too.
    """
    boxes = np.asarray(boxes_xyxy).reshape(-1, 4)
    low, high = (read_only(np.broadcast_to(np.asarray(bound, np.float64), len(boxes))) for bound in (low_px, high_px))
    marks = np.empty(len(boxes), np.bool_)
    _mark_in_range(read_only(boxes), low, high, marks)
    return marks
