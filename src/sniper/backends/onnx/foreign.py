"""An ONNX detector from elsewhere, behind inference: by its form."""

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from sniper.backends.onnx.form import OnnxForm
from sniper.backends.onnx.outputs import DECODERS, Candidates, outputs_of
from sniper.backends.onnx.session import Session
from sniper.errors import RecipeError
from sniper.inference.backend import Looked, Want
from sniper.inference.config import MergeConfig
from sniper.inference.merge import merge_images

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}


class ForeignOnnxBackend:
    """Satisfies ``inference.backend.Backend``. Where the file takes one image, those of a batch run one by one."""

    proposes = False
    predicts_masks = False
    focus_source: Literal["branch", "proposals", "detections"] = "detections"
    focus_stride: int | None = None

    def __init__(self, session: Session, form: OnnxForm, place: str) -> None:
        """Run the file of ``session``, which ``form`` describes; ``place`` names the form in messages.

        Raises:
            RecipeError: the form does not fit the file.
        """
        self._session, self._form, self._place = session, form, place
        self.name = session.path.stem
        self._names = _output_names(session, form, place)
        self._input = _image_input(session, place)
        shape = session.inputs[0].shape
        self._one_by_one = shape[0] == 1
        rows, columns = shape[2:4] if form.input.layout == "nchw" else shape[1:3]
        told = None if rows is None or columns is None else (rows, columns)
        wanted = form.input.size
        if told is not None and wanted is not None and told != wanted:
            raise RecipeError(
                f"{place}: input.size is {list(wanted)}, but {session.path} takes {list(told)}; leave it out"
            )
        self.size_hw: tuple[int, int] | None = told or wanted  # None: any
        self._stretches = form.input.fit == "stretch" and self.size_hw is not None

    def look(
        self, inputs: NDArray[np.uint8], valid_hw: NDArray[np.int64], scale: NDArray[np.float32], want: Want
    ) -> Looked:
        """Run the network on a batch; see ``Backend.look``.

        Raises:
            RecipeError: what comes out is not of the form.
        """
        images = self._padded(inputs, valid_hw)
        input_hw = images.shape[1], images.shape[2]
        values = self._values(images)
        parts = [values[row : row + 1] for row in range(len(values))] if self._one_by_one else [values]
        runs = [self._session.run(self._names, {self._session.inputs[0].name: part}) for part in parts]
        decode, classes = DECODERS[self._form.output.kind], len(self._form.classes)
        try:
            found = [decode(self._form.output, run, input_hw, classes) for run in runs]
        except RecipeError as error:
            raise RecipeError(f"{self._place}: {error}") from error
        columns = (np.concatenate(column) for column in zip(*found, strict=True))
        return self._kept(Candidates(*columns), valid_hw, input_hw)

    def masks(
        self, features: NDArray[np.floating], boxes: NDArray[np.floating], labels: NDArray[np.integer]
    ) -> NDArray[np.float32]:
        """Not possible: ``predicts_masks`` is false."""
        raise NotImplementedError("an ONNX detector from elsewhere predicts no masks")

    def _padded(self, inputs: NDArray[np.uint8], valid_hw: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images in the top-left corners of inputs of the size that the file takes."""
        wanted = self.size_hw
        if wanted is None:
            step = self._form.input.step_px
            wanted = -(-inputs.shape[1] // step) * step, -(-inputs.shape[2] // step) * step
        if (valid_hw > wanted).any():
            raise RecipeError(
                f"{self._place}: a window of {valid_hw.max(axis=0).tolist()} px does not fit the input {list(wanted)}; "
                "set inference.window_px to its shorter side or less"
            )
        padded = np.full((len(inputs), *wanted, 3), self._form.input.padding, np.uint8)
        for row, (height, width) in enumerate(valid_hw.tolist()):
            shown = inputs[row, :height, :width]
            if self._stretches:
                cv2.resize(shown, (wanted[1], wanted[0]), dst=padded[row])
            else:
                padded[row, :height, :width] = shown
        return padded

    def _values(self, images: NDArray[np.uint8]) -> NDArray:
        """What the file takes of (B, H, W, 3) images."""
        form = self._form.input
        ordered = images[..., ::-1] if form.colour == "bgr" else images
        if self._input is not np.uint8:
            mean, std = np.asarray(form.mean, np.float32), np.asarray(form.std, np.float32)
            ordered = ((ordered.astype(np.float32) * np.float32(form.scale) - mean) / std).astype(self._input)
        return np.ascontiguousarray(ordered.transpose(0, 3, 1, 2) if form.layout == "nchw" else ordered)

    def _kept(self, found: Candidates, valid_hw: NDArray[np.int64], input_hw: tuple[int, int]) -> Looked:
        """The best boxes above ``min_score``, clipped to what shows the image and suppressed class by class."""
        form = self._form
        limit = valid_hw[:, None, [1, 0, 1, 0]].astype(np.float32)
        height, width = input_hw
        input_px = np.asarray([width, height, width, height], np.float32)
        boxes = np.clip(found.boxes * (limit / input_px) if self._stretches else found.boxes, 0, limit)
        there = (found.scores >= form.min_score) & (boxes[..., 2:] > boxes[..., :2]).all(axis=-1)
        offsets = np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int64)
        columns = boxes[there], found.scores[there], found.labels[there]
        config = MergeConfig(
            method="hard",
            iou_threshold=1.0 if form.nms_iou is None else form.nms_iou,
            score_threshold=0.0,
            max_per_image=form.max_boxes,
            full_megapixels=None,
        )
        level = np.zeros(len(columns[1]), np.int64)
        best = merge_images(offsets, *columns, level, np.asarray([[0.0, np.inf]]), config)
        return Looked(columns[0][best.keep], best.scores, columns[2][best.keep], best.offsets)


def _output_names(session: Session, form: OnnxForm, place: str) -> list[str]:
    """The outputs that the form reads."""
    there = [port.name for port in session.outputs]
    names = list(there if form.outputs is None else form.outputs)
    unknown = next((name for name in names if name not in there), None)
    if unknown is not None:
        raise RecipeError(f"{place}: {session.path} has no output {unknown!r}, only {', '.join(there)}")
    wanted = outputs_of(form.output.kind, len(getattr(form.output, "strides", None) or ()))
    enough = len(names) >= wanted if form.output.kind == "yunet" else len(names) == wanted
    if not enough:
        raise RecipeError(
            f"{place}: kind {form.output.kind} reads {wanted} outputs, but {session.path} has {len(names)} "
            f"({', '.join(names)}); choose another kind, or name the outputs to read in outputs"
        )
    return names[:wanted]


def _image_input(session: Session, place: str) -> type:
    """The type of number of the one input."""
    first, *others = session.inputs
    if others or len(first.shape) != 4 or first.type not in _TYPES:
        given = ", ".join(f"{port.name} {port.type} {list(port.shape)}" for port in session.inputs)
        raise RecipeError(f"{place}: expected one input of images with four dimensions, but {session.path} has {given}")
    return _TYPES[first.type]
