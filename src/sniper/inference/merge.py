"""One list of detections out of many: by level, by chip and by class.

Each level answers for its own range of sizes, so its detections outside that range are dropped first; what is left
of all levels competes per class by soft-NMS (arXiv 1704.04503) or hard NMS, and each image keeps its best. See
``docs/method.md``, "Merging levels". NumPy in, NumPy out; boxes are half-open xyxy.
"""

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sniper.inference.config import MergeConfig
from sniper.inference.ordering import counting_order
from sniper.inference.suppress import HARD, SOFT_GAUSSIAN, SOFT_LINEAR, suppress_groups
from sniper.validity import boxes_in_range

logger = logging.getLogger("sniper")

FloatArray = NDArray[np.floating]

_RULES = {"soft_gaussian": SOFT_GAUSSIAN, "soft_linear": SOFT_LINEAR, "hard": HARD}
_NO_LIMIT = 2**62


@dataclass(frozen=True, slots=True)
class Merged:
    """What is left of a set of boxes: best score first, of equal scores the lower input row first."""

    keep: NDArray[np.int64]  # (K,) rows of the input
    scores: NDArray[np.float32]  # (K,) scores after suppression, never above the input's


@dataclass(frozen=True, slots=True)
class MergedImages:
    """What is left of the boxes of I images: image after image, in each as in ``Merged``."""

    offsets: NDArray[np.int64]  # (I + 1,)
    keep: NDArray[np.int64]  # (K,) rows of the input
    scores: NDArray[np.float32]  # (K,)
    cut_scores: NDArray[np.float32]  # (I,) best score that an image's bound cut off; 0: none


def range_keep(boxes_xyxy: FloatArray, low_px: float | FloatArray, high_px: float | FloatArray) -> NDArray[np.bool_]:
    """(N,) bool: ``low_px <= sqrt(area) < high_px``, original px, as in training; bounds are numbers or (N,) arrays.

    A lower bound of 0 keeps empty boxes too, an upper bound of infinity keeps everything above the lower one.
    """
    return boxes_in_range(boxes_xyxy, low_px, high_px)


def drop_cut(
    boxes_xyxy: FloatArray, chip_xyxy: FloatArray, image_wh: tuple[float, float], margin_px: float = 10.0
) -> NDArray[np.bool_]:
    """(N,) bool, True for boxes to keep: none of whose sides lies within ``margin_px`` of a side of their chip.

    Such a box is probably cut by the chip, and another chip or level shows the whole object. Sides of a chip that
    are borders of the image (to half a pixel) cut nothing.
    ``chip_xyxy`` is (4,) or (N, 4); all in original px. AutoFocus (arXiv 1812.01600), section 4.
    """
    return inner_gap(boxes_xyxy, chip_xyxy, image_wh) >= margin_px


def inner_gap(boxes_xyxy: FloatArray, chip_xyxy: FloatArray, image_wh: tuple[float, float]) -> NDArray[np.float64]:
    """(N,) how far boxes stay inside their chip, or (K, N) inside each of (K, 1, 4): the smallest distance to a side.

    Sides of a chip that are borders of the image (to half a pixel) do not count; infinity where all are.
    """
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    chips = np.asarray(chip_xyxy, dtype=np.float64)
    far = np.asarray(image_wh, dtype=np.float64)
    at_border = np.concatenate([chips[..., :2] < 0.5, chips[..., 2:] >= far - 0.5], axis=-1)
    gap = np.concatenate([boxes[:, :2] - chips[..., :2], chips[..., 2:] - boxes[:, 2:]], axis=-1)
    out: NDArray[np.float64] = np.where(at_border, np.inf, gap).min(axis=-1)
    return out


def own_of_chip(
    boxes_xyxy: FloatArray,
    chip_xyxy: FloatArray,
    rivals_xyxy: FloatArray,
    image_wh: tuple[float, float],
    tolerance_px: float,
) -> NDArray[np.bool_]:
    """(N,) bool, True for boxes to keep: those that no rival (K, 4) holds further from its sides than their own chip.

    An object in several overlapping chips is found in each, at places that differ a little: it is kept in the one that
    shows most around it, and in those that show nearly as much, to ``tolerance_px``. All in original px.
    """
    own = inner_gap(boxes_xyxy, chip_xyxy, image_wh)
    rivals = np.asarray(rivals_xyxy, dtype=np.float64).reshape(-1, 1, 4)
    theirs = inner_gap(boxes_xyxy, rivals, image_wh).max(axis=0, initial=-np.inf)
    return np.asarray(theirs <= own + tolerance_px)


def nms(
    boxes_xyxy: FloatArray, scores: FloatArray, labels: NDArray[np.integer], config: MergeConfig | None = None
) -> Merged:
    """Suppress overlapping boxes class by class; all classes of one image in one call.

    boxes (N, 4) float32 or float64, scores (N,) not negative, labels (N,) not negative. Does not cap
    (``max_per_image`` belongs to ``merge_images``). A box goes only when a better one that it overlaps lowers it below
    ``score_threshold``; one that overlaps nothing stays whatever its score. Rows with NaN or infinite numbers are
    dropped with one warning. Raises ValueError for shapes that do not match and negative scores or labels.
    """
    every = np.asarray([0, len(boxes_xyxy)], dtype=np.int64)
    merged = _merge(every, boxes_xyxy, scores, labels, None, config or MergeConfig(), caps=None)
    return Merged(keep=merged.keep, scores=merged.scores)


def merge_images(
    image_offsets: NDArray[np.int64],
    boxes_xyxy: FloatArray,
    scores: FloatArray,
    labels: NDArray[np.integer],
    levels: NDArray[np.integer],
    ranges_px: FloatArray,
    config: MergeConfig | None = None,
    *,
    sizes_wh: NDArray[np.integer] | None = None,
) -> MergedImages:
    """Range filter per level, suppression per class and the cap, for I images at once.

    ``image_offsets`` (I + 1,) groups the N rows of boxes (N, 4; original px), scores, labels and levels by image; in
    an image any order will do. ``ranges_px`` (L, 2) is what each level may keep, sqrt(area) in original px
    (``Pyramid.infer_ranges_px()``). ``sizes_wh`` (I, 2) are the sizes of the images, where large ones may keep more
    (``full_megapixels``). Keeps exactly ``max_per_image`` where an image has that many (the original system
    also kept every box that tied with the last one). Errors as in ``nms``.
    """
    config = config or MergeConfig()
    ranges = np.asarray(ranges_px, dtype=np.float64).reshape(-1, 2)
    levels = np.asarray(levels)
    if len(levels) != len(boxes_xyxy):
        raise ValueError(f"expected one level per box, got {len(levels)} levels for {len(boxes_xyxy)} boxes")
    if len(levels) and not 0 <= levels.min() <= levels.max() < len(ranges):
        raise ValueError(f"levels go from {levels.min()} to {levels.max()}, but there are {len(ranges)} ranges")
    in_range = range_keep(boxes_xyxy, *ranges[levels].T) if len(levels) else None
    sizes = np.zeros((len(image_offsets) - 1, 2), np.int64) if sizes_wh is None else sizes_wh
    return _merge(np.asarray(image_offsets), boxes_xyxy, scores, labels, in_range, config, caps=config.caps(sizes))


def _merge(
    image_offsets: NDArray[np.int64],
    boxes_xyxy: FloatArray,
    scores: FloatArray,
    labels: NDArray[np.integer],
    usable: NDArray[np.bool_] | None,
    config: MergeConfig,
    caps: NDArray[np.int64] | None,
) -> MergedImages:
    boxes, scores, labels = _columns(boxes_xyxy, scores, labels)
    n_images = len(image_offsets) - 1
    if n_images < 0 or image_offsets[0] != 0 or image_offsets[-1] != len(boxes):
        raise ValueError(f"image offsets must run from 0 to the number of boxes, {len(boxes)}")
    rows = _finite_rows(boxes, scores, usable)
    if not len(rows):
        nothing = np.zeros(0, dtype=np.int64)
        none = np.zeros(n_images, dtype=np.float32)
        return MergedImages(np.zeros(n_images + 1, dtype=np.int64), nothing, np.zeros(0, dtype=np.float32), none)
    image_of = np.repeat(np.arange(n_images), np.diff(image_offsets))
    if labels[rows].min() < 0 or scores[rows].min() < 0:
        raise ValueError("labels and scores must not be negative")
    by_label = counting_order(rows, labels, int(labels[rows].max()) + 1)
    order = counting_order(by_label, image_of, n_images) if n_images > 1 else by_label
    new_group = (np.diff(labels[order]) != 0) | (np.diff(image_of[order]) != 0)
    starts = np.concatenate([[0], np.flatnonzero(new_group) + 1, [len(order)]])
    keep, final = suppress_groups(
        boxes,
        scores,
        order,
        starts,
        rule=_RULES[config.method],
        sigma=config.sigma,
        iou_threshold=config.iou_threshold,
        score_threshold=config.score_threshold,
        max_count=_NO_LIMIT if caps is None else int(caps.max()) + 1,  # one more, to tell what is cut off
    )
    best = _best_first(keep, final)
    if n_images > 1:
        best = counting_order(best, image_of[keep], n_images)
    image_of_best = image_of[keep[best]]
    offsets = np.searchsorted(image_of_best, np.arange(n_images + 1))
    cut_scores = np.zeros(n_images, dtype=np.float32)
    if caps is not None:
        over = np.flatnonzero(np.diff(offsets) > caps)
        cut_scores[over] = final[best[offsets[over] + caps[over]]]
        best = best[np.arange(len(best)) - offsets[image_of_best] < caps[image_of_best]]
        offsets = np.concatenate([[0], np.cumsum(np.minimum(np.diff(offsets), caps))])
    return MergedImages(offsets.astype(np.int64), keep[best], final[best], cut_scores)


def _columns(
    boxes_xyxy: FloatArray, scores: FloatArray, labels: NDArray[np.integer]
) -> tuple[FloatArray, NDArray[np.float32], NDArray[np.int64]]:
    """The inputs as the kernels want them: float32 or float64 boxes, float32 scores, int64 labels, all contiguous."""
    boxes = np.asarray(boxes_xyxy)
    boxes = np.ascontiguousarray(boxes, dtype=np.float64 if boxes.dtype == np.float64 else np.float32)
    if boxes.size == 0:
        boxes = boxes.reshape(0, 4)
    shapes = boxes.shape, np.shape(scores), np.shape(labels)
    if shapes != ((len(boxes), 4), (len(boxes),), (len(boxes),)):
        raise ValueError("expected boxes (N, 4), scores (N,) and labels (N,), got {}, {} and {}".format(*shapes))
    return boxes, np.ascontiguousarray(scores, dtype=np.float32), np.ascontiguousarray(labels, dtype=np.int64)


def _finite_rows(boxes: FloatArray, scores: NDArray[np.float32], usable: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    """Rows to use. A detector that overflows (half precision) must not poison the rest of the image."""
    finite = np.isfinite(scores) & np.isfinite(boxes).all(axis=1)
    if not finite.all():
        logger.warning("dropped %d of %d detections with NaN or infinite numbers", (~finite).sum(), len(finite))
    return np.flatnonzero(finite if usable is None else finite & usable)


def _best_first(keep: NDArray[np.int64], scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Positions by falling score, then by rising row: one sort of integers, since floats >= 0 order like their bits."""
    bits = (scores + np.float32(0)).view(np.uint32).astype(np.uint64)  # + 0 turns -0.0 into 0.0
    by_row = np.argsort(keep)
    keys = ((np.uint64(0xFFFFFFFF) - bits[by_row]) << np.uint64(32)) | np.arange(len(keep), dtype=np.uint64)
    keys.sort()
    return by_row[(keys & np.uint64(0xFFFFFFFF)).astype(np.int64)]
