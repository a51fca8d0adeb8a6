"""Extract class-free proposals from a dataset: in shards, over several processes, resumable."""

import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from sniper.data.detection_files import join_detections, load_detections, read_details, save_detections
from sniper.data.table import AnnotationTable, DetectionTable
from sniper.errors import DataError, RecipeError
from sniper.inference.config import ProposeConfig
from sniper.inference.proposing import propose_images
from sniper.pipeline.evaluate import table_for
from sniper.pipeline.keys import proposals_key
from sniper.pipeline.model import Model, load_model
from sniper.pipeline.sources import BadImage, Skipped, table_images
from sniper.pyramid import Pyramid
from sniper.recipe import Recipe

SHARD_IMAGES = 200  # images of a part: what a killed extraction does again at most, in each process

OnProgress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Proposed:
    """Proposals of a dataset, as a file."""

    path: Path
    detections: DetectionTable
    reused: bool  # the file was there already, made by the same weights from the same data
    skipped: list[tuple[str, str]]  # files that could not be read, with the reason


class Extraction(NamedTuple):
    """All that decides what proposals come out, and where they go."""

    table: AnnotationTable
    pyramid: Pyramid
    recipe: Recipe  # how images are looked at
    config: ProposeConfig
    output: Path
    key: str  # of data, weights and settings
    on_bad_image: BadImage
    shard_images: int
    seed: int  # of the windows, where not all are looked at


def propose(
    checkpoint: Path | str | Model,
    data: Path | str | AnnotationTable,
    output: Path | str,
    *,
    split: str | None = None,
    config: ProposeConfig | None = None,
    processes: int = 1,
    detector: nn.Module | None = None,
    device: str = "auto",
    on_bad_image: BadImage = "stop",
    on_progress: OnProgress | None = None,
) -> Proposed:
    """Write class-free proposals of all images, over all levels, as a detection table (safetensors).

    Extraction goes in parts beside ``output``; one that was stopped or killed goes on where it was, and a file of the
    same weights, data and settings is left as it is.

    Args:
        checkpoint: weights file, run folder, or a model already loaded.
        data: dataset by path (its form is found), or a table.
        output: file to write, ``.safetensors``.
        split: split of the dataset, where it holds several.
        config: NMS, number and score of proposals; none: the recipe's ``negatives.extraction``.
        processes: work on parts at the same time, each with its own copy of the model; several GPUs are dealt out.
        detector: your own detector, for a checkpoint of it, in one process.
        device: ``auto``, ``cpu``, ``cuda:0``, ...
        on_bad_image: ``stop`` at an unreadable image, or ``skip`` and list it.
        tick: called with the number of images done, for progress.

    Raises:
        CheckpointError, DataError, RecipeError, StorageError: what cannot be used.
    """
    if processes > 1 and (detector is not None or isinstance(checkpoint, Model)):
        raise RecipeError("several processes need a checkpoint that each can load; give its path, or one process")
    model = checkpoint if isinstance(checkpoint, Model) else load_model(checkpoint, detector=detector, device=device)
    table = table_for(model.class_names, data, split, on_bad_image=on_bad_image)
    config = config or model.recipe.negatives.extraction
    job = extraction(model.detector, table, model.pyramid, model.recipe, config, output, on_bad_image=on_bad_image)
    if is_done(job):
        if on_progress:
            on_progress(len(table))
        return finish(job, reused=True)
    if processes == 1:
        extract(job, model.detector, device=model.device, on_progress=on_progress)
    else:
        assert not isinstance(checkpoint, Model)
        del model
        _extract_together(job._replace(table=table.share()), Path(checkpoint), device, processes, on_progress)
    return finish(job)


def extraction(
    detector: nn.Module,
    table: AnnotationTable,
    pyramid: Pyramid,
    recipe: Recipe,
    config: ProposeConfig,
    output: Path | str,
    *,
    on_bad_image: BadImage = "stop",
    seed: int = 0,
) -> Extraction:
    """An extraction with the key that says whether a file is its result."""
    drawn = {"seed": seed} if config.window_share < 1 else {}
    settings = {"extraction": config.model_dump(mode="json"), "on_bad_image": on_bad_image, **drawn}
    key = proposals_key(recipe, table, detector, settings | {"pyramid": pyramid.model_dump(mode="json")})
    return Extraction(table, pyramid, recipe, config, Path(output), key, on_bad_image, SHARD_IMAGES, seed)


def is_done(job: Extraction) -> bool:
    """Whether the output is there and is this extraction's."""
    return (read_details(job.output) or {}).get("key") == job.key


def extract(
    job: Extraction,
    detector: nn.Module,
    *,
    device: torch.device | str,
    share: tuple[int, int] = (0, 1),
    on_progress: OnProgress | None = None,
) -> None:
    """Make the parts that are missing, of every ``share[1]``-th shard from ``share[0]`` on; ``finish`` joins them.

    The detector looks in evaluation mode and is left in the mode it was in.
    """
    training = detector.training
    detector.eval()
    try:
        for number in range(share[0], _shards(job), share[1]):
            done = _make_part(job, detector, number, device)
            if on_progress:
                on_progress(done)
    finally:
        detector.train(training)


def finish(job: Extraction, *, reused: bool = False) -> Proposed:
    """Join the parts to the output, or read it if it is there.

    Raises:
        DataError: no image could be read.
    """
    if not is_done(job):
        paths = [_part(job, number) for number in range(_shards(job))]
        found = join_detections([load_detections(path) for path in paths])
        skipped = [entry for path in paths for entry in (read_details(path) or {})["skipped"]]
        if len(job.table) and not len(found):
            raise DataError(f"none of {len(job.table)} images can be read; the first: {skipped[0][1]}")
        save_detections(job.output, found, {"key": job.key, "count": found.num_objects, "skipped": skipped})
    shutil.rmtree(_parts(job), ignore_errors=True)
    details = read_details(job.output) or {}
    return Proposed(job.output, load_detections(job.output), reused, [tuple(entry) for entry in details["skipped"]])


def _shards(job: Extraction) -> int:
    return max(1, -(-len(job.table) // job.shard_images))


def _parts(job: Extraction) -> Path:
    return job.output.with_name(job.output.name + ".parts")


def _part(job: Extraction, number: int) -> Path:
    return _parts(job) / f"{job.key[:16]}-{job.shard_images}-{number:06d}.safetensors"


def _make_part(job: Extraction, detector: nn.Module, number: int, device: torch.device | str) -> int:
    """Make one part unless it is there; the number of its images."""
    rows = np.arange(number * job.shard_images, min((number + 1) * job.shard_images, len(job.table)))
    path = _part(job, number)
    if (read_details(path) or {}).get("key") == job.key:
        return len(rows)
    images, skipped = job.table.select(rows), Skipped()
    whole = job.recipe.inference.whole_megapixels
    pictures = table_images(images, skipped, job.on_bad_image, whole_megapixels=whole)
    with torch.compiler.set_stance("force_eager"):  # images of many shapes
        found = list(
            propose_images(
                detector,  # type: ignore[arg-type]
                pictures,
                job.pyramid,
                job.recipe.inference,
                job.config,
                device=device,
                seed=job.seed + number,
                on_error=lambda row, error: skipped.handle(str(images.image_path(row)), error, job.on_bad_image),
            )
        )
    counts = [len(one.scores) for one in found]
    columns = DetectionTable.from_arrays(
        image_row=np.repeat(np.arange(len(found)), counts),
        boxes_xyxy=np.concatenate([np.zeros((0, 4), np.float32), *(one.boxes_xyxy for one in found)]),
        scores=np.concatenate([np.zeros(0, np.float32), *(one.scores for one in found)]),
        labels=np.zeros(sum(counts), np.int32),
        levels=np.concatenate([np.zeros(0, np.int16), *(one.levels for one in found)]),
        image_ids=images.image_ids[[one.key for one in found]],
    )
    save_detections(path, columns, {"key": job.key, "skipped": skipped.files})
    return len(rows)


def _extract_together(
    job: Extraction, checkpoint: Path, device: str, processes: int, on_progress: OnProgress | None
) -> None:
    missing = range(_shards(job))
    context = multiprocessing.get_context("spawn")
    with (
        _threads_each(processes),
        ProcessPoolExecutor(
            min(processes, len(missing)), context, _begin, (job, checkpoint, device, context.Value("i", 0), processes)
        ) as pool,
    ):
        running = [pool.submit(_work, number) for number in missing]
        try:
            for one in as_completed(running):
                done = one.result()
                if on_progress:
                    on_progress(done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _threads_each(processes: int) -> Iterator[None]:
    """Processes that start inside share the cores among them; what is set already stays."""
    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // processes))
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]


_worker: dict[str, object] = {}  # a worker process' job and detector


def _begin(job: Extraction, checkpoint: Path, device: str, started: object, processes: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process' affair
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with started.get_lock():  # type: ignore[attr-defined]
        number = started.value  # type: ignore[attr-defined]
        started.value += 1  # type: ignore[attr-defined]
    gpus = torch.cuda.device_count()
    place = f"cuda:{number % gpus}" if device in ("auto", "cuda") and gpus > 1 else device
    model = load_model(checkpoint, device=place)
    _worker.update(job=job, detector=model.detector, device=model.device)


def _work(number: int) -> int:
    return _make_part(_worker["job"], _worker["detector"], number, _worker["device"])  # type: ignore[arg-type]


def _end_with_parent() -> None:
    """A killed main process must not leave workers behind that wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
