"""Detect in images, folders and videos; write results as JSON, GeoJSON and pictures."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sniper.errors import RecipeError, StorageError
from sniper.evaluation.best_f1 import DEFAULT_SCORE
from sniper.pipeline.focus_pictures import focus_files
from sniper.pipeline.keys import predictions_key
from sniper.pipeline.model import Model
from sniper.pipeline.predict_shard import OutputFiles, PredictJob
from sniper.pipeline.prediction import Prediction, Predictions
from sniper.pipeline.shards import Parts, is_main, make_shards, opened, split
from sniper.pipeline.source_files import distinct_stems, expand, is_video
from sniper.pipeline.sources import BadImage, Skipped
from sniper.pipeline.value_range import with_value_range
from sniper.pipeline.watch import OnProgress, OnWindowProgress, Watch, source_of
from sniper.writers.coco_json import join_predictions

logger = logging.getLogger("sniper")

if TYPE_CHECKING:
    from torch import nn

PREDICTIONS = "predictions.json"
MIN_SCORE = 0.05  # of what is in the result, if nothing else is said
ALONE_BYTES = 32_000_000  # a larger file is a shard of its own: its windows are batches enough

Sources = str | Path | Iterable[str | Path]


def predict(
    checkpoint: Path | str | Model,
    sources: Sources,
    *,
    output: Path | str | None = None,
    keep: bool = True,
    min_score: float | None = None,
    draw_min_score: float | None = None,
    draw: bool = True,
    draw_focus: bool = False,
    blur: bool = False,
    focus_threshold: float | None = None,
    pixel_budget: float | None = None,
    processes: int = 1,
    by_ranks: bool = False,
    detector: "nn.Module | None" = None,
    device: str = "auto",
    form: Path | str | None = None,
    overrides: Iterable[str] = (),
    classes: Path | str | None = None,
    on_bad_image: BadImage = "stop",
    on_progress: OnProgress | None = None,
    on_window_progress: OnWindowProgress | None = None,
) -> Predictions:
    """Detect in images of any size, folders and videos.

    Images of more than ``inference.whole_megapixels`` are read by windows and drawn smaller; geo-referenced ones have
    their detections in ``<stem>.geojson`` too. ``docs/method.md``, "Huge images". What is written is written while it
    is found. With ``output`` and without ``keep`` memory does not grow with the number of images and frames, and a
    prediction that was stopped or killed goes on where it was.

    Args:
        checkpoint: weights file, run folder, ONNX file, or a model already loaded.
        sources: images, globs, folders and videos.
        output: folder for ``predictions.json``, GeoJSON and the drawn images or videos; none: no files.
        keep: whether to return the items; without, there are their numbers alone. ``predict_stream`` gives one after
            the other.
        min_score: detections below it are left out of the result; none: 0.05.
        draw_min_score: detections below it are left out of the pictures; none: ``min_score`` if that is given, else the
            score of each class with the best F1 on the evaluation data of the training. A checkpoint that was not
            evaluated knows none: 0.3.
        draw: whether to draw detections.
        draw_focus: whether to draw focus maps and chips, as ``<stem>-focus.jpg`` (images only, into ``output``).
        blur: make detections unrecognisable in the pictures instead of drawing them: faces, number plates. Nothing else
            is written on them, and what a file says beside its pixels (place, camera, a small copy) is left out.
        focus_threshold: AutoFocus: run finer levels only where a small object is at least this likely; 0: everywhere;
            none: as the recipe says.
        pixel_budget: AutoFocus: bound on the pixels, as a share of the full pyramid; none: as the recipe says.
        processes: work at the same time, each with its own copy of the model; several GPUs are dealt out. The result
            is the same (``pipeline.shards``). A video is one process' work. A script that asks for several must guard
            its own start by ``if __name__ == "__main__":``, as they import it.
        by_ranks: share the files with the other processes of this launch (torchrun, accelerate), all of which must
            call this; the main one joins what they have written.
        detector: your own detector, for a checkpoint of it, in one process.
        device: ``auto``, ``cpu``, ``cuda:0``, ...
        form: for an ONNX file from elsewhere, as for ``load_model``.
        overrides: ``a.b=c`` settings on top of the checkpoint's, such as ``inference.merge.max_per_image=2000``.
        classes: a file of ``learn_classes``: its classes in place of those of the checkpoint.
        on_bad_image: ``stop`` at an unreadable image or video, or ``skip`` and list it.
        on_progress: called with the number of images or frames done.
        on_window_progress: called with the windows done and planned so far, of the images that are batched together.

    Raises:
        DataError: a source matches nothing, or cannot be read and ``on_bad_image`` is ``stop``.
        StorageError: ``output`` cannot be written, or a drawn image would replace one of the sources.
        RecipeError: ``draw_focus`` without ``output``, or without AutoFocus; ``blur`` with it or without ``draw``.
    """
    if blur and (draw_focus or not draw):
        reason = "focus maps show the image as it is" if draw_focus else "without drawings there is nothing to blur"
        raise RecipeError(f"--blur with {'--draw-focus' if draw_focus else '--no-draw'}: {reason}; leave one out")
    model = opened(checkpoint, detector, device, by_ranks=by_ranks, form=form, overrides=overrides, classes=classes)
    model = model.focused(focus_threshold, pixel_budget)
    source = source_of(model) if processes > 1 else None
    paths = _paths(sources)
    model = _for_files(model, paths)
    job = _job(model, paths, MIN_SCORE if min_score is None else min_score, on_bad_image)._replace(keep=keep)
    if draw_focus and output is None:
        raise RecipeError("focus maps are drawn into the output folder; give output")
    if output is not None:
        stems = dict(zip(paths, distinct_stems(paths), strict=True))
        draw_from = _draw_scores(model, min_score, draw_min_score)
        files = _output_files(model, job, stems, Path(output), _Pictures(draw, draw_focus, blur, draw_from))
        job = job._replace(files=files)
    numbers = range(len(job.shards))
    watch = Watch(on_progress, on_window_progress)
    made = make_shards(job, numbers, model.backend, watch, processes=processes, source=source, by_ranks=by_ranks)
    with closing(made):
        done = Predictions.join(list(made))
    if done.cut_images:
        _tell_cut(done.cut_images, model.recipe.inference.merge.max_per_image, max(job.min_score, DEFAULT_SCORE))
    if output is not None and job.files is not None and (not by_ranks or is_main()):
        parts = job.files.parts
        join_predictions(Path(output) / PREDICTIONS, [parts.path(number, ".json") for number in numbers])
        parts.remove()
    return done


def predict_stream(
    checkpoint: Path | str | Model,
    sources: Sources,
    *,
    min_score: float = MIN_SCORE,
    detector: "nn.Module | None" = None,
    device: str = "auto",
    classes: Path | str | None = None,
    on_bad_image: BadImage = "stop",
    on_progress: OnProgress | None = None,
    on_window_progress: OnWindowProgress | None = None,
) -> Iterator[Prediction]:
    """What ``predict`` finds, one image or frame after the other, none of which is kept: images, then videos.

    Arguments and errors are those of ``predict``. A file that is skipped is told in the log.
    """
    model = opened(checkpoint, detector, device, classes=classes)
    paths = _paths(sources)
    job = _job(_for_files(model, paths), paths, min_score, on_bad_image)
    watch = Watch(on_progress, on_window_progress)
    for number in range(len(job.shards)):
        yield from job.predictions(number, model.backend, watch, Skipped())


def _tell_cut(images: int, bound: int | None, score: float) -> None:
    logger.warning(
        "%d images hold more than is kept of one: inference.merge.max_per_image=%s cut off detections with scores from "
        "%g on",
        images,
        bound,
        score,
    )


def _for_files(model: Model, paths: list[Path]) -> Model:
    """The model with the value range of these files, where it was trained on none of 16 bit."""
    images = [path for path in paths if not is_video(path)]
    return replace(model, recipe=with_value_range(model.recipe, images))


def _paths(sources: Sources) -> list[Path]:
    return expand([sources] if isinstance(sources, str | Path) else sources)


def _job(model: Model, found: list[Path], min_score: float, on_bad_image: BadImage) -> PredictJob:
    images = [path for path in found if not is_video(path)]
    large = [_stamp(path).size > ALONE_BYTES for path in images]
    shards = split(len(images), model.recipe.inference.images_in_flight, alone=large)
    shards += [range(row, row + 1) for row in range(len(images), len(found))]
    paths = images + [path for path in found if is_video(path)]
    inference = model.recipe.inference
    return PredictJob(
        paths,
        shards,
        model.class_names,
        model.pyramid,
        inference,
        min_score,
        on_bad_image,
        sample_map=model.recipe.data.sample_map,
    )


def _draw_scores(model: Model, min_score: float | None, draw_min_score: float | None) -> float | tuple[float, ...]:
    """From which score on detections are drawn, or (C,) from which of each class."""
    if draw_min_score is not None:
        return draw_min_score
    if not model.draw_scores:
        return DEFAULT_SCORE
    return model.draw_scores if min_score is None else min_score


class _Stamp(NamedTuple):
    """What tells a file from its former content."""

    size: int
    time_ns: int


def _stamp(path: Path) -> _Stamp:
    """Zeros where there is no such file, such as behind a dangling link: opening it tells so."""
    try:
        found = path.stat()
    except OSError:
        return _Stamp(0, 0)
    return _Stamp(found.st_size, found.st_mtime_ns)


class _Pictures(NamedTuple):
    """Which pictures are wanted, and what is on them."""

    draw: bool
    draw_focus: bool
    blur: bool
    draw_scores: float | tuple[float, ...]


def _output_files(
    model: Model,
    job: PredictJob,
    stems: dict[Path, str],
    folder: Path,
    pictures: "_Pictures",
) -> OutputFiles:
    """What is written where; nothing replaces a source."""
    images = {path: stem for path, stem in stems.items() if not is_video(path)}
    drawn = _drawn_files(stems, folder) if pictures.draw else {}
    focus = focus_files(model, images, folder, [*stems, *drawn.values()]) if pictures.draw_focus else {}
    resume = len(job.shards) > 1  # else there is nothing to go on from
    name = _key(model, job, list(pictures))[:16] if resume else "whole"
    ground = {path: folder / f"{stem}.geojson" for path, stem in images.items()}
    parts = Parts.beside(folder / PREDICTIONS, name)
    return OutputFiles(parts, ground, drawn, focus, pictures.draw_scores, pictures.blur, resume)


def _key(model: Model, job: PredictJob, drawing: list[Any]) -> str:
    """Of everything that can change what is written."""
    settings: dict[str, Any] = {
        "files": [(str(path.resolve()), *_stamp(path)) for path in job.paths],
        "names": [str(path) for path in job.paths],
        "classes": model.class_names,
        "min_score": job.min_score,
        "on_bad_image": job.on_bad_image,
        "drawing": drawing,
    }
    return predictions_key(model.recipe, model.digest(), settings)


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
