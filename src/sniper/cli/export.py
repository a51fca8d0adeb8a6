"""The verb that writes detectors for other runtimes."""

from pathlib import Path
from typing import Annotated

import typer

from sniper.cli.display import say
from sniper.cli.loading import importing
from sniper.cli.options import CheckpointArgument
from sniper.errors import RecipeError


def export(
    checkpoint: CheckpointArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help=".onnx file to write.")],
    half: Annotated[bool, typer.Option("--half", help="Features in half precision: half the size.")] = False,
    nms: Annotated[
        float | None,
        typer.Option(help="Suppress inside the file too, above this IoU, for programs that merge nothing.", max=1),
    ] = None,
    deepness: Annotated[
        int | None,
        typer.Option(metavar="PX", help="For QGIS's plugin Deepness: tiles of this side; without levels and merging."),
    ] = None,
) -> None:
    """Write a checkpoint as ONNX, with levels, ranges and merging inside; predict and evaluate take the file."""
    if nms is not None and nms <= 0:
        raise RecipeError(f"--nms is an IoU above 0, got {nms:g}")
    if deepness is not None and (deepness <= 0 or deepness % 64):
        raise RecipeError(f"--deepness is the side of a tile, a multiple of 64 px, got {deepness}")
    if output.suffix.lower() != ".onnx":
        raise RecipeError(f"--output {output}: expected a name that ends in .onnx")
    with importing():
        from sniper.pipeline.export import export as run

    done = run(checkpoint, output, half=half, nms=nms, deepness=deepness)
    size = done.path.stat().st_size / 1e6
    say(f"{done.path}: {size:.1f} MB, scores as torch's to {done.score_difference:.1g}")
