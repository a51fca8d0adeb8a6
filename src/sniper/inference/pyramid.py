"""Multi-scale inference: every image at every level, in batches, merged into one set of detections an image.

SNIPER (arXiv 1805.09300) section 4; ``docs/method.md``, "Inference".
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from sniper.config import Config
from sniper.data.run_lengths import RunLengths
from sniper.detectors.protocol import Detector, Kept, MaskDetector
from sniper.inference.autofocus import FALLBACK_STRIDE, AutoFocusConfig, CoarseToFine, LookWithFocus, focus_source
from sniper.inference.looked_at import Record, Watch
from sniper.inference.masks import encode_masks, masks_in_window
from sniper.inference.merge import MergeConfig, drop_cut, merge_images
from sniper.inference.windows import Look, Window, cut_by_border
from sniper.loader.cut import cut
from sniper.scales import Pyramid
from sniper.structures import Images

# Of the keys of a group of images and the windows of their full pyramids: those to look at.
Choose = Callable[[list[int], list[Look]], list[Look]]


class InferenceConfig(Config):
    """How images are looked at and their detections merged."""

    window_px: int = Field(1536, ge=128, description="zoomed images with a longer side are seen in windows, network px")
    overlap: float = Field(
        0.2, ge=0, lt=0.9, description="least share of a window that neighbouring windows have in common"
    )
    batch_pixels: int = Field(4 * 1024 * 1024, gt=0, description="canvas pixels in one batch; one canvas always fits")
    images_in_flight: int = Field(8, ge=1, description="images decoded and batched together")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="arithmetic of the network")
    merge: MergeConfig = Field(MergeConfig(), description="range filter, NMS and cap")
    focus: AutoFocusConfig | None = Field(
        None, description="look closer only where small objects may be; null: everywhere"
    )


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded image and the key its detections are filed under."""

    key: int
    pixels: NDArray[np.uint8]  # (H, W, 3) RGB


@dataclass(frozen=True, slots=True)
class PictureDetections:
    """Merged detections of one image, best first."""

    key: int
    boxes_xyxy: NDArray[np.float32]  # (N, 4) original px, inside the image
    scores: NDArray[np.float32]  # (N,)
    labels: NDArray[np.int32]  # (N,)
    levels: NDArray[np.int16]  # (N,) level each was found at
    pixels_processed: int  # canvas pixels that the network saw for this image
    pixels_full: int  # canvas pixels of its full pyramid
    masks: RunLengths | None = None  # N, of the image's size; None where the detector predicts none


def detect_images(
    detector: Detector,
    pictures: Iterable[Picture],
    pyramid: Pyramid,
    config: InferenceConfig,
    *,
    device: torch.device | str = "cpu",
    choose: Choose | None = None,
    watch: Watch | None = None,
) -> Iterator[PictureDetections]:
    """Detect in any number of images, ``config.images_in_flight`` at a time, in their order.

    The detector must be in evaluation mode and on ``device``. ``choose`` picks the windows to look at where there is
    no AutoFocus to do so; none: all. ``watch`` is told of each image what was looked at, before its detections come.
    """
    stream = iter(pictures)
    focused = config.focus is not None and not config.focus.looks_everywhere and len(pyramid.levels) > 1
    source = focus_source(detector) if focused else (None, FALLBACK_STRIDE)
    while group := list(islice(stream, config.images_in_flight)):
        yield from _detect_group(detector, source, group, pyramid, config, torch.device(device), choose, watch)


def _detect_group(
    detector: Detector,
    source: tuple[LookWithFocus | None, int],
    group: list[Picture],
    pyramid: Pyramid,
    config: InferenceConfig,
    device: torch.device,
    choose: Choose | None,
    watch: Watch | None,
) -> Iterator[PictureDetections]:
    sizes_wh = [(picture.pixels.shape[1], picture.pixels.shape[0]) for picture in group]
    masker = detector if isinstance(detector, MaskDetector) and detector.predicts_masks else None
    precision = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[config.precision]
    with_focus, stride = source
    plan = CoarseToFine(
        sizes_wh, pyramid, config.focus or AutoFocusConfig(),
        stride=stride, window_px=config.window_px, overlap=config.overlap,
    )  # fmt: skip
    found = _Found()
    everything = plan.everything if choose is None else lambda: choose([p.key for p in group], plan.everything())
    rounds = plan.rounds() if with_focus is not None else [everything()]
    record = None if watch is None else Record(plan)
    for batch in _planned(rounds if record is None else record.watching(rounds), config.batch_pixels):
        images = _canvases(batch, group).to(device, channels_last=True)
        with torch.inference_mode(), torch.autocast(device.type, dtype=precision, enabled=config.precision != "fp32"):
            kept, focus = _looked_at(detector, masker, with_focus if batch[0].window.level > 0 else None, images)
        if focus is not None:
            plan.add(batch, focus.float().cpu().numpy())
        for row, (look, result) in enumerate(zip(batch, kept.detections, strict=True)):
            boxes = result.boxes.float().cpu().numpy()
            whole = _whole(boxes, look, sizes_wh[look.window.image])
            # Half precision on the CPU: a window's map waits until all levels of its image are merged.
            maps = kept.maps[row].to("cpu", torch.float16) if kept.maps and whole.any() else None
            found.add(
                look.window,
                boxes[whole],
                result.scores.float().cpu().numpy()[whole],
                result.labels.cpu().numpy()[whole],
                maps,
            )
    if watch is not None and record is not None:
        for looked in record.looked_at([picture.key for picture in group]):
            watch(looked)
    for one, rows in found.merged(group, sizes_wh, pyramid, config.merge, plan.full_pixels.sum(axis=1)):
        if masker is None:
            yield one
        else:
            with torch.inference_mode():
                yield replace(one, masks=found.masks(masker, one, rows, device))


def _planned(rounds: Iterable[list[Look]], batch_pixels: int) -> Iterator[list[Look]]:
    """Batches of one round after the other."""
    for looks in rounds:
        yield from _batches(looks, batch_pixels)


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
        whole &= drop_cut(_in_image(boxes, look.window), np.asarray(look.chip_xyxy), size_wh, look.margin_px)
    return whole


def _in_image(boxes: NDArray, window: Window) -> NDArray[np.float64]:
    """Boxes of a window in original px."""
    in_image: NDArray[np.float64] = (boxes + np.tile(np.asarray(window.origin_xy, dtype=np.float64), 2)) / window.scale
    return in_image


def _batches(looks: Iterable[Look], batch_pixels: int) -> Iterator[list[Look]]:
    """Windows of equal canvas, as many together as ``batch_pixels`` allows."""
    shapes: dict[tuple[int, int], list[Look]] = defaultdict(list)
    for look in looks:
        shapes[look.window.canvas_wh].append(look)
    for (width, height), members in shapes.items():
        size = max(1, batch_pixels // (width * height))
        yield from (members[start : start + size] for start in range(0, len(members), size))


def _canvases(batch: list[Look], group: list[Picture]) -> Images:
    windows = [look.window for look in batch]
    canvases = [
        cut(
            group[window.image].pixels,
            window.origin_xy,
            window.scale,
            window.canvas_wh,
            window.content_wh,
        )
        for window in windows
    ]
    return Images(
        pixels=torch.from_numpy(np.stack(canvases)).permute(0, 3, 1, 2),
        content_hw=torch.tensor([window.content_wh[::-1] for window in windows]),
        scale=torch.tensor([window.scale for window in windows], dtype=torch.float32),
    )


class _Found:
    """Detections of a group of images as they come in, in original px."""

    def __init__(self) -> None:
        self.windows: list[Window] = []
        self.columns: list[tuple[NDArray, NDArray, NDArray]] = []
        self.maps: list[torch.Tensor | None] = []  # of each window, to predict masks from
        self._order: list[int] = []  # windows by image, level and place
        self._ends = np.zeros(0, np.int64)  # (windows) rows up to and with each window, in that order
        self._sizes_wh: list[tuple[int, int]] = []

    def add(
        self, window: Window, boxes: NDArray, scores: NDArray, labels: NDArray, maps: torch.Tensor | None = None
    ) -> None:
        """Add the detections of one window, network px."""
        self.windows.append(window)
        self.maps.append(maps)
        self.columns.append((_in_image(boxes, window), scores, labels))

    def merged(
        self,
        group: list[Picture],
        sizes_wh: list[tuple[int, int]],
        pyramid: Pyramid,
        config: MergeConfig,
        full_pixels: NDArray[np.int64],
    ) -> Iterator[tuple[PictureDetections, NDArray[np.int64]]]:
        """One merged result an image, and the row of all boxes that each of its detections was."""
        # By image, level and place, and not as batches came: equal scores must not depend on the batching.
        order = sorted(range(len(self.windows)), key=self.windows.__getitem__)
        windows, columns = [self.windows[k] for k in order], [self.columns[k] for k in order]
        counts = np.asarray([len(scores) for _, scores, _ in columns], np.int64)
        self._order, self._ends, self._sizes_wh = order, np.cumsum(counts), sizes_wh
        image = np.repeat(np.asarray([window.image for window in windows], np.int64), counts)
        level = np.repeat(np.asarray([window.level for window in windows], np.int16), counts)
        nothing = np.zeros((0, 4)), np.zeros(0, np.float32), np.zeros(0, np.int64)
        boxes, scores, labels = (np.concatenate(column) for column in zip(nothing, *columns, strict=True))
        limits = np.tile(np.asarray(sizes_wh, dtype=np.float64), (1, 2))[image]
        boxes = np.clip(boxes, 0, limits).astype(np.float32)
        offsets = np.searchsorted(image, np.arange(len(group) + 1))
        result = merge_images(offsets, boxes, scores, labels, level, pyramid.infer_ranges_px(), config)
        pixels = np.zeros(len(group), dtype=np.int64)
        for window in self.windows:
            pixels[window.image] += window.canvas_pixels
        for index, picture in enumerate(group):
            rows = slice(result.offsets[index], result.offsets[index + 1])
            kept = result.keep[rows]
            one = PictureDetections(
                picture.key,
                boxes[kept],
                result.scores[rows],
                labels[kept].astype(np.int32),
                level[kept],
                int(pixels[index]),
                int(full_pixels[index]),
            )
            yield one, kept

    def masks(
        self, detector: MaskDetector, one: PictureDetections, rows: NDArray[np.int64], device: torch.device
    ) -> RunLengths:
        """Masks of merged detections, each from the window it was found in; ``rows`` as ``merged`` gives them.

        Window by window, and not batched over images: an image gives the same masks whatever it is looked at with.
        """
        if not len(rows):
            return RunLengths.join([])
        place = np.searchsorted(self._ends, rows, side="right")
        parts, order = [], np.argsort(place, kind="stable")
        for number in np.unique(place).tolist():
            own = order[np.searchsorted(place[order], number) : np.searchsorted(place[order], number, side="right")]
            window, maps = self.windows[self._order[number]], self.maps[self._order[number]]
            assert maps is not None
            boxes = one.boxes_xyxy[own].astype(np.float64)
            inside = boxes * window.scale - np.tile(np.asarray(window.origin_xy, np.float64), 2)
            grids = masks_in_window(detector, maps, inside, one.labels[own], device)
            parts.append(encode_masks(grids, boxes, self._sizes_wh[window.image]))
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return RunLengths.join(parts).take(back)
