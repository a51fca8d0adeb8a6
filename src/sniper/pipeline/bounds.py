"""Bounds that hide objects of crowded images, told before they do, with the settings that lift them."""

import logging

import numpy as np
from numpy.typing import NDArray

from sniper.data.table import AnnotationTable
from sniper.detectors.config import ModelConfig
from sniper.evaluation.coco_result import OFFICIAL_DETECTIONS
from sniper.evaluation.config import CocoEvalConfig
from sniper.inference.config import InferenceConfig, MergeConfig
from sniper.inference.windows import overlap_for, windows_of
from sniper.pyramid import Pyramid
from sniper.recipe import Recipe
from sniper.validity import boxes_in_range

logger = logging.getLogger("sniper")

ROOM = 1.5  # detections for each object that a suggested setting leaves room for


def hiding_bounds(recipe: Recipe, pyramid: Pyramid, table: AnnotationTable) -> list[str]:
    """A sentence for each bound on detections that is below the number of objects which the data hold.

    Objects that are ignored do not count. Bounds are those of a window (``model``), of an image (``inference.merge``)
    and of COCO's protocol (``evaluation``).
    """
    told = [
        _of_window(recipe.model, recipe.inference, pyramid, table),
        _of_image(recipe.inference.merge, table),
        _of_protocol(recipe.evaluation, table),
    ]
    return [sentence for sentence in told if sentence is not None]


def warn_of_bounds(recipe: Recipe, pyramid: Pyramid, table: AnnotationTable) -> None:
    """A warning for each of ``hiding_bounds``."""
    for sentence in hiding_bounds(recipe, pyramid, table):
        logger.warning(sentence)


def _of_image(merge: MergeConfig, table: AnnotationTable) -> str | None:
    caps = merge.caps(table.sizes_wh)
    if caps is None:
        return None
    counts = _counts(table, ~table.ignored)
    over = np.flatnonzero(counts > caps)
    if not len(over):
        return None
    assert merge.max_per_image is not None
    needed = _rounded(float((counts / caps).max()) * merge.max_per_image)
    return (
        f"inference keeps {merge.max_per_image} detections of an image (more of large ones); in "
        f"{_images(len(over))} of {table.root} there are more objects, up to "
        f"{counts[over].max()}: set inference.merge.max_per_image={needed}"
    )


def _of_protocol(evaluation: CocoEvalConfig, table: AnnotationTable) -> str | None:
    if "coco" not in evaluation.protocols:
        return None
    classes = 1 if evaluation.class_agnostic else max(len(table.class_names), 1)
    labels = np.zeros_like(table.labels) if evaluation.class_agnostic else table.labels
    kept = ~table.ignored
    pairs = table.image_rows_of_objects()[kept] * classes + labels[kept]
    of_image_and_class, counts = np.unique(pairs, return_counts=True)
    over = counts > evaluation.max_detections
    if not over.any():
        return None
    images = len(np.unique(of_image_and_class[over] // classes))
    return (
        f"COCO's AP counts {OFFICIAL_DETECTIONS[-1]} detections of an image and class; in {_images(images)} of "
        f"{table.root} there are more objects of one class than evaluation.max_detections="
        f"{evaluation.max_detections}, up to {counts.max()}: set "
        f"evaluation.max_detections={_rounded(counts.max())} and read AP_maxdets beside AP"
    )


def _of_window(model: ModelConfig, inference: InferenceConfig, pyramid: Pyramid, table: AnnotationTable) -> str | None:
    bounds = _window_bounds(model)
    if not bounds:
        return None
    least = min(bounds.values())
    densest = max(
        (_densest_window(level, inference, pyramid, table, least) for level in range(len(pyramid.levels))), default=0
    )
    lower = {name: bound for name, bound in bounds.items() if bound < densest}
    if not lower:
        return None
    settings = ", ".join(f"{name}={_rounded(densest)}" for name in lower)
    given = ", ".join(f"{name}={bound}" for name, bound in lower.items())
    return (
        f"a window of {inference.window_px} px shows up to {densest} objects of {table.root}, of which {given} keep "
        f"fewer: set {settings}, or a smaller inference.window_px"
    )


def _window_bounds(model: ModelConfig) -> dict[str, int]:
    """What a detector keeps of one padded input at most, by setting; empty: it does not say."""
    proposals = getattr(model, "proposals", None)
    bounds = {
        "model.max_detections": getattr(model, "max_detections", None),
        "model.proposals.keep": getattr(proposals, "keep", None),
    }
    return {name: bound for name, bound in bounds.items() if bound is not None}


def _densest_window(
    level: int, inference: InferenceConfig, pyramid: Pyramid, table: AnnotationTable, least: int
) -> int:
    """Most objects whose middles one window shows at a level that keeps their size; only counts above ``least``."""
    low, high = pyramid.infer_ranges_px()[level].tolist()
    kept = boxes_in_range(table.boxes_xyxy, low, high) & ~table.ignored
    scales = pyramid.levels[level].scales(table.sizes_wh)
    densest = 0
    for image in np.flatnonzero(_counts(table, kept) > least).tolist():  # few: crowded ones
        rows, scale = table.objects(image), float(scales[image])
        width, height = table.sizes_wh[image].tolist()
        overlap_px = overlap_for(high, scale, window_px=inference.window_px, overlap=inference.overlap)
        windows = windows_of(image, (width, height), level, scale, window_px=inference.window_px, overlap_px=overlap_px)
        boxes = table.boxes_xyxy[rows][kept[rows]]
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2 * scale
        for window in windows:
            inside = (middles >= window.origin_xy) & (middles < np.add(window.origin_xy, window.valid_wh))
            densest = max(densest, int(inside.all(axis=1).sum()))
    return densest


def _counts(table: AnnotationTable, kept: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(I,) objects of each image, of those that are ``kept`` (N,)."""
    return np.bincount(table.image_rows_of_objects()[kept], minlength=len(table))


def _rounded(objects: float) -> int:
    """A setting with room for so many objects, in hundreds."""
    return int(-(-ROOM * objects // 100) * 100)


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
