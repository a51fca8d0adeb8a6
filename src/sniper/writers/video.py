"""Drawn frames as an MPEG-4 video."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sniper.errors import StorageError
from sniper.files import replacing


class VideoFile:
    """A video that is being written; ``video_file`` opens one."""

    def __init__(self, writer: cv2.VideoWriter) -> None:
        self._writer = writer

    def add(self, pixels: NDArray[np.uint8]) -> None:
        """The next frame, (H, W, 3) RGB of the video's size."""
        self._writer.write(np.ascontiguousarray(pixels[:, :, ::-1]))


@contextmanager
def video_file(path: Path | str, size_wh: tuple[int, int], fps: float) -> Iterator[VideoFile]:
    """A new video, which appears under its name when the block ends well; with an error, none does.

    Raises:
        StorageError: it cannot be written.
    """
    path = Path(path)
    with replacing(path) as partial:
        # OpenCV chooses the container by the suffix, which the temporary name does not have.
        written = partial.with_suffix(path.suffix)
        writer = cv2.VideoWriter(str(written), cv2.VideoWriter.fourcc(*"mp4v"), fps, size_wh)
        try:
            if not writer.isOpened():
                raise StorageError(f"cannot write {path}: OpenCV has no MPEG-4 writer here, or the disk is full")
            yield VideoFile(writer)
            writer.release()
            written.replace(partial)
        finally:
            writer.release()
            written.unlink(missing_ok=True)
