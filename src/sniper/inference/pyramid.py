"""Multi-scale inference: every image at every level, in batches, merged into one set of detections an image.

SNIPER (arXiv 1805.09300) section 4; ``docs/method.md``, "Inference".
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from sniper.config import Config
from sniper.detectors.protocol import Detector
from sniper.inference.merge import MergeConfig, merge_images
from sniper.inference.windows import Window, cut_by_border, windows_of
from sniper.loader.cut import cut
from sniper.scales import Pyramid
from sniper.structures import Images


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


def detect_images(
    detector: Detector,
    pictures: Iterable[Picture],
    pyramid: Pyramid,
    config: InferenceConfig,
    *,
    device: torch.device | str = "cpu",
) -> Iterator[PictureDetections]:
    """Detect in any number of images, ``config.images_in_flight`` at a time, in their order.

    The detector must be in evaluation mode and on ``device``.
    """
    stream = iter(pictures)
    while group := list(islice(stream, config.images_in_flight)):
        yield from _detect_group(detector, group, pyramid, config, torch.device(device))


def _detect_group(
    detector: Detector, group: list[Picture], pyramid: Pyramid, config: InferenceConfig, device: torch.device
) -> Iterator[PictureDetections]:
    sizes_wh = [(picture.pixels.shape[1], picture.pixels.shape[0]) for picture in group]
    found = _Found()
    for batch in _batches(_all_windows(sizes_wh, pyramid, config), config.batch_pixels):
        images = _canvases(batch, group).to(device, channels_last=True)
        precision = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[config.precision]
        with torch.inference_mode(), torch.autocast(device.type, dtype=precision, enabled=config.precision != "fp32"):
            detections = detector.detect(images)
        for (window, overlap_px), result in zip(batch, detections, strict=True):
            boxes = result.boxes.float().cpu().numpy()
            whole = ~cut_by_border(boxes, window, sizes_wh[window.image], overlap_px=overlap_px)
            found.add(
                window, boxes[whole], result.scores.float().cpu().numpy()[whole], result.labels.cpu().numpy()[whole]
            )
    yield from found.merged(group, sizes_wh, pyramid, config.merge)


def _all_windows(
    sizes_wh: list[tuple[int, int]], pyramid: Pyramid, config: InferenceConfig
) -> Iterator[tuple[Window, int]]:
    """Every window of a group with the overlap its level was given, network px."""
    scales = pyramid.scales(np.asarray(sizes_wh))
    largest = pyramid.infer_ranges_px()[:, 1]
    for image, size_wh in enumerate(sizes_wh):
        for level in range(len(pyramid.levels)):
            # What a level has to find must fit into the overlap; half a window bounds the cost.
            wanted = min(largest[level] * scales[image, level], config.window_px / 2)
            overlap = int(max(config.overlap * config.window_px, wanted if np.isfinite(largest[level]) else 0))
            for window in windows_of(
                image, size_wh, level, float(scales[image, level]), window_px=config.window_px, overlap_px=overlap
            ):
                yield window, overlap


def _batches(windows: Iterable[tuple[Window, int]], batch_pixels: int) -> Iterator[list[tuple[Window, int]]]:
    """Windows of equal canvas, as many together as ``batch_pixels`` allows."""
    shapes: dict[tuple[int, int], list[tuple[Window, int]]] = defaultdict(list)
    for entry in windows:
        shapes[entry[0].canvas_wh].append(entry)
    for (width, height), members in shapes.items():
        size = max(1, batch_pixels // (width * height))
        yield from (members[start : start + size] for start in range(0, len(members), size))


def _canvases(batch: list[tuple[Window, int]], group: list[Picture]) -> Images:
    canvases = [
        cut(
            group[window.image].pixels,
            window.origin_xy,
            window.scale,
            window.canvas_wh,
            window.content_wh,
        )
        for window, _ in batch
    ]
    return Images(
        pixels=torch.from_numpy(np.stack(canvases)).permute(0, 3, 1, 2),
        content_hw=torch.tensor([window.content_wh[::-1] for window, _ in batch]),
        scale=torch.tensor([window.scale for window, _ in batch], dtype=torch.float32),
    )


class _Found:
    """Detections of a group of images as they come in, in original px."""

    def __init__(self) -> None:
        self.windows: list[Window] = []
        self.columns: list[tuple[NDArray, NDArray, NDArray]] = []

    def add(self, window: Window, boxes: NDArray, scores: NDArray, labels: NDArray) -> None:
        """Add the detections of one window, network px."""
        origin = np.tile(np.asarray(window.origin_xy, dtype=np.float64), 2)
        self.windows.append(window)
        self.columns.append(((boxes + origin) / window.scale, scores, labels))

    def merged(
        self, group: list[Picture], sizes_wh: list[tuple[int, int]], pyramid: Pyramid, config: MergeConfig
    ) -> Iterator[PictureDetections]:
        """One merged result an image."""
        # By image, level and place, and not as batches came: equal scores must not depend on the batching.
        order = sorted(range(len(self.windows)), key=self.windows.__getitem__)
        windows, columns = [self.windows[k] for k in order], [self.columns[k] for k in order]
        counts = [len(scores) for _, scores, _ in columns]
        image = np.repeat([window.image for window in windows], counts)
        level = np.repeat([window.level for window in windows], counts).astype(np.int16)
        boxes, scores, labels = (np.concatenate(column) for column in zip(*columns, strict=True))
        limits = np.tile(np.asarray(sizes_wh, dtype=np.float64), (1, 2))[image]
        boxes = np.clip(boxes, 0, limits).astype(np.float32)
        offsets = np.searchsorted(image, np.arange(len(group) + 1))
        result = merge_images(offsets, boxes, scores, labels, level, pyramid.infer_ranges_px(), config)
        pixels = np.zeros(len(group), dtype=np.int64)
        for window in self.windows:
            pixels[window.image] += window.canvas_wh[0] * window.canvas_wh[1]
        for index, picture in enumerate(group):
            rows = slice(result.offsets[index], result.offsets[index + 1])
            kept = result.keep[rows]
            yield PictureDetections(
                picture.key,
                boxes[kept],
                result.scores[rows],
                labels[kept].astype(np.int32),
                level[kept],
                int(pixels[index]),
            )
