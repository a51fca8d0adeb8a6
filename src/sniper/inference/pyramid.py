"""Multi-scale inference: every image at every level, in batches, merged into one set of detections an image.

SNIPER (arXiv 1805.09300) section 4; ``docs/method.md``, "Inference".
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from sniper.config import Config
from sniper.detectors.protocol import Detector, Kept, MaskDetector
from sniper.inference.autofocus import AutoFocusConfig, CoarseToFine
from sniper.inference.focus_source import FALLBACK_STRIDE, LookWithFocus, focus_source
from sniper.inference.found import Found, in_image
from sniper.inference.looked_at import Record, Watch
from sniper.inference.merge import MergeConfig, drop_cut, own_of_chip
from sniper.inference.pictures import Picture, PictureDetections
from sniper.inference.reading import Lost, Reader, batches_of, groups_of
from sniper.inference.windows import Look, cut_by_border
from sniper.nn.folding import folded
from sniper.scales import Pyramid
from sniper.structures import Images

__all__ = ["InferenceConfig", "Picture", "PictureDetections", "WindowTick", "detect_images"]

# Told the number of windows done and planned so far, of the images in hand.
WindowTick = Callable[[int, int], None]
# Of the keys of a group of images and the windows of their full pyramids: those to look at.
Choose = Callable[[list[int], list[Look]], list[Look]]

_JITTER_PX = 4.0  # what a side of a box may differ between two chips that show the object, network px


class InferenceConfig(Config):
    """How images are looked at and their detections merged."""

    window_px: int = Field(1536, ge=128, description="zoomed images with a longer side are seen in windows, network px")
    overlap: float = Field(
        0.2, ge=0, lt=0.9, description="least share of a window that neighbouring windows have in common"
    )
    batch_pixels: int = Field(4 * 1024 * 1024, gt=0, description="canvas pixels in one batch; one canvas always fits")
    images_in_flight: int = Field(8, ge=1, description="images batched together; fewer where they are large")
    whole_megapixels: float = Field(64, ge=0, description="image files with more are read by windows")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="arithmetic of the network")
    merge: MergeConfig = Field(MergeConfig(), description="range filter, NMS and cap")
    focus: AutoFocusConfig | None = Field(
        None, description="look closer only where small objects may be; null: everywhere"
    )


def detect_images(
    detector: Detector,
    pictures: Iterable[Picture],
    pyramid: Pyramid,
    config: InferenceConfig,
    *,
    device: torch.device | str = "cpu",
    choose: Choose | None = None,
    watch: Watch | None = None,
    tick: WindowTick | None = None,
    lost: Lost | None = None,
) -> Iterator[PictureDetections]:
    """Detect in any number of images, ``config.images_in_flight`` at a time, in their order.

    The detector must be in evaluation mode and on ``device``. ``choose`` picks the windows to look at where there is
    no AutoFocus to do so; none: all. ``watch`` is told of each image what was looked at, before its detections come.
    ``tick`` is told how many windows of the images in hand are done, and of how many; with AutoFocus, these become more
    with each level. ``lost`` is told of an image that turns out to be unreadable, which then has no result; none: the
    error is raised. Pictures that are not in memory are closed when those they are looked at with are done.

    Raises:
        DataError: an image that is read by windows cannot be read, and ``lost`` is not given.
    """
    focused = config.focus is not None and not config.focus.looks_everywhere and len(pyramid.levels) > 1
    source = focus_source(detector) if focused else (None, FALLBACK_STRIDE)
    for group in groups_of(pictures, config.images_in_flight):
        try:
            yield from _detect_group(
                detector, source, Reader(group, lost), pyramid, config, torch.device(device), choose, watch, tick
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
    watch: Watch | None,
    tick: WindowTick | None,
) -> Iterator[PictureDetections]:
    group = reader.group
    sizes_wh = [picture.size_wh for picture in group]
    masker = detector if isinstance(detector, MaskDetector) and detector.predicts_masks else None
    precision = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[config.precision]
    with_focus, stride = source
    plan = CoarseToFine(
        sizes_wh, pyramid, config.focus or AutoFocusConfig(),
        stride=stride, window_px=config.window_px, overlap=config.overlap,
    )  # fmt: skip
    found = Found()
    everything = plan.everything if choose is None else lambda: choose([p.key for p in group], plan.everything())
    rounds = plan.rounds() if with_focus is not None else [everything()]
    record = None if watch is None else Record(plan)
    with folded(detector) if isinstance(detector, nn.Module) else nullcontext():
        for batch, canvases in _planned(rounds if record is None else record.watching(rounds), reader, config, tick):
            images = canvases.to(device, channels_last=True)
            with (
                torch.inference_mode(),
                torch.autocast(device.type, dtype=precision, enabled=config.precision != "fp32"),
            ):
                kept, focus = _looked_at(detector, masker, with_focus if batch[0].window.level > 0 else None, images)
            if focus is not None:
                plan.add(batch, focus.float().cpu().numpy())
            for row, (look, result) in enumerate(zip(batch, kept.detections, strict=True)):
                boxes = result.boxes.float().cpu().numpy()
                whole = _whole(boxes, look, sizes_wh[look.window.image])
                maps = kept.maps[row] if kept.maps and whole.any() else None
                found.add(
                    look.window,
                    boxes[whole],
                    result.scores.float().cpu().numpy()[whole],
                    result.labels.cpu().numpy()[whole],
                    maps,
                )
    if watch is not None and record is not None:
        for position, looked in enumerate(record.looked_at([picture.key for picture in group])):
            if position not in reader.lost:
                watch(looked)
    merged = found.merged(group, sizes_wh, pyramid, config.merge, plan.full_pixels.sum(axis=1))
    for position, (one, rows) in enumerate(merged):
        if position in reader.lost:
            continue
        if masker is None:
            yield one
        else:
            with torch.inference_mode():
                yield replace(one, masks=found.masks(masker, one, rows, device))


def _planned(
    rounds: Iterable[list[Look]], reader: Reader, config: InferenceConfig, tick: WindowTick | None
) -> Iterator[tuple[list[Look], Images]]:
    """Batches of one round after the other, with their canvases."""
    done = planned = 0
    for looks in rounds:
        planned += len(looks)
        for batch, images in reader.read(batches_of(looks, config.batch_pixels)):
            if tick:
                tick(done, planned)
            yield batch, images
            done += len(batch)
        if tick:
            tick(done, planned)


def _looked_at(
    detector: Detector, masker: MaskDetector | None, with_focus: LookWithFocus | None, images: Images
) -> tuple[Kept, torch.Tensor | None]:
    """Detections, what masks need, and (B, h, w) focus probabilities, as far as they are wanted."""
    if with_focus is None:
        return Kept(detector.detect(images), []) if masker is None else masker.detect_keeping(images), None
    if masker is None:
        detections, focus = with_focus(images)
        return Kept(detections, []), focus
    kept = masker.detect_keeping(images)
    return kept, with_focus(images)[1] if kept.focus is None else kept.focus


def _whole(boxes: NDArray, look: Look, size_wh: tuple[int, int]) -> NDArray[np.bool_]:
    """(N,) boxes (network px of the window) that no border has cut, as far as one can tell."""
    whole = ~cut_by_border(boxes, look.window, size_wh, overlap_px=look.overlap_px)
    if look.chip_xyxy is not None:
        boxes, chip = in_image(boxes, look.window), np.asarray(look.chip_xyxy)
        whole &= drop_cut(boxes, chip, size_wh, look.margin_px)
        if look.rivals_xyxy:
            tolerance_px = _JITTER_PX / look.window.scale
            whole &= own_of_chip(boxes, chip, np.asarray(look.rivals_xyxy), size_wh, tolerance_px)
    return whole
