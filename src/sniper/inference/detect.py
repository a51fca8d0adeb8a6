"""Multi-scale inference: every image at every level, in batches, merged into one set of detections an image.

SNIPER (arXiv 1805.09300) section 4; ``docs/method.md``, "Inference".
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sniper.inference.accumulator import DetectionAccumulator, in_image
from sniper.inference.autofocus import CoarseToFine
from sniper.inference.backend import Backend, Want
from sniper.inference.batches import OnError, PaddedInputs, Reader, batches_of, groups_of
from sniper.inference.config import AutoFocusConfig, InferenceConfig
from sniper.inference.focus_source import FALLBACK_STRIDE, focus_of, focus_stride_of
from sniper.inference.images import ImageDetections, ImageInput
from sniper.inference.merge import drop_cut, own_of_chip
from sniper.inference.trace import OnTrace, TraceRecorder
from sniper.inference.windows import WindowTask, cut_by_border
from sniper.pyramid import Pyramid

# Told the number of windows done and planned so far, of the images in hand.
OnWindowProgress = Callable[[int, int], None]
# Of the keys of a group of images and the windows of their full pyramids: those to run.
Choose = Callable[[list[int], list[WindowTask]], list[WindowTask]]

_JITTER_PX = 4.0  # what a side of a box may differ between two chips that show the object, network px


def detect_images(
    backend: Backend,
    images: Iterable[ImageInput],
    pyramid: Pyramid,
    config: InferenceConfig,
    *,
    regions: Literal["detections", "proposals"] = "detections",
    class_free: bool = False,
    min_score: float = 0.0,
    choose: Choose | None = None,
    on_trace: OnTrace | None = None,
    on_progress: OnWindowProgress | None = None,
    on_error: OnError | None = None,
) -> Iterator[ImageDetections]:
    """Detect in any number of images, ``config.images_in_flight`` at a time, in their order.

    Re-entrant: several threads may call it with one backend. Images that are not in memory are closed when those they
    were batched with are done.

    Args:
        backend: the network.
        images: what to detect in, read as they are needed.
        pyramid: levels, and the sizes kept at each.
        config: windows, batches, AutoFocus and merging; its ``precision`` is the backend's affair.
        regions: finished detections, or proposals (detections where a backend cannot propose).
        class_free: boxes of all classes compete together and have label 0, as proposals should.
        min_score: boxes that the network scores lower are dropped before they are merged.
        choose: picks the windows to run where there is no AutoFocus to do so; none: all.
        on_trace: told of each image what was run at which level, before its detections come.
        on_progress: told how many windows of the images in hand are done, and of how many; with AutoFocus, these
            become more with each level.
        on_error: told of an image that turns out to be unreadable, which then has no result; none: the error is raised.

    Raises:
        DataError: an image that is read by windows cannot be read, and ``on_error`` is not given.
    """
    focused = config.focus is not None and not config.focus.looks_everywhere and len(pyramid.levels) > 1
    run = _Run(
        backend,
        pyramid,
        config,
        Want(regions=regions, focus=focused and backend.focus_stride is not None, features=backend.predicts_masks),
        focused,
        focus_stride_of(backend) if focused else FALLBACK_STRIDE,
        pyramid.infer_ranges_px(),
        class_free,
        min_score,
        choose,
        on_trace,
        on_progress,
    )
    for group in groups_of(images, config.images_in_flight):
        try:
            yield from _detect_group(run, Reader(group, on_error))
        finally:
            for image in group:
                image.close()


@dataclass(frozen=True, slots=True)
class _Run:
    """What is the same for all groups of images."""

    backend: Backend
    pyramid: Pyramid
    config: InferenceConfig
    want: Want
    focused: bool
    stride: int  # of focus maps
    ranges_px: NDArray[np.float64]  # (L, 2) sizes that each level keeps, original px
    class_free: bool
    min_score: float
    choose: Choose | None
    on_trace: OnTrace | None
    on_progress: OnWindowProgress | None

    def rounds(self, plan: CoarseToFine, keys: list[int]) -> Iterable[list[WindowTask]]:
        """The windows to run, coarsest level first where each level depends on the one before."""
        if self.focused:
            return plan.rounds()
        everything = plan.everything()
        return [everything if self.choose is None else self.choose(keys, everything)]


def _detect_group(run: _Run, reader: Reader) -> Iterator[ImageDetections]:
    group = reader.group
    keys, sizes_wh = [image.key for image in group], [image.size_wh for image in group]
    plan = CoarseToFine(
        sizes_wh, run.pyramid, run.config.focus or AutoFocusConfig(),
        stride=run.stride, window_px=run.config.window_px, overlap=run.config.overlap,
        learned=run.backend.focus_source == "branch",
    )  # fmt: skip
    found = DetectionAccumulator()
    recorder = TraceRecorder(plan) if run.on_trace is not None else None
    rounds = run.rounds(plan, keys)
    for batch, inputs in _batches(rounds if recorder is None else recorder.watching(rounds), reader, run):
        _run_batch(run, plan, found, batch, inputs, sizes_wh)
    if recorder is not None and run.on_trace is not None:
        for position, trace in enumerate(recorder.traces(keys)):
            if position not in reader.failed:
                run.on_trace(trace)
    merged = found.merged(group, sizes_wh, run.pyramid, run.config.merge, plan.full_pixels.sum(axis=1))
    for position, (one, rows) in enumerate(merged):
        if position not in reader.failed:
            yield replace(one, masks=found.masks(run.backend, one, rows)) if run.want.features else one


def _batches(
    rounds: Iterable[list[WindowTask]], reader: Reader, run: _Run
) -> Iterator[tuple[list[WindowTask], PaddedInputs]]:
    """Batches of one round after the other, with their padded inputs."""
    done = planned = 0
    for tasks in rounds:
        planned += len(tasks)
        for batch, inputs in reader.read(batches_of(tasks, run.config.batch_pixels)):
            if run.on_progress:
                run.on_progress(done, planned)
            yield batch, inputs
            done += len(batch)
        if run.on_progress:
            run.on_progress(done, planned)


def _run_batch(
    run: _Run,
    plan: CoarseToFine,
    found: DetectionAccumulator,
    batch: list[WindowTask],
    inputs: PaddedInputs,
    sizes_wh: list[tuple[int, int]],
) -> None:
    """Run the network on one batch, and note its detections and focus maps."""
    finer = batch[0].window.level > 0  # a focused batch is of one level; nothing is finer than level 0
    want = run.want._replace(focus=run.want.focus and finer, kept_px=_kept_px(run, batch))
    looked = run.backend.look(*inputs, want)
    if run.focused and finer:
        plan.add(batch, focus_of(looked, (inputs.pixels.shape[1], inputs.pixels.shape[2])))
    for row, task in enumerate(batch):
        own = looked.rows(row)
        boxes, scores, labels = looked.boxes[own], looked.scores[own], looked.labels[own]
        too_low = scores < run.min_score  # not so where a score is not a number: merging tells of it
        kept = _whole(boxes, task, sizes_wh[task.window.image]) & ~too_low
        features = looked.features[row] if looked.features is not None and kept.any() else None
        if run.class_free:
            labels = np.zeros_like(labels)
        found.add(task.window, boxes[kept], scores[kept], labels[kept], features)


def _kept_px(run: _Run, batch: list[WindowTask]) -> tuple[tuple[float, float], ...] | None:
    """The sizes that merging will keep of each window, network px; None: all."""
    ranges = run.ranges_px[[task.window.level for task in batch]]
    if run.want.regions != "detections" or ((ranges[:, 0] <= 0) & np.isinf(ranges[:, 1])).all():
        return None
    scaled = ranges * np.asarray([[task.window.scale] for task in batch])
    return tuple((low, high) for low, high in scaled.tolist())


def _whole(boxes: NDArray, task: WindowTask, size_wh: tuple[int, int]) -> NDArray[np.bool_]:
    """(N,) boxes (network px of the window) that no border has cut, as far as one can tell."""
    whole = ~cut_by_border(boxes, task.window, size_wh, overlap_px=task.overlap_px)
    if task.chip_xyxy is not None:
        boxes, chip = in_image(boxes, task.window), np.asarray(task.chip_xyxy)
        whole &= drop_cut(boxes, chip, size_wh, task.margin_px)
        if task.rivals_xyxy:
            tolerance_px = _JITTER_PX / task.window.scale
            whole &= own_of_chip(boxes, chip, np.asarray(task.rivals_xyxy), size_wh, tolerance_px)
    return whole
