"""Detections of a dataset's images, made in shards."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sniper.data.detection_files import join_detections, load_detections, read_details, save_detections
from sniper.data.detections import DetectionTable
from sniper.data.run_lengths import RunLengths
from sniper.data.table import AnnotationTable
from sniper.errors import DataError
from sniper.inference.backend import Backend
from sniper.inference.batches import OnError
from sniper.inference.config import InferenceConfig
from sniper.inference.detect import detect_images
from sniper.inference.images import ImageDetections, ImageInput
from sniper.inference.trace import OnTrace
from sniper.pipeline.shards import Parts, make_shards, split
from sniper.pipeline.sources import BadImage, Skipped, table_images
from sniper.pipeline.watch import Source, Watch
from sniper.pixels.sample_map import SampleMap
from sniper.pyramid import Pyramid

ALONE_PX = 64_000_000  # an image of more pixels has windows enough to be a shard of its own


@dataclass(frozen=True, slots=True)
class DatasetDetections:
    """What was found in the images of a dataset, or of a part of it, and what it cost."""

    table: DetectionTable  # without the images that were skipped
    pixels_processed: int  # padded input pixels that the network saw
    pixels_full: int  # those of the full pyramids
    skipped: list[tuple[str, str]]  # files that could not be read, with the reason

    @property
    def pixels_per_image(self) -> float:
        """Mean of the padded input pixels that the network saw."""
        return self.pixels_processed / len(self.table)

    @property
    def pixel_share(self) -> float:
        """Padded input pixels that the network saw, of those of the full pyramids."""
        return self.pixels_processed / self.pixels_full


def look(
    backend: Backend,
    images: Iterable[ImageInput],
    pyramid: Pyramid,
    inference: InferenceConfig,
    watch: Watch,
    *,
    on_trace: OnTrace | None = None,
    on_error: OnError | None = None,
) -> Iterator[ImageDetections]:
    """Detections of each image, in their order; ``watch`` is told of the windows. As ``inference.detect_images``."""
    return detect_images(
        backend, images, pyramid, inference, on_trace=on_trace, on_progress=watch.windows, on_error=on_error
    )


class DetectionJob(NamedTuple):
    """All that decides what is found in a dataset. Satisfies ``shards.ShardJob``."""

    images: AnnotationTable
    pyramid: Pyramid
    inference: InferenceConfig
    shards: list[range]
    on_bad_image: BadImage = "stop"
    parts: Parts | None = None  # where finished shards are kept, so that one can go on; None: nowhere
    sample_map: SampleMap = SampleMap()

    def make(self, number: int, backend: Backend, watch: Watch) -> DatasetDetections:
        """Detections of one shard."""
        rows = self.shards[number]
        path = self.parts.path(number) if self.parts is not None else None
        if path is not None and (done := _read(path)) is not None:
            watch.images(len(rows))
            return done
        images, skipped = self.images.select(np.asarray(rows)), Skipped()
        pictures = table_images(
            images,
            skipped,
            self.on_bad_image,
            whole_megapixels=self.inference.whole_megapixels,
            sample_map=self.sample_map,
        )
        found = []
        for one in look(
            backend, pictures, self.pyramid, self.inference, watch,
            on_error=lambda row, error: skipped.handle(str(images.image_path(row)), error, self.on_bad_image),
        ):  # fmt: skip
            found.append(one)
            watch.images(1)
        watch.images(len(rows) - len(found))  # those that were skipped
        done = DatasetDetections(
            table_of(found, images.image_ids),
            sum(one.pixels_processed for one in found),
            sum(one.pixels_full for one in found),
            skipped.files,
        )
        if path is not None:
            costs = {"pixels_processed": done.pixels_processed, "pixels_full": done.pixels_full}
            save_detections(path, done.table, {"key": path.name, "skipped": done.skipped, **costs})
        return done


def shards_of(images: AnnotationTable, inference: InferenceConfig) -> list[range]:
    """How the images of a dataset are split."""
    large = images.sizes_wh.astype(np.int64).prod(axis=1) > ALONE_PX
    return split(len(images), inference.images_in_flight, alone=large.tolist())


def detect_dataset(
    job: DetectionJob,
    backend: Backend,
    watch: Watch,
    *,
    processes: int = 1,
    source: Source | None = None,
    by_ranks: bool = False,
) -> DatasetDetections:
    """Detections of all images of a dataset; who makes which shards is as in ``shards.make_shards``.

    Raises:
        DataError: an image cannot be read and ``on_bad_image`` is ``stop``, or none can.
    """
    numbers = range(len(job.shards))
    if processes > 1:
        job = job._replace(images=job.images.share())
    made = make_shards(job, numbers, backend, watch, processes=processes, source=source, by_ranks=by_ranks)
    with closing(made):
        found = list(made)
    skipped = [file for one in found for file in one.skipped]
    table = join_detections([one.table for one in found])
    if not len(table):
        raise DataError(f"none of {len(job.images)} images can be read; the first: {skipped[0][1]}")
    return DatasetDetections(
        table,
        sum(one.pixels_processed for one in found),
        sum(one.pixels_full for one in found),
        skipped,
    )


def table_of(found: list[ImageDetections], image_ids: np.ndarray) -> DetectionTable:
    """The detections of images as columns; each image's key is its row of ``image_ids``."""
    counts = [len(one.scores) for one in found]
    masks = [one.masks for one in found if one.masks is not None]
    return DetectionTable.from_arrays(
        image_row=np.repeat(np.arange(len(found)), counts),
        boxes_xyxy=np.concatenate([np.zeros((0, 4), np.float32), *(one.boxes_xyxy for one in found)]),
        scores=np.concatenate([np.zeros(0, np.float32), *(one.scores for one in found)]),
        labels=np.concatenate([np.zeros(0, np.int32), *(one.labels for one in found)]),
        levels=np.concatenate([np.zeros(0, np.int16), *(one.levels for one in found)]),
        image_ids=image_ids[[one.key for one in found]] if found else np.zeros(0, np.int64),
        masks=RunLengths.join(masks) if found and len(masks) == len(found) else None,
    )


def _read(path: Path) -> DatasetDetections | None:
    """What an earlier run made of a shard."""
    details = read_details(path)
    if details is None or details.get("key") != path.name:
        return None
    skipped = [(name, reason) for name, reason in details["skipped"]]
    return DatasetDetections(load_detections(path), details["pixels_processed"], details["pixels_full"], skipped)
