"""A checkpoint as an ONNX file that carries its strategy: names, levels, ranges, windows and merging."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from sniper import __version__
from sniper.backends.onnx.session import Session
from sniper.backends.onnx.strategy import KEY, Strategy
from sniper.detectors.protocol import Proposer
from sniper.detectors.traits import traits_of
from sniper.errors import CheckpointError, RecipeError
from sniper.evaluation.best_f1 import DEFAULT_SCORE
from sniper.files import replacing
from sniper.pipeline.model import Model, load_model
from sniper.to_onnx.deepness import INPUT, OUTPUT, DeepnessGraph, write_deepness
from sniper.to_onnx.graph import INPUTS, STEP_PX, DetectorGraph, GraphSettings, write_graph
from sniper.to_onnx.parity import EXACT, HALF, Limits, Parity, parity

CHECKED_BATCH = 3  # images of the check; the example of a trace has another number


class Exported(NamedTuple):
    """A written file."""

    path: Path
    strategy: Strategy
    score_difference: float  # largest difference of a score from torch's, on the input of the check


def export(
    checkpoint: Path | str | Model,
    output: Path | str,
    *,
    half: bool = False,
    nms: float | None = None,
    deepness: int | None = None,
    detector: nn.Module | None = None,
) -> Exported:
    """Write a detector as ONNX, with the settings that it is run with, and check it once beside torch.

    Batch and size are free; sides are multiples of 64 px. Where the detector can be written for one size alone
    (``exports_one_size``), that is a square of ``inference.window_px``, rounded up to 64 px. The file takes ``images``
    (B, H, W, 3) uint8 RGB and ``valid_hw`` (B, 2) int64, and gives what ``detectors.protocol.FixedOutputs`` names.

    Args:
        checkpoint: weights file, run folder, or a model already loaded.
        output: file to write, ``.onnx``.
        half: compute features in half precision: half the size; faster on devices that have it, slower on CPUs.
        nms: suppress detections of a class above this IoU inside the graph, for programs that run one size; none:
            all levels are merged outside.
        deepness: side of a tile, px, a multiple of 64: write what the plugin Deepness of QGIS runs, of this size alone
            and without levels and merging; ``predict`` does not take such a file.
        detector: your own detector, for a checkpoint of it.

    Raises:
        CheckpointError: ``checkpoint`` cannot be used, or the file does not give what torch gives.
        RecipeError: this kind of detector cannot be written, or onnx, onnxscript or onnxruntime is not installed.
        StorageError: ``output`` cannot be written.
    """
    path = Path(output)
    if path.suffix.lower() != ".onnx":
        raise RecipeError(f"{path}: expected a name that ends in .onnx")
    model = checkpoint if isinstance(checkpoint, Model) else load_model(checkpoint, detector=detector, device="cpu")
    if model.detector is None:
        raise RecipeError(
            f"{model.checkpoint or model.backend.name} is no detector of torch, and only these are written"
        )
    graph = DetectorGraph(model.detector, GraphSettings(half, nms))
    strategy = strategy_of(model, half=half, nms_iou=nms)
    if deepness is not None and (deepness <= 0 or deepness % STEP_PX):
        raise RecipeError(f"deepness is the side of a tile, a multiple of {STEP_PX} px, got {deepness}")
    limits = HALF if half else EXACT
    with replacing(path) as partial:
        if deepness is None:
            write_graph(graph, partial, {KEY: strategy.model_dump_json()}, strategy.side_px)
            agreed = _parity(graph, partial, limits, strategy.side_px)
        else:
            agreed = _write_deepness(graph, model, deepness, partial)
        if not agreed.within(limits):
            raise CheckpointError(
                f"{path} was not written: {agreed.apart} of the {agreed.rows} boxes that it and torch find are found "
                f"by one alone, and scores differ by up to {agreed.score_difference:.2g}; this version of torch or "
                "onnxruntime computes something else, use another"
            )
    return Exported(path, strategy, agreed.score_difference)


def strategy_of(model: Model, *, half: bool = False, nms_iou: float | None = None) -> Strategy:
    """What the file of a model says about itself."""
    assert model.detector is not None
    traits, recipe = traits_of(model.detector), model.recipe
    return Strategy(
        sniper=__version__,
        detector=traits.name,
        class_names=model.class_names,
        class_ids=model.class_ids,
        step_px=STEP_PX,
        side_px=_side_px(model),
        stride=traits.stride,
        comfortable_px=traits.comfortable_px,
        focus_stride=getattr(model.detector, "focus_stride", None),
        proposes=isinstance(model.detector, Proposer),
        half=half,
        nms_iou=nms_iou,
        draw_scores=model.draw_scores,
        pyramid=model.pyramid.model_dump(mode="json"),
        inference=recipe.inference.model_dump(mode="json"),
        data=recipe.data.model_dump(mode="json", include={"value_range", "bands"}),
    )


def _side_px(model: Model) -> int | None:
    """The one side of the input, which holds every window; None: any will do."""
    if not getattr(model.detector, "exports_one_size", False):
        return None
    return -(-model.recipe.inference.window_px // STEP_PX) * STEP_PX


def _write_deepness(graph: DetectorGraph, model: Model, tile_px: int, path: Path) -> Parity:
    """Write the form of the plugin; its scores beside torch's, slot by slot, on noise."""
    tiles = DeepnessGraph(graph, len(model.class_names))
    min_score = min(model.draw_scores, default=DEFAULT_SCORE)
    write_deepness(tiles, path, tile_px=tile_px, class_names=model.class_names, min_score=min_score)
    pixels = np.random.default_rng(0).random((1, 3, tile_px, tile_px), np.float32)
    (found,) = Session(path, "cpu").run([OUTPUT], {INPUT: pixels})
    with torch.inference_mode():
        wanted = tiles(torch.from_numpy(pixels)).numpy()
    if wanted.shape != found.shape:
        return Parity(np.inf, 0, 0)
    ours, theirs = wanted[..., 4], found[..., 4]  # best first
    both = (ours > 0) & (theirs > 0)
    difference = float(np.abs(ours - theirs)[both].max(initial=0))
    return Parity(difference, int(((ours > 0) != (theirs > 0)).sum()), int((ours > 0).sum() + (theirs > 0).sum()))


def _parity(graph: DetectorGraph, path: Path, limits: Limits, side_px: int | None) -> Parity:
    """How far the file and torch agree about inputs of noise.

    They are of another number and, where it is free, size than the example that the graph was traced with, which may
    have left constants in it.
    """
    height, width = (3 * STEP_PX, 2 * STEP_PX) if side_px is None else (side_px, side_px)
    images = np.random.default_rng(0).integers(0, 256, (CHECKED_BATCH, height, width, 3), np.uint8)
    valid_hw = np.asarray([[height - 7 * row, width - 5 * row] for row in range(CHECKED_BATCH)], np.int64)
    with torch.inference_mode():
        outputs = [one.numpy() for one in graph(torch.from_numpy(images), torch.from_numpy(valid_hw))]
    names = graph.output_names
    try:
        found = Session(path, "cpu").run(names, dict(zip(INPUTS, (images, valid_hw), strict=True)))
    except CheckpointError as error:
        raise CheckpointError(
            "the file was not written: its graph runs only at the batch and size that it was traced at "
            f"({error}); use another version of torch, or another detector"
        ) from error
    wanted = dict(zip(names, outputs, strict=True))
    return parity(wanted, dict(zip(names, found, strict=True)), limits)
