"""Regions of photos through the same inference that predicts: all levels, windows and borders, with features."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.checks.images import thumbnail_of
from sniper.errors import DataError
from sniper.inference.backend import Looked, Want
from sniper.inference.config import MergeConfig
from sniper.inference.detect import detect_images
from sniper.inference.images import ImageDetections
from sniper.inference.merge import nms
from sniper.inference.regions import REGION_NMS_IOU, RegionSource
from sniper.inference.windows import INPUT_STEP, Window, region_around
from sniper.pipeline.keys import UNUSED_BY_PROPOSALS, used_settings
from sniper.pipeline.model import Model
from sniper.pipeline.photo_folder import ClassPhoto
from sniper.pipeline.region_store import RegionStore, store_key
from sniper.pipeline.sources import Skipped, file_images
from sniper.pixels.windowed import PixelSource, cut_from, small_copy

BEST_REGIONS = 20  # kept of a photo: those most like objects,
WORST_REGIONS = 5  # and those least like one, for the background
_THUMBNAIL_FROM_PX = 1024  # huge photos are made smaller first
_MERGE = MergeConfig(
    method="hard", iou_threshold=REGION_NMS_IOU, score_threshold=0, max_per_image=None, full_megapixels=None
)


class PhotoRegions(NamedTuple):
    """Regions of one photo: boxes that were given first, then by objectness, the photo as a whole last."""

    boxes: NDArray[np.float32]  # (N, 4) xyxy, original px
    scores: NDArray[np.float32]  # (N,) objectness
    features: NDArray[np.float32]  # (N, D)
    given: int  # the first so many are boxes that the user has drawn
    thumbnail: NDArray[np.uint8]  # (32, 32) grey


def describe_photos(
    model: Model,
    source: RegionSource,
    photos: Sequence[ClassPhoto],
    *,
    store: RegionStore | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Iterator[PhotoRegions]:
    """The regions of each photo, in order; those of a photo that the store knows are read.

    Raises:
        DataError: a photo cannot be read.
    """
    settings = {"recipe": used_settings(model.recipe, UNUSED_BY_PROPOSALS), "kept": [BEST_REGIONS, WORST_REGIONS]}
    networks = (model.digest(), source.name, source.digest())
    count = model.recipe.inference.images_in_flight
    for start in range(0, len(photos), count):
        group = photos[start : start + count]
        told = [None if one.boxes_xyxy is None else one.boxes_xyxy.tolist() for one in group]
        keys = [
            store_key(one.content, networks, settings | {"boxes": boxes})
            for one, boxes in zip(group, told, strict=True)
        ]
        known = [None if store is None else store.get(key) for key in keys]
        missing = [place for place, columns in enumerate(known) if columns is None]
        for place, made in zip(missing, _describe(model, source, [group[k] for k in missing]), strict=True):
            known[place] = made
            if store is not None:
                store.put(keys[place], made)
        for columns in known:
            assert columns is not None
            yield _photo_regions(columns)
            if on_progress:
                on_progress(1)


def _photo_regions(columns: dict[str, NDArray[Any]]) -> PhotoRegions:
    features = columns["features"].astype(np.float32)
    return PhotoRegions(columns["boxes"], columns["scores"], features, int(columns["given"][0]), columns["thumbnail"])


def _describe(model: Model, source: RegionSource, photos: Sequence[ClassPhoto]) -> Iterator[dict[str, NDArray[Any]]]:
    """Columns of each photo; features in half precision, as the store keeps them, whether or not there is one."""
    recorder = _Recorder(source)
    paths = [photo.path for photo in photos]
    settings = model.recipe.inference
    inference = settings.model_copy(update={"merge": _MERGE, "focus": None})
    pixels: dict[int, NDArray[np.uint8] | PixelSource] = {}
    thumbnails: dict[int, NDArray[np.uint8]] = {}

    def kept() -> Iterator[Any]:
        for image in file_images(paths, Skipped(), sample_map=model.recipe.data.sample_map):
            thumbnails[image.key] = thumbnail_of(small_copy(image.pixels, _THUMBNAIL_FROM_PX)[0])
            if photos[image.key].boxes_xyxy is not None:
                pixels[image.key] = image.pixels
            yield image

    for found in detect_images(recorder, kept(), model.pyramid, inference):
        photo = photos[found.key]
        boxes, scores, features = _best_and_worst(found, recorder)
        given = np.zeros((0, 4), np.float32) if photo.boxes_xyxy is None else photo.boxes_xyxy.astype(np.float32)
        if len(given):
            opened = pixels.pop(found.key)
            drawn = np.concatenate([describe_box(model, source, opened, box, photo.path) for box in given])
            boxes, features = np.concatenate([given, boxes]), np.concatenate([drawn, features])
            scores = np.concatenate([np.ones(len(given), np.float32), scores])
        yield {
            "boxes": boxes,
            "scores": scores,
            "features": features.astype(np.float16),
            "given": np.array([len(given)], np.int64),
            "thumbnail": thumbnails.pop(found.key),
        }


def _best_and_worst(
    found: ImageDetections, recorder: "_Recorder"
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Boxes, objectness and features of some regions of all levels together, and of the photo as a whole."""
    whole = found.scores <= 0
    kept = np.flatnonzero(~whole)
    best = kept[nms(found.boxes_xyxy[kept], found.scores[kept], np.zeros(len(kept), np.int64), _MERGE).keep]
    some = np.concatenate([best[:BEST_REGIONS], best[BEST_REGIONS:][-WORST_REGIONS:], np.flatnonzero(whole)[-1:]])
    features = recorder.features(found.labels[some])
    return found.boxes_xyxy[some], found.scores[some], features


class _Recorder:
    """Satisfies ``inference.backend.Backend``: regions whose label is the row at which their features are kept.

    Labels that are all different keep regions from suppressing each other, and lead back to the features of those that
    came through ranges and borders.
    """

    proposes = False
    predicts_masks = False
    focus_source: Literal["branch", "proposals", "detections"] = "detections"
    focus_stride: int | None = None

    def __init__(self, source: RegionSource) -> None:
        self._source, self.name = source, source.backend.name
        self._parts: list[NDArray[np.float32]] = []
        self._count = 0

    def look(
        self, inputs: NDArray[np.uint8], valid_hw: NDArray[np.int64], scale: NDArray[np.float32], want: Want
    ) -> Looked:
        """Regions of a batch, and the valid region of each padded input, with a score of 0."""
        whole = [np.array([[0, 0, width, height]], np.float32) for height, width in valid_hw.tolist()]
        found = self._source.describe(inputs, valid_hw, scale, whole)
        labels = self._count + np.arange(len(found.scores), dtype=np.int64)
        self._parts.append(found.features)
        self._count += len(labels)
        return Looked(found.boxes, found.scores, labels, found.offsets)

    def masks(
        self, features: NDArray[np.floating], boxes: NDArray[np.floating], labels: NDArray[np.integer]
    ) -> NDArray[np.float32]:
        """Not possible: ``predicts_masks`` is false."""
        raise NotImplementedError("regions have no masks")

    def features(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """(N, D) of regions with these labels."""
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        return self._parts[0][rows]


def describe_box(
    model: Model,
    source: RegionSource,
    pixels: NDArray[np.uint8] | PixelSource,
    box: NDArray[np.float32],
    path: Path,
) -> NDArray[np.float32]:
    """(1, D) features of a box, original px of the photo ``path``, at the level that answers for its size.

    Raises:
        DataError: the box lies outside the photo.
    """
    size_wh = (pixels.shape[1], pixels.shape[0]) if isinstance(pixels, np.ndarray) else pixels.size_wh
    x1, y1, x2, y2 = np.clip(box, 0, np.tile(np.asarray(size_wh, np.float32), 2)).tolist()
    if x2 <= x1 or y2 <= y1:
        raise DataError(f"{path}: its box {box.round(1).tolist()} lies outside its {size_wh} px; correct the XML")
    low, high = model.pyramid.infer_ranges_px().T
    side = np.sqrt((x2 - x1) * (y2 - y1))
    level = int(np.argmax((side >= low) & (side < high)))
    scale = float(model.pyramid.scales(np.asarray([size_wh]))[0, level])
    (x0, y0), valid = region_around((x1, y1, x2, y2), size_wh, scale, model.recipe.inference.window_px)
    window = Window(0, level, scale, (x0, y0), valid, INPUT_STEP)
    padded = cut_from(pixels, window.origin_xy, scale, window.padded_wh, valid)
    inside = (np.array([[x1, y1, x2, y2]]) * scale - [x0, y0, x0, y0]).astype(np.float32)
    found = source.describe(
        padded[None], np.array([valid[::-1]], np.int64), np.array([scale], np.float32), [inside], max_regions=0
    )
    return found.features
