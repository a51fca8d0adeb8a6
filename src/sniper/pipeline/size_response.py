"""Run a detector on the same images at several scales: at what size does it see objects well?"""

from collections.abc import Callable

import numpy as np

from sniper.boxes import sqrt_area
from sniper.data.table import AnnotationTable
from sniper.evaluation.size_response import SizeResponse, size_bins, size_edges
from sniper.inference.backend import Backend
from sniper.inference.config import InferenceConfig
from sniper.pipeline.detect import DetectionJob, detect_dataset, shards_of
from sniper.pipeline.watch import Watch
from sniper.pixels.sample_map import SampleMap
from sniper.pyramid import Level, Pyramid

SIZES_PX = (16, 24, 36, 54, 81, 122)  # network px to which the scales bring the median object
MAX_SCALE = 4.0
MAX_IMAGES = 40


def measure_response(
    backend: Backend,
    table: AnnotationTable,
    inference: InferenceConfig,
    *,
    max_images: int = MAX_IMAGES,
    seed: int = 0,
    sample_map: SampleMap = SampleMap(),  # noqa: B008  immutable
    on_progress: Callable[[int], None] = lambda done: None,
) -> SizeResponse:
    """The response of a detector to sizes, on at most ``max_images`` of the images with objects.

    Images are looked at whole at each scale, without valid ranges. ``on_progress`` is told how many more of them are
    done; there are ``len(response_scales(table))`` times the images.

    Raises:
        DataError: an image cannot be read.
    """
    images = images_with_objects(table, max_images, seed)
    edges = size_edges(images)
    bins = []
    for scale in response_scales(images):
        job = DetectionJob(
            images,
            Pyramid(levels=(Level(scale=scale),)),
            inference,
            shards_of(images, inference),
            sample_map=sample_map,
        )
        bins += size_bins(images, detect_dataset(job, backend, Watch(on_progress)).table, scale, edges)
    return SizeResponse(tuple(bins))


def images_with_objects(table: AnnotationTable, max_images: int, seed: int) -> AnnotationTable:
    """Some of the images that have an object to find, the same for the same seed."""
    rows = np.unique(table.image_rows_of_objects()[~table.ignored])
    chosen = np.random.default_rng(seed).permutation(rows)[:max_images]
    return table.select(np.sort(chosen))


def response_scales(table: AnnotationTable) -> list[float]:
    """The scales that bring the median object to ``SIZES_PX``, none above ``MAX_SCALE``."""
    sizes = sqrt_area(table.boxes_xyxy)[~table.ignored]
    median = float(np.median(sizes)) if len(sizes) else 1.0
    return sorted({min(float(f"{size / max(median, 1.0):.2g}"), MAX_SCALE) for size in SIZES_PX})
