"""Any function that finds boxes in pictures, as a detector: for inference with what was trained elsewhere."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sniper.errors import RecipeError
from sniper.structures import Batch, Detections, Images

PredictFunction = Callable[[list[NDArray[np.uint8]]], Iterable[Sequence[Any]]]
"""Pictures, (h, w, 3) uint8 RGB each, to ``boxes, scores, labels`` each: (N, 4) xyxy px of that picture, (N,) in
[0, 1], (N,) class indices from 0; lists, NumPy arrays or tensors."""


class CallableDetector(nn.Module):
    """Satisfies ``detectors.protocol.Detector`` by a function; it can detect, but not be trained.

    The function gets the pictures of a batch without their padding, on the CPU, as they were before they became a
    batch; what it returns is clipped to them.
    """

    def __init__(self, function: PredictFunction, num_classes: int) -> None:
        super().__init__()
        self.function, self.num_classes = function, num_classes

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Not possible.

        Raises:
            RecipeError: always.
        """
        raise RecipeError("a detector made of a function cannot be trained; train it where it comes from")

    @torch.no_grad()
    def detect(self, images: Images) -> list[Detections]:
        """One ``Detections`` a padded input, boxes in network px.

        Raises:
            RecipeError: the function's answer has another form than ``PredictFunction`` says.
        """
        pixels = images.pixels
        if pixels.dtype != torch.uint8:
            pixels = (pixels * 255).round().to(torch.uint8)
        inputs = pixels.permute(0, 2, 3, 1).cpu().numpy()
        sizes_hw = images.valid_hw.tolist()
        shown = [
            np.ascontiguousarray(padded[:height, :width])
            for padded, (height, width) in zip(inputs, sizes_hw, strict=True)
        ]
        answers = list(self.function(shown))
        if len(answers) != len(shown):
            raise RecipeError(f"expected an answer for each of {len(shown)} pictures, got {len(answers)}")
        return [self._checked(answer, size, pixels.device) for answer, size in zip(answers, sizes_hw, strict=True)]

    def _checked(self, answer: Sequence[Any], size_hw: Sequence[int], device: torch.device) -> Detections:
        if len(answer) != 3:
            raise RecipeError(f"expected boxes, scores and labels of a picture, got {len(answer)} values")
        boxes, scores, labels = (torch.as_tensor(np.asarray(_on_cpu(column))) for column in answer)
        boxes = boxes.reshape(-1, 4) if boxes.numel() == 0 else boxes
        shapes = [tuple(column.shape) for column in (boxes, scores, labels)]
        if shapes != [(len(boxes), 4), (len(boxes),), (len(boxes),)]:
            raise RecipeError("expected boxes (N, 4), scores (N,) and labels (N,), got {}, {} and {}".format(*shapes))
        labels = labels.to(torch.int64)
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            raise RecipeError(
                f"expected labels from 0 to {self.num_classes - 1}, one for each class name, got "
                f"{int(labels.min())} to {int(labels.max())}"
            )
        height, width = size_hw
        limit = torch.tensor([width, height, width, height], dtype=torch.float32)
        boxes = torch.minimum(boxes.to(torch.float32).clamp(min=0), limit)
        return Detections(boxes.to(device), scores.to(device, torch.float32), labels.to(device))


def _on_cpu(column: Any) -> Any:
    return column.detach().cpu().numpy() if isinstance(column, Tensor) else column
