"""Pictures of coloured rectangles, and a detector that finds them by looking at the pixels."""

from collections.abc import Iterable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sniper.backends.torch import TorchBackend
from sniper.inference.config import InferenceConfig
from sniper.inference.detect import detect_images
from sniper.inference.images import ImageDetections, ImageInput
from sniper.pyramid import Pyramid
from sniper.structures import Batch, Detections, Images

COLOURS = ((255, 0, 0), (0, 255, 0))  # of the classes 0 and 1


def draw(size_wh: tuple[int, int], boxes: NDArray[np.integer], labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """(H, W, 3) black with a filled rectangle for each half-open box."""
    pixels = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)
    for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True):
        pixels[y1:y2, x1:x2] = COLOURS[label]
    return pixels


class RectangleFinder(nn.Module):
    """Exact to a fraction of a network pixel, for upright rectangles that do not touch each other."""

    def __init__(self) -> None:
        super().__init__()
        self.traces: list[tuple[int, ...]] = []  # shapes of the batches

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def detect(self, images: Images) -> list[Detections]:
        assert images.pixels.dtype == torch.float32
        assert not torch.is_grad_enabled()
        self.traces.append(tuple(images.pixels.shape))
        return [
            self._one(pixels[:, :height, :width].numpy(), float(scale))
            for pixels, (height, width), scale in zip(
                images.pixels, images.valid_hw.tolist(), images.scale, strict=True
            )
        ]

    def _one(self, pixels: NDArray[np.float32], scale: float) -> Detections:
        boxes, labels = [], []
        blur = int(np.ceil(scale)) + 1
        for label in range(len(COLOURS)):
            plane = pixels[label]
            _, _, stats, _ = cv2.connectedComponentsWithStats((plane > 0.5).astype(np.uint8))
            for x, y, width, height, _ in stats[1:]:
                row, column = plane[y + height // 2], plane[:, x + width // 2]
                boxes.append([*_ends(row, x, width, blur), *_ends(column, y, height, blur)])
                labels.append(label)
        found = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)[:, [0, 2, 1, 3]]
        return Detections(found, torch.full((len(found),), 0.9), torch.tensor(labels, dtype=torch.int64))


def _ends(profile: NDArray[np.float32], start: int, length: int, blur: int) -> tuple[float, float]:
    """Where a blurred box function begins and ends: what is inside of it on either side of its middle."""
    middle = start + length // 2
    low, high = max(start - blur, 0), start + length + blur
    return middle - float(profile[low:middle].sum()), middle + float(profile[middle:high].sum())


def run(
    detector: nn.Module, images: Iterable[ImageInput], pyramid: Pyramid, config: InferenceConfig, **options: object
) -> list[ImageDetections]:
    """What a detector finds; a ``RectangleFinder`` then tells the shapes of the batches that its copy has seen."""
    backend = TorchBackend(detector)
    found = list(detect_images(backend, images, pyramid, config, **options))  # type: ignore[arg-type]
    if isinstance(detector, RectangleFinder):
        detector.traces = backend.network.traces  # type: ignore[assignment]
    return found
