"""Any function that finds boxes in images, as a backend: for inference with what was trained elsewhere."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sniper.errors import RecipeError
from sniper.inference.backend import Looked, Want

PredictFunction = Callable[[list[NDArray[np.uint8]]], Iterable[Sequence[Any]]]
"""Images, (h, w, 3) uint8 RGB each, to ``boxes, scores, labels`` each: (N, 4) xyxy px of that image, (N,) in [0, 1],
(N,) class indices from 0; lists, NumPy arrays or tensors."""


class CallableBackend:
    """Satisfies ``inference.backend.Backend`` by a function.

    The function gets the images of a batch without their padding, as they were cut; what it returns is clipped to them.
    It is called from as many threads as use the backend.
    """

    proposes = False
    predicts_masks = False
    focus_source: Literal["branch", "proposals", "detections"] = "detections"
    focus_stride: int | None = None

    def __init__(self, function: PredictFunction, num_classes: int, name: str | None = None) -> None:
        """``num_classes`` bounds the labels; ``name`` is what messages call it, the function's own if none."""
        self.function, self.num_classes = function, num_classes
        self.name = name or str(getattr(function, "__name__", type(function).__name__))

    def look(
        self, inputs: NDArray[np.uint8], valid_hw: NDArray[np.int64], scale: NDArray[np.float32], want: Want
    ) -> Looked:
        """Call the function with the valid regions of a batch.

        Raises:
            RecipeError: its answer has another form than ``PredictFunction`` says.
        """
        sizes_hw = valid_hw.tolist()
        valid = [np.ascontiguousarray(one[:h, :w]) for one, (h, w) in zip(inputs, sizes_hw, strict=True)]
        answers = list(self.function(valid))
        if len(answers) != len(valid):
            raise RecipeError(f"expected an answer for each of {len(valid)} images, got {len(answers)}")
        columns = [self._checked(answer, size) for answer, size in zip(answers, sizes_hw, strict=True)]
        boxes, scores, labels = (np.concatenate(column) for column in zip(*columns, strict=True))
        offsets = np.cumsum([0, *(len(one[1]) for one in columns)]).astype(np.int64)
        return Looked(boxes, scores, labels, offsets)

    def masks(
        self, features: NDArray[np.floating], boxes: NDArray[np.floating], labels: NDArray[np.integer]
    ) -> NDArray[np.float32]:
        """Not possible: ``predicts_masks`` is false."""
        raise NotImplementedError("a function predicts no masks")

    def _checked(
        self, answer: Sequence[Any], size_hw: Sequence[int]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        if len(answer) != 3:
            raise RecipeError(f"expected boxes, scores and labels of an image, got {len(answer)} values")
        boxes, scores, labels = (np.asarray(_on_cpu(column)) for column in answer)
        boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes
        shapes = boxes.shape, scores.shape, labels.shape
        if shapes != ((len(boxes), 4), (len(boxes),), (len(boxes),)):
            raise RecipeError("expected boxes (N, 4), scores (N,) and labels (N,), got {}, {} and {}".format(*shapes))
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            raise RecipeError(
                f"expected labels from 0 to {self.num_classes - 1}, one for each class name, got "
                f"{int(labels.min())} to {int(labels.max())}"
            )
        height, width = size_hw
        limit = np.asarray([width, height, width, height], np.float32)
        clipped = np.minimum(np.maximum(boxes.astype(np.float32), 0), limit)
        return clipped, scores.astype(np.float32), labels.astype(np.int64)


def _on_cpu(column: Any) -> Any:
    """A tensor of any device as an array, without importing its library."""
    return column.detach().cpu().numpy() if hasattr(column, "detach") else column
