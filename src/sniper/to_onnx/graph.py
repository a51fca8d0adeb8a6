"""A detector of torch as an ONNX graph: uint8 images in, detections in fixed slots out."""

import copy
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim

from sniper.detectors.protocol import ExportableDetector, FixedOutputs, Proposer
from sniper.errors import RecipeError
from sniper.nn import roi_levels  # noqa: F401  its operator is written
from sniper.nn.fixed import Slots, suppressed
from sniper.nn.folding import fold_norms
from sniper.structures import Images

OPSET = 18
STEP_PX = 64  # sides of the input are multiples of it: all that inference asks for
INPUTS = "images", "valid_hw"
PROPOSALS = {"proposal_boxes", "proposal_scores", "proposal_counts"}


class GraphSettings(NamedTuple):
    """How a detector is written."""

    half: bool = False  # features in half precision
    nms_iou: float | None = (
        None  # IoU above which the weaker detection of a class goes; None: levels are merged outside
    )


class DetectorGraph(nn.Module):
    """What is written: (B, H, W, 3) uint8 RGB and (B, 2) valid rows and columns to ``FixedOutputs``."""

    def __init__(self, detector: nn.Module, settings: GraphSettings) -> None:
        """A private copy of ``detector``, its norms folded.

        Raises:
            RecipeError: a detector of this kind cannot be written.
        """
        super().__init__()
        if not isinstance(detector, ExportableDetector):
            raise RecipeError(
                f"{type(detector).__name__} cannot be written as ONNX: it has no fixed_outputs (see "
                "sniper.detectors.protocol.ExportableDetector); sniper's own (model.kind: sniper, ssh) have, and "
                "torchvision's RetinaNet, FCOS, Faster and Mask R-CNN"
            )
        self.detector = copy.deepcopy(detector).eval().requires_grad_(False)
        self.nms_iou = settings.nms_iou
        fold_norms(self.detector)
        if settings.half:
            self.detector.half_precision()

    def forward(self, images: Tensor, valid_hw: Tensor) -> tuple[Tensor, ...]:
        """The outputs that there are, in the order of ``output_names``."""
        found = self.found(images.permute(0, 3, 1, 2).to(torch.float32) / 255, valid_hw)
        return tuple(one for one in found if one is not None)

    def found(self, pixels: Tensor, valid_hw: Tensor) -> FixedOutputs:
        """The outputs of (B, 3, H, W) RGB in [0, 1]."""
        found: FixedOutputs = self.detector.fixed_outputs(Images(pixels, valid_hw, pixels.new_ones(pixels.shape[0])))
        if self.nms_iou is not None:
            slots = Slots(found.boxes, found.scores, found.labels, found.counts)
            found = found._replace(**suppressed(slots, found.boxes.shape[1], self.nms_iou)._asdict())
        return found

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs."""
        left_out = set() if isinstance(self.detector, Proposer) else PROPOSALS
        if getattr(self.detector, "focus_stride", None) is None:
            left_out = left_out | {"focus"}
        return [name for name in FixedOutputs._fields if name not in left_out]


def write_graph(graph: DetectorGraph, path: Path, metadata: dict[str, str], side_px: int | None = None) -> None:
    """Write ``graph`` to ``path`` for all batches, and sizes (multiples of ``STEP_PX``) of all kinds.

    With ``side_px`` H and W are this alone.

    Raises:
        RecipeError: a package that this needs is not installed.
    """
    batch, rows, columns = Dim("batch", max=4096), Dim("rows", max=1024), Dim("columns", max=1024)
    if side_px is not None:
        square = torch.zeros(2, side_px, side_px, 3, dtype=torch.uint8), torch.full((2, 2), side_px)
        written(graph, square, ({0: batch}, {0: batch}), INPUTS, graph.output_names, metadata, path)
        return
    # Large enough for a map of stride 128 to have more than one row: tracing takes a side of 1 for a constant.
    example = torch.zeros(2, 6 * STEP_PX, 8 * STEP_PX, 3, dtype=torch.uint8), torch.full((2, 2), 6 * STEP_PX)
    sizes = {0: batch, 1: STEP_PX * rows, 2: STEP_PX * columns}, {0: batch}
    written(graph, example, sizes, INPUTS, graph.output_names, metadata, path)


def written(
    graph: nn.Module,
    example: tuple[Tensor, ...],
    dynamic_shapes: Any,
    inputs: Sequence[str],
    outputs: Sequence[str],
    metadata: dict[str, str],
    path: Path,
) -> None:
    """Trace ``graph`` on ``example`` and write it as ONNX.

    Raises:
        RecipeError: a package that this needs is not installed.
    """
    try:
        from sniper.to_onnx.assertions import is_all_true
        from sniper.to_onnx.roi_levels import roi_align_levels
        from sniper.to_onnx.suppression import keep_greedily
    except ImportError as error:
        raise RecipeError(
            f"writing ONNX needs onnx and onnxscript ({error}); pip install 'sniper-detection[onnx]'"
        ) from error
    with torch.no_grad(), warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")
        traced = torch.export.export(graph, example, dynamic_shapes=dynamic_shapes, strict=False)
        program = torch.onnx.export(
            traced,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            custom_translation_table={
                torch.ops.aten._is_all_true.default: is_all_true,
                torch.ops.sniper.keep_greedily.default: keep_greedily,
                torch.ops.sniper.roi_align_levels.default: roi_align_levels,
            },
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(metadata)
    program.save(path, external_data=False)


class _quiet:  # noqa: N801  a context manager
    """Inside, the exporter's log says errors alone."""

    def __enter__(self) -> None:
        self._loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
        self._levels = [one.level for one in self._loggers]
        for one in self._loggers:
            one.setLevel(logging.ERROR)

    def __exit__(self, *error: object) -> None:
        for one, level in zip(self._loggers, self._levels, strict=True):
            one.setLevel(level)
