"""Images from anywhere: image files, datasets, videos; decoded ahead of the detector."""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from sniper.data.table import AnnotationTable
from sniper.errors import DataError
from sniper.inference.config import InferenceConfig
from sniper.inference.images import ImageInput
from sniper.pixels.open import open_pixels
from sniper.pixels.sample_map import SampleMap
from sniper.pixels.windowed import PixelSource

log = logging.getLogger("sniper")

AHEAD = 4  # images decoded before they are needed
WHOLE_MEGAPIXELS = InferenceConfig().whole_megapixels

Pixels = NDArray[np.uint8] | PixelSource

BadImage = Literal["stop", "skip"]


@dataclass(slots=True)
class Skipped:
    """Files that were left out, with the reason of each."""

    files: list[tuple[str, str]] = field(default_factory=list)

    def handle(self, name: str, error: DataError, on_bad_image: BadImage) -> None:
        """Note the file and go on, or raise."""
        if on_bad_image == "stop":
            raise error
        self.files.append((name, str(error)))
        log.warning("skipped a file: %s", error)


def images_of(
    read: Callable[[int], Pixels],
    count: int,
    names: Callable[[int], str],
    skipped: Skipped,
    on_bad_image: BadImage,
) -> Iterator[ImageInput]:
    """Images 0..count-1 in order, decoded in a thread a few ahead."""
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[tuple[int, Future[Pixels]]] = deque()
        upcoming = iter(range(count))
        try:
            while True:
                while len(waiting) < AHEAD and (key := next(upcoming, None)) is not None:
                    waiting.append((key, pool.submit(read, key)))
                if not waiting:
                    return
                key, decoded = waiting.popleft()
                try:
                    yield ImageInput(key, decoded.result())
                except DataError as error:
                    skipped.handle(names(key), error, on_bad_image)
        finally:
            for _, future in waiting:
                future.cancel()


def table_images(
    table: AnnotationTable,
    skipped: Skipped,
    on_bad_image: BadImage = "stop",
    *,
    whole_megapixels: float = WHOLE_MEGAPIXELS,
    sample_map: SampleMap = SampleMap(),  # noqa: B008  immutable
) -> Iterator[ImageInput]:
    """The images of a dataset; keys are rows of the table. Those of more than ``whole_megapixels`` come by windows."""

    def read(row: int) -> Pixels:
        width, height = table.sizes_wh[row].tolist()
        return open_pixels(
            table.image_path(row),
            whole_pixels=whole_megapixels * 1e6,
            size_wh=(width, height),
            image_id=int(table.image_ids[row]),
            sample_map=sample_map,
        )

    return images_of(read, len(table), lambda row: str(table.image_path(row)), skipped, on_bad_image)


def file_images(
    paths: list[Path],
    skipped: Skipped,
    on_bad_image: BadImage = "stop",
    *,
    whole_megapixels: float = WHOLE_MEGAPIXELS,
    sample_map: SampleMap = SampleMap(),  # noqa: B008  immutable
) -> Iterator[ImageInput]:
    """Image files; keys are positions in ``paths``. Those of more than ``whole_megapixels`` come by windows."""
    pixels = whole_megapixels * 1e6
    return images_of(
        lambda k: open_pixels(paths[k], whole_pixels=pixels, sample_map=sample_map),
        len(paths),
        lambda k: str(paths[k]),
        skipped,
        on_bad_image,
    )


@dataclass(frozen=True, slots=True)
class Video:
    """An opened video's facts."""

    path: Path
    size_wh: tuple[int, int]
    frames: int  # as the file says; not always true
    fps: float


def video_facts(path: Path) -> Video:
    """Size, length and rate of a video.

    Raises:
        DataError: it cannot be opened or has no frames.
    """
    capture = cv2.VideoCapture(str(path))
    try:
        # Sizes from the first frame: what the header says may be turned, or there may be no frame at all.
        readable, frame = capture.read() if capture.isOpened() else (False, None)
        if not readable or frame is None:
            raise DataError(
                f"{path}: cannot be opened as a video; expected a file that OpenCV reads, such as MP4 (H.264)"
            )
        frames, fps = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
        return Video(path, (frame.shape[1], frame.shape[0]), max(int(frames), 1), fps if fps > 0 else 25.0)
    finally:
        capture.release()


def video_images(video: Video) -> Iterator[ImageInput]:
    """The frames of a video; keys count frames from 0. Where it ends before its time, a warning tells."""
    capture = cv2.VideoCapture(str(video.path))
    try:
        key = 0
        while True:
            more, frame = capture.read()
            if not more:
                break
            yield ImageInput(key, np.ascontiguousarray(frame[:, :, ::-1]))
            key += 1
    finally:
        capture.release()
    if key < video.frames:
        log.warning(
            "%s: %d of %d frames can be read: the video is cut off or damaged, and the others have no detections",
            video.path, key, video.frames,
        )  # fmt: skip
