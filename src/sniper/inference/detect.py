"""Multi-scale inference: every image at every level, in batches, merged into one set of detections an image.

SNIPER (arXiv 1805.09300) section 4; ``docs/method.md``, "Inference".
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sniper.detectors.protocol import DetectionsWithFeatures, Detector, MaskDetector
from sniper.inference.accumulator import DetectionAccumulator, in_image
from sniper.inference.autofocus import CoarseToFine
from sniper.inference.batches import OnError, Reader, batches_of, groups_of
from sniper.inference.config import AutoFocusConfig, InferenceConfig
from sniper.inference.focus_source import FALLBACK_STRIDE, LookWithFocus, focus_source
from sniper.inference.images import ImageDetections, ImageInput
from sniper.inference.merge import drop_cut, own_of_chip
from sniper.inference.trace import OnTrace, TraceRecorder
from sniper.inference.windows import WindowTask, cut_by_border
from sniper.nn.folding import folded
from sniper.pyramid import Pyramid
from sniper.structures import Images

__all__ = ["ImageDetections", "ImageInput", "InferenceConfig", "OnWindowProgress", "detect_images"]

# Told the number of windows done and planned so far, of the images in hand.
OnWindowProgress = Callable[[int, int], None]
# Of the keys of a group of images and the windows of their full pyramids: those to look at.
Choose = Callable[[list[int], list[WindowTask]], list[WindowTask]]

_JITTER_PX = 4.0  # what a side of a box may differ between two chips that show the object, network px


def detect_images(
    detector: Detector,
    pictures: Iterable[ImageInput],
    pyramid: Pyramid,
    config: InferenceConfig,
    *,
    device: torch.device | str = "cpu",
    choose: Choose | None = None,
    on_trace: OnTrace | None = None,
    on_progress: OnWindowProgress | None = None,
    on_error: OnError | None = None,
) -> Iterator[ImageDetections]:
    """Detect in any number of images, ``config.images_in_flight`` at a time, in their order.

    The detector must be in evaluation mode and on ``device``. ``choose`` picks the windows to look at where there is
    no AutoFocus to do so; none: all. ``on_trace`` is told of each image what was looked at, before its detections come.
    ``on_progress`` is told how many windows of the images in hand are done, and of how many; with AutoFocus, these
    become more with each level. ``on_error`` is told of an image that turns out to be unreadable, which then has no
    result; none: the error is raised. Pictures that are not in memory are closed when those they are looked at with
    are done.

    Raises:
        DataError: an image that is read by windows cannot be read, and ``on_error`` is not given.
    """
    focused = config.focus is not None and not config.focus.looks_everywhere and len(pyramid.levels) > 1
    source = focus_source(detector) if focused else (None, FALLBACK_STRIDE)
    for group in groups_of(pictures, config.images_in_flight):
        try:
            yield from _detect_group(
                detector,
                source,
                Reader(group, on_error),
                pyramid,
                config,
                torch.device(device),
                choose,
                on_trace,
                on_progress,
            )
        finally:
            for picture in group:
                picture.close()


def _detect_group(
    detector: Detector,
    source: tuple[LookWithFocus | None, int],
    reader: Reader,
    pyramid: Pyramid,
    config: InferenceConfig,
    device: torch.device,
    choose: Choose | None,
    on_trace: OnTrace | None,
    on_progress: OnWindowProgress | None,
) -> Iterator[ImageDetections]:
    group = reader.group
    sizes_wh = [picture.size_wh for picture in group]
    masker = detector if isinstance(detector, MaskDetector) and detector.predicts_masks else None
    precision = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[config.precision]
    with_focus, stride = source
    plan = CoarseToFine(
        sizes_wh, pyramid, config.focus or AutoFocusConfig(),
        stride=stride, window_px=config.window_px, overlap=config.overlap,
    )  # fmt: skip
    found = DetectionAccumulator()
    everything = plan.everything if choose is None else lambda: choose([p.key for p in group], plan.everything())
    rounds = plan.rounds() if with_focus is not None else [everything()]
    record = None if on_trace is None else TraceRecorder(plan)
    with folded(detector) if isinstance(detector, nn.Module) else nullcontext():
        for batch, inputs in _planned(
            rounds if record is None else record.watching(rounds), reader, config, on_progress
        ):
            images = inputs.to(device, channels_last=True)
            with (
                torch.inference_mode(),
                torch.autocast(device.type, dtype=precision, enabled=config.precision != "fp32"),
            ):
                kept, focus = _looked_at(detector, masker, with_focus if batch[0].window.level > 0 else None, images)
            if focus is not None:
                plan.add(batch, focus.float().cpu().numpy())
            for row, (task, result) in enumerate(zip(batch, kept.detections, strict=True)):
                boxes = result.boxes.float().cpu().numpy()
                whole = _whole(boxes, task, sizes_wh[task.window.image])
                maps = kept.maps[row] if kept.maps and whole.any() else None
                found.add(
                    task.window,
                    boxes[whole],
                    result.scores.float().cpu().numpy()[whole],
                    result.labels.cpu().numpy()[whole],
                    maps,
                )
    if on_trace is not None and record is not None:
        for position, looked in enumerate(record.traces([picture.key for picture in group])):
            if position not in reader.failed:
                on_trace(looked)
    merged = found.merged(group, sizes_wh, pyramid, config.merge, plan.full_pixels.sum(axis=1))
    for position, (one, rows) in enumerate(merged):
        if position in reader.failed:
            continue
        if masker is None:
            yield one
        else:
            with torch.inference_mode():
                yield replace(one, masks=found.masks(masker, one, rows, device))


def _planned(
    rounds: Iterable[list[WindowTask]], reader: Reader, config: InferenceConfig, on_progress: OnWindowProgress | None
) -> Iterator[tuple[list[WindowTask], Images]]:
    """Batches of one round after the other, with their padded inputs."""
    done = planned = 0
    for tasks in rounds:
        planned += len(tasks)
        for batch, images in reader.read(batches_of(tasks, config.batch_pixels)):
            if on_progress:
                on_progress(done, planned)
            yield batch, images
            done += len(batch)
        if on_progress:
            on_progress(done, planned)


def _looked_at(
    detector: Detector, masker: MaskDetector | None, with_focus: LookWithFocus | None, images: Images
) -> tuple[DetectionsWithFeatures, torch.Tensor | None]:
    """Detections, what masks need, and (B, h, w) focus probabilities, as far as they are wanted."""
    if with_focus is None:
        return DetectionsWithFeatures(detector.detect(images), []) if masker is None else masker.detect_with_features(
            images
        ), None
    if masker is None:
        detections, focus = with_focus(images)
        return DetectionsWithFeatures(detections, []), focus
    kept = masker.detect_with_features(images)
    return kept, with_focus(images)[1] if kept.focus is None else kept.focus


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
