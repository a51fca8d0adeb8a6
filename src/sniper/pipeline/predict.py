"""Detect in images, folders and videos; write results as JSON and as pictures."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import nn

from sniper.data.run_lengths import RunLengths
from sniper.errors import DataError, RecipeError, StorageError
from sniper.files import replacing, write_text
from sniper.inference.detect import OnWindowProgress
from sniper.inference.images import ImageDetections, ImageInput
from sniper.pipeline.focus_pictures import FocusPictures
from sniper.pipeline.model import Model, load_model
from sniper.pipeline.sources import (
    BadImage,
    Skipped,
    Video,
    distinct_stems,
    expand,
    file_images,
    is_video,
    video_facts,
    video_images,
)
from sniper.pixels.georeference import GeoReference, feature_collection
from sniper.pixels.open import where_on_ground
from sniper.pixels.windowed import small_copy
from sniper.report.draw import draw_detections
from sniper.report.layout import save_picture
from sniper.report.masks import trace_masks

OnProgress = Callable[[int], None]
DRAWN_PX = 4096  # longest side of the drawing of an image that is read by windows


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was found in one image or video frame."""

    path: Path
    frame: int | None  # of a video, from 0
    boxes_xyxy: NDArray[np.float32]  # (N, 4) original px
    scores: NDArray[np.float32]  # (N,)
    labels: NDArray[np.int32]  # (N,)
    class_names: tuple[str, ...]
    masks: RunLengths | None = None  # (N,) of the image's size, from a detector that predicts them
    pixels_processed: int = 0  # padded input pixels that the network saw
    pixels_full: int = 0  # padded input pixels of the full pyramid
    geo: GeoReference | None = None  # of a geo-referenced image: the way from its pixels to the ground

    def geojson(self) -> dict[str, Any]:
        """Masks, or boxes where there are none, on the ground, as ``data.georeference.feature_collection`` gives them.

        Raises:
            DataError: the image does not say where it lies.
        """
        if self.geo is None:
            raise DataError(
                f"{self.path} does not say where it lies, so there is no GeoJSON of it; give a GeoTIFF, and install "
                "the extra geotiff"
            )
        names = [self.class_names[label] for label in self.labels]
        outlines = None if self.masks is None else trace_masks(self.masks, self.boxes_xyxy)
        return feature_collection(self.geo, self.boxes_xyxy, self.scores, names, outlines)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, boxes as ``x, y, width, height`` in original px, masks as COCO's compressed run lengths."""
        return {
            "file": str(self.path),
            **({} if self.frame is None else {"frame": self.frame}),
            "detections": [
                {
                    "class": self.class_names[label],
                    "score": round(float(score), 5),
                    "bbox": [round(float(v), 2) for v in (x1, y1, x2 - x1, y2 - y1)],
                    **({} if self.masks is None else {"segmentation": self.masks[row]}),
                }
                for row, ((x1, y1, x2, y2), score, label) in enumerate(
                    zip(self.boxes_xyxy, self.scores, self.labels, strict=True)
                )
            ],
        }


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions in the order of their files, and the files left out."""

    items: list[Prediction]
    skipped: list[tuple[str, str]]

    @property
    def pixel_share(self) -> float:
        """Canvas pixels that the network saw, of those of the full pyramids; below 1 where AutoFocus saved some."""
        full = sum(item.pixels_full for item in self.items)
        return sum(item.pixels_processed for item in self.items) / full if full else 1.0


def predict(
    checkpoint: Path | str | Model,
    sources: str | Path | Iterable[str | Path],
    *,
    output: Path | str | None = None,
    min_score: float = 0.05,
    draw_min_score: float = 0.3,
    draw: bool = True,
    draw_focus: bool = False,
    detector: nn.Module | None = None,
    device: str = "auto",
    on_bad_image: BadImage = "stop",
    on_progress: OnProgress | None = None,
    on_window_progress: OnWindowProgress | None = None,
) -> Predictions:
    """Detect in anything that can be looked at.

    Images of more than ``inference.whole_megapixels`` are read by windows and drawn smaller; geo-referenced ones have
    their detections in ``<stem>.geojson`` too. ``docs/method.md``, "Huge images".

    Args:
        checkpoint: weights file, run folder, or a model already loaded.
        sources: images, globs, folders and videos.
        output: folder for ``predictions.json``, GeoJSON and the drawn images or videos; none: no files.
        min_score: detections below it are left out of the result.
        draw_min_score: detections below it are left out of the pictures.
        draw: whether to draw detections.
        draw_focus: whether to draw where AutoFocus looked, as ``<stem>-focus.jpg`` (images only, into ``output``).
        detector: your own detector, for a checkpoint of it.
        device: ``auto``, ``cpu``, ``cuda:0``, ...
        on_bad_image: ``stop`` at an unreadable image or video, or ``skip`` and list it.
        tick: called with the number of images or frames done.
        on_window_progress: called with the windows done and planned so far, of the images that are looked at together.

    Raises:
        DataError: a source matches nothing, or cannot be read and ``on_bad_image`` is ``stop``.
        StorageError: ``output`` cannot be written, or a drawn image would replace one of the sources.
        RecipeError: ``draw_focus`` without ``output``, or without AutoFocus.
    """
    model = checkpoint if isinstance(checkpoint, Model) else load_model(checkpoint, detector=detector, device=device)
    paths = expand([sources] if isinstance(sources, str | Path) else sources)
    folder = Path(output) if output is not None else None
    stems = dict(zip(paths, distinct_stems(paths), strict=True))
    drawn = _drawn_files(stems, folder) if folder and draw else {}
    skipped = Skipped()
    items: list[Prediction] = []

    images = [path for path in paths if not is_video(path)]
    focus = _focus_pictures(model, stems, images, folder, drawn) if draw_focus else None
    held: dict[int, ImageInput] = {}  # found in, and not yet drawn

    def kept() -> Iterator[ImageInput]:
        whole = model.recipe.inference.whole_megapixels
        for picture in file_images(images, skipped, on_bad_image, whole_megapixels=whole):
            if drawn or focus:
                held[picture.key] = picture
            yield picture

    def on_error(key: int, error: DataError) -> None:
        held.pop(key, None)
        skipped.handle(str(images[key]), error, on_bad_image)

    on_trace = None if focus is None else focus.on_trace
    for one in model.detect_inputs(kept(), on_trace=on_trace, on_progress=on_window_progress, on_error=on_error):
        path = images[one.key]
        items.append(replace(_prediction(model, path, None, one, min_score), geo=where_on_ground(path)))
        if folder and items[-1].geo:
            write_text(folder / f"{stems[path]}.geojson", json.dumps(items[-1].geojson()))
        if one.key in held:
            pixels, scale = small_copy(held.pop(one.key).pixels, DRAWN_PX)
            if drawn:
                save_picture(drawn[path], _drawn(pixels, items[-1], draw_min_score, scale))
            if focus:
                focus.draw(one.key, pixels)
        if on_progress:
            on_progress(1)
    for path in filter(is_video, paths):
        try:
            facts = video_facts(path)
        except DataError as error:
            skipped.handle(str(path), error, on_bad_image)
        else:
            items.extend(_predict_video(model, facts, drawn.get(path), min_score, draw_min_score, on_progress))
    if folder:
        write_text(folder / "predictions.json", json.dumps([item.as_dict() for item in items], indent=1))
    return Predictions(items, skipped.files)


def _focus_pictures(
    model: Model, stems: dict[Path, str], images: list[Path], folder: Path | None, drawn: dict[Path, Path]
) -> FocusPictures:
    if folder is None:
        raise RecipeError("where AutoFocus looks is drawn into the output folder; give output")
    return FocusPictures(model, [stems[path] for path in images], folder, [*stems, *drawn.values()])


def _prediction(model: Model, path: Path, frame: int | None, one: ImageDetections, min_score: float) -> Prediction:
    kept = one.scores >= min_score
    masks = None if one.masks is None else one.masks.take(np.flatnonzero(kept))
    return Prediction(
        path,
        frame,
        one.boxes_xyxy[kept],
        one.scores[kept],
        one.labels[kept],
        model.class_names,
        masks,
        one.pixels_processed,
        one.pixels_full,
    )


def _drawn(pixels: NDArray[np.uint8], item: Prediction, min_score: float, scale: float = 1.0) -> NDArray[np.uint8]:
    return draw_detections(
        pixels, item.boxes_xyxy, item.scores, item.labels, item.class_names,
        min_score=min_score, masks=item.masks, scale=scale,
    )  # fmt: skip


def _drawn_files(stems: dict[Path, str], folder: Path) -> dict[Path, Path]:
    """Where each image and video is drawn; never onto one of them."""
    files = {path: folder / f"{stem}{'.mp4' if is_video(path) else '.jpg'}" for path, stem in stems.items()}
    sources = {path.resolve() for path in stems}
    for path, file in files.items():
        if file.resolve() in sources:
            raise StorageError(
                f"the drawing of {path} would replace the source {file}; choose another folder, or do not draw"
            )
    return files


def _predict_video(
    model: Model,
    video: Video,
    output: Path | None,
    min_score: float,
    draw_min_score: float,
    on_progress: OnProgress | None,
) -> list[Prediction]:
    """Every frame of a video; drawn into the file ``output``, if any."""
    frames: dict[int, NDArray[np.uint8]] = {}  # read, and not yet drawn

    def kept() -> Iterable[ImageInput]:
        for picture in video_images(video):
            if output and isinstance(picture.pixels, np.ndarray):
                frames[picture.key] = picture.pixels
            yield picture

    def found() -> Iterator[Prediction]:
        for one in model.detect_inputs(kept()):
            yield _prediction(model, video.path, one.key, one, min_score)
            if on_progress:
                on_progress(1)

    if output is None:
        return list(found())
    items = []
    with replacing(output) as partial:
        # OpenCV chooses the container by the suffix, which the temporary name does not have.
        written = partial.with_suffix(output.suffix)
        writer = cv2.VideoWriter(str(written), cv2.VideoWriter.fourcc(*"mp4v"), video.fps, video.size_wh)
        try:
            if not writer.isOpened():
                raise StorageError(f"cannot write {output}: OpenCV has no MPEG-4 writer here, or the disk is full")
            for number, item in enumerate(found()):
                drawn = _drawn(frames.pop(number), item, draw_min_score)
                writer.write(np.ascontiguousarray(drawn[:, :, ::-1]))
                items.append(item)
            writer.release()
            written.replace(partial)
        finally:
            writer.release()
            written.unlink(missing_ok=True)
    return items
