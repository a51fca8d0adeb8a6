"""Prediction of some image files, or of one video: what one process does of a prediction, streaming."""

import json
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sniper.errors import DataError
from sniper.evaluation.best_f1 import DEFAULT_SCORE
from sniper.files import write_text
from sniper.inference.backend import Backend
from sniper.inference.config import InferenceConfig
from sniper.inference.images import ImageInput
from sniper.pipeline.detect import look
from sniper.pipeline.focus_pictures import FocusPictures
from sniper.pipeline.prediction import Prediction, Predictions
from sniper.pipeline.shards import Parts
from sniper.pipeline.source_files import is_video
from sniper.pipeline.sources import BadImage, Skipped, file_images, video_facts, video_images
from sniper.pipeline.watch import Watch
from sniper.pixels.open import where_on_ground
from sniper.pixels.sample_map import SampleMap
from sniper.pixels.windowed import small_copy
from sniper.pyramid import Pyramid
from sniper.report.blur import blur_detections
from sniper.report.draw import draw_detections
from sniper.writers.coco_json import predictions_file
from sniper.writers.images import save_picture
from sniper.writers.video import VideoFile, video_file

DRAWN_PX = 4096  # longest side of the drawing of an image that is read by windows


class OutputFiles(NamedTuple):
    """Where results go."""

    parts: Parts  # the entries of ``predictions.json``, shard by shard
    ground: dict[Path, Path]  # GeoJSON of each image, if it is geo-referenced
    drawn: dict[Path, Path]  # drawing of each image and video; empty: none
    focus: dict[Path, Path]  # picture of the windows that AutoFocus chose in each image; empty: none
    draw_scores: float | tuple[float, ...]  # detections below it, or below their class' (C,), are not drawn
    blur: bool  # pictures have the detections made unrecognisable, not drawn
    resume: bool  # shards that are complete are left as they are


class PredictJob(NamedTuple):
    """All that decides what is found in files. Satisfies ``shards.ShardJob``."""

    paths: list[Path]
    shards: list[range]  # of the paths: images, or one video
    class_names: tuple[str, ...]
    pyramid: Pyramid
    inference: InferenceConfig
    min_score: float
    on_bad_image: BadImage
    files: OutputFiles | None = None
    keep: bool = True  # give the items back, and not only what they were
    sample_map: SampleMap = SampleMap()

    def make(self, number: int, backend: Backend, watch: Watch) -> Predictions:
        """Predict the files of one shard, and write what there is to write."""
        part = None if self.files is None else self.files.parts.path(number, ".json")
        if part is not None and self.files is not None and self.files.resume and not self.keep:
            done = _read_summary(part)
            if done is not None:
                watch.images(done.images + len(done.skipped))
                return done
        items: list[Prediction] = []
        skipped, images, detections, processed, full, cut = Skipped(), 0, 0, 0, 0, 0
        with ExitStack() as stack:
            made = stack.enter_context(closing(self.predictions(number, backend, watch, skipped)))
            file = None if part is None else stack.enter_context(predictions_file(part))
            for one in made:
                if file is not None:
                    file.add(one.as_dict())
                if self.keep:
                    items.append(one)
                images, detections = images + 1, detections + len(one.scores)
                processed, full = processed + one.pixels_processed, full + one.pixels_full
                cut += one.cut_score >= max(self.min_score, DEFAULT_SCORE)
        done = Predictions(items, skipped.files, images, detections, processed, full, cut)
        if part is not None and not self.keep:
            _write_summary(part, done)
        return done

    def predictions(
        self, number: int, backend: Backend, watch: Watch, skipped: Skipped
    ) -> Generator[Prediction, None, None]:
        """What was found in the images or frames of a shard, each when it is there; drawings and GeoJSON are written.

        No more images are in memory than inference batches together.
        """
        paths = [self.paths[row] for row in self.shards[number]]
        if is_video(paths[0]):
            yield from self._of_video(paths[0], backend, watch, skipped)
        else:
            yield from self._of_images(paths, backend, watch, skipped)

    def _of_images(self, paths: list[Path], backend: Backend, watch: Watch, skipped: Skipped) -> Iterator[Prediction]:
        drawn = self.files.drawn if self.files is not None else {}
        files = [self.files.focus[path] for path in paths] if self.files is not None and self.files.focus else None
        focus = None if files is None else FocusPictures(files)
        held: dict[int, ImageInput] = {}  # found in, and not yet drawn

        def kept() -> Iterator[ImageInput]:
            whole = self.inference.whole_megapixels
            for image in file_images(
                paths, skipped, self.on_bad_image, whole_megapixels=whole, sample_map=self.sample_map
            ):
                if drawn or focus:
                    held[image.key] = image
                yield image

        def on_error(key: int, error: DataError) -> None:
            held.pop(key, None)
            skipped.handle(str(paths[key]), error, self.on_bad_image)

        on_trace = None if focus is None else focus.on_trace
        for found in look(
            backend, kept(), self.pyramid, self.inference, watch, on_trace=on_trace, on_error=on_error
        ):  # fmt: skip
            path = paths[found.key]
            one = Prediction.of(found, path, self.class_names, min_score=self.min_score, geo=where_on_ground(path))
            if self.files is not None and one.geo is not None:
                one.write_geojson(self.files.ground[path])
            if found.key in held:
                pixels, scale = small_copy(held.pop(found.key).pixels, DRAWN_PX)
                if drawn:
                    save_picture(drawn[path], self._drawing(pixels, one, scale))
                if focus:
                    focus.draw(found.key, pixels)
            watch.images(1)
            yield one

    def _of_video(self, path: Path, backend: Backend, watch: Watch, skipped: Skipped) -> Iterator[Prediction]:
        try:
            video = video_facts(path)
        except DataError as error:
            skipped.handle(str(path), error, self.on_bad_image)
            return
        output = self.files.drawn.get(path) if self.files is not None else None
        frames: dict[int, np.ndarray] = {}  # read, and not yet drawn

        def kept() -> Iterator[ImageInput]:
            for frame in video_images(video):
                if output is not None and isinstance(frame.pixels, np.ndarray):
                    frames[frame.key] = frame.pixels
                yield frame

        with ExitStack() as stack:
            drawn: VideoFile | None = None
            if output is not None:
                drawn = stack.enter_context(video_file(output, video.size_wh, video.fps))
            for found in look(backend, kept(), self.pyramid, self.inference, watch):
                one = Prediction.of(found, path, self.class_names, min_score=self.min_score, frame=found.key)
                if drawn is not None:
                    drawn.add(self._drawing(frames.pop(found.key), one))
                watch.images(1)
                yield one

    def _drawing(self, pixels: np.ndarray, one: Prediction, scale: float = 1.0) -> np.ndarray:
        assert self.files is not None
        if self.files.blur:
            min_score = self.files.draw_scores
            return blur_detections(pixels, one.boxes_xyxy, one.scores, one.labels, min_score=min_score, scale=scale)
        return draw_detections(
            pixels, one.boxes_xyxy, one.scores, one.labels, one.class_names,
            min_score=self.files.draw_scores, masks=one.masks, scale=scale,
        )  # fmt: skip


def _summary_of(part: Path) -> Path:
    return part.with_suffix(".done")


def _write_summary(part: Path, done: Predictions) -> None:
    """Written last: it says that the part and what goes with it are complete."""
    numbers = [done.images, done.detections, done.pixels_processed, done.pixels_full, done.cut_images]
    write_text(_summary_of(part), json.dumps({"numbers": numbers, "skipped": done.skipped}))


def _read_summary(part: Path) -> Predictions | None:
    """What an earlier run did of a shard, if it did all of it."""
    if not part.is_file() or not _summary_of(part).is_file():
        return None
    told = json.loads(_summary_of(part).read_text(encoding="utf-8"))
    return Predictions([], [(name, reason) for name, reason in told["skipped"]], *told["numbers"])
