"""The output forms of ONNX detectors, decoded: boxes, scores and labels of all candidates. NumPy only."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.backends.onnx.form import BoxesForm, DetrForm, FastestDetForm, YoloForm, YunetForm
from sniper.errors import RecipeError


class Candidates(NamedTuple):
    """N boxes for each of B inputs, in no order; a score may be anything where there is no box."""

    boxes: NDArray[np.float32]  # (B, N, 4) xyxy, px of the input
    scores: NDArray[np.float32]  # (B, N) in [0, 1]
    labels: NDArray[np.int64]  # (B, N) class index from 0


Floats = NDArray[np.floating]
Decode = Callable[[Any, Sequence[NDArray], tuple[int, int], int], Candidates]


def decode_yolo(form: YoloForm, outputs: Sequence[NDArray], input_hw: tuple[int, int], classes: int) -> Candidates:
    """YOLO heads; Ultralytics has no objectness and rows for columns, YOLOX boxes relative to grids."""
    (found,) = _shapes(outputs, ["(B, N, 4 + C)"], [3])
    columns = 4 + form.objectness + classes
    if found.shape[2] != columns and found.shape[1] == columns:
        found = found.transpose(0, 2, 1)
    _require_classes(found.shape[2] - 4 - form.objectness, classes, found.shape)
    boxes = found[..., :4]
    if form.strides is not None:
        cells, stride = _grid(form.strides, input_hw)
        if len(cells) != found.shape[1]:
            raise RecipeError(f"strides {list(form.strides)} have {len(cells)} cells, the output has {found.shape[1]}")
        centre, size = (boxes[..., :2] + cells) * stride, np.exp(boxes[..., 2:]) * stride
        boxes = np.concatenate([centre, size], axis=-1)
    scores = found[..., 4:]
    if form.logits:
        scores = _sigmoid(scores)
    every = scores[..., 1:] * scores[..., :1] if form.objectness else scores
    return _best_class(_corners(boxes), every)


def decode_detr(form: DetrForm, outputs: Sequence[NDArray], input_hw: tuple[int, int], classes: int) -> Candidates:
    """Queries with logits and boxes as shares."""
    logits, boxes = _shapes(outputs, ["logits (B, Q, C)", "boxes (B, Q, 4)"], [3, 3])
    _require_classes(logits.shape[2] - (form.activation == "softmax"), classes, logits.shape)
    if form.activation == "softmax":
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        scores = (powers / powers.sum(axis=-1, keepdims=True))[..., :-1]
    else:
        scores = _sigmoid(logits)
    return _best_class(_corners(boxes) * _limit(input_hw), scores)


def decode_boxes(form: BoxesForm, outputs: Sequence[NDArray], input_hw: tuple[int, int], classes: int) -> Candidates:
    """Finished boxes."""
    if len(outputs) == 3 and outputs[0].ndim == 2:
        outputs = [one[None] for one in outputs]
    boxes, scores, labels = _shapes(outputs, ["boxes (B, N, 4)", "scores (B, N)", "labels (B, N)"], [3, 2, 2])
    labels = labels.astype(np.int64) - form.first_label
    there = scores > 0
    if there.any() and not 0 <= int(labels[there].min()) <= int(labels[there].max()) < classes:
        raise RecipeError(
            f"labels go from {int(labels[there].min()) + form.first_label} to "
            f"{int(labels[there].max()) + form.first_label}, but the form names {classes} classes and has first_label "
            f"{form.first_label}; correct classes or first_label"
        )
    scaled = boxes * _limit(input_hw) if form.unit == "share" else boxes
    return Candidates(scaled.astype(np.float32), scores.astype(np.float32), np.where(there, labels, 0))


def decode_fastestdet(
    form: FastestDetForm, outputs: Sequence[NDArray], input_hw: tuple[int, int], classes: int
) -> Candidates:
    """The grid of FastestDet: offsets by tanh, sizes by sigmoid as shares of the input."""
    (found,) = _shapes(outputs, ["(B, 5 + C, h, w)"], [4])
    _require_classes(found.shape[1] - 5, classes, found.shape)
    _, channels, rows, columns = found.shape
    cells = found.transpose(0, 2, 3, 1).reshape(len(found), rows * columns, channels)
    y, x = np.divmod(np.arange(rows * columns, dtype=np.float32), np.float32(columns))
    centre = (np.tanh(cells[..., 1:3]) + np.stack([x, y], axis=-1)) / np.asarray([columns, rows], np.float32)
    boxes = np.concatenate([centre, _sigmoid(cells[..., 3:5])], axis=-1)
    scores = cells[..., :1] ** np.float32(0.6) * cells[..., 5:] ** np.float32(0.4)
    return _best_class(_corners(boxes) * _limit(input_hw), scores)


def decode_yunet(form: YunetForm, outputs: Sequence[NDArray], input_hw: tuple[int, int], classes: int) -> Candidates:
    """The grids of YuNet, landmarks left out: the score is the root of class score times objectness."""
    levels = len(form.strides)
    names = [f"{what} at stride {stride}" for what in ("class", "objectness", "box") for stride in form.strides]
    found = _shapes(outputs[: 3 * levels], names, [3] * len(names))
    score, objectness, boxes = (
        np.concatenate(found[start : start + levels], axis=1) for start in (0, levels, 2 * levels)
    )
    _require_classes(score.shape[2], classes, score.shape)
    cells, stride = _grid(form.strides, input_hw)
    centre, size = (boxes[..., :2] + cells) * stride, np.exp(boxes[..., 2:]) * stride
    scores = np.sqrt(np.clip(score, 0, 1) * np.clip(objectness, 0, 1))
    return _best_class(_corners(np.concatenate([centre, size], axis=-1)), scores)


DECODERS: dict[str, Decode] = {
    "yolo": decode_yolo,
    "detr": decode_detr,
    "boxes": decode_boxes,
    "fastestdet": decode_fastestdet,
    "yunet": decode_yunet,
}


def outputs_of(kind: str, levels: int) -> int:
    """How many outputs a form reads."""
    return {"yolo": 1, "detr": 2, "boxes": 3, "fastestdet": 1, "yunet": 3 * levels}[kind]


def _best_class(boxes: Floats, scores: Floats) -> Candidates:
    """The best of (B, N, C) class scores of each of (B, N, 4) boxes."""
    labels = scores.argmax(axis=-1)
    best = np.take_along_axis(scores, labels[..., None], axis=-1)[..., 0]
    return Candidates(boxes.astype(np.float32), best.astype(np.float32), labels.astype(np.int64))


def _corners(boxes: Floats) -> Floats:
    """(..., 4) xyxy of centre and size."""
    half = boxes[..., 2:] / 2
    return np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=-1)


def _grid(strides: Sequence[int], input_hw: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(N, 2) column and row of the cells of all strides, and (N, 1) the stride of each."""
    cells, steps = [], []
    for stride in strides:
        rows, columns = (side // stride for side in input_hw)
        y, x = np.mgrid[:rows, :columns].astype(np.float32)
        cells.append(np.stack([x.ravel(), y.ravel()], axis=-1))
        steps.append(np.full((rows * columns, 1), stride, np.float32))
    return np.concatenate(cells), np.concatenate(steps)


def _limit(input_hw: tuple[int, int]) -> NDArray[np.float32]:
    height, width = input_hw
    return np.asarray([width, height, width, height], np.float32)


def _sigmoid(values: Floats) -> Floats:
    found: Floats = 1 / (1 + np.exp(-np.clip(values, -60, 60)))
    return found


def _shapes(outputs: Sequence[NDArray], wanted: list[str], dimensions: list[int]) -> Sequence[NDArray]:
    """The outputs, where each has so many dimensions."""
    given = [one.ndim for one in outputs]
    if given != dimensions:
        shapes = ", ".join(str(one.shape) for one in outputs)
        raise RecipeError(
            f"expected {', '.join(wanted)}, the outputs are {shapes}; correct kind or outputs of the form"
        )
    return outputs


def _require_classes(there: int, named: int, shape: tuple[int, ...]) -> None:
    if there != named:
        raise RecipeError(
            f"the output {shape} has {there} class scores, but the form names {named} classes; correct classes, or "
            "kind and its settings"
        )
