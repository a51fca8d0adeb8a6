"""Arguments and options that several verbs share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from sniper.errors import RecipeError

SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting: train.learning_rate=0.01")
]
DataArgument = Annotated[str, typer.Argument(help="COCO JSON, YOLO data.yaml or folder, or Pascal VOC folder.")]
SplitOption = Annotated[str | None, typer.Option(help="Split of the dataset, where it holds several.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
BadImageOption = Annotated[str, typer.Option("--on-bad-image", help="stop, or skip: go on and list what was skipped.")]
ProposalsOption = Annotated[
    Path | None, typer.Option(help="Proposals (sniper propose, or COCO results JSON): negative chips too.")
]
FocusOption = Annotated[
    float | None,
    typer.Option(
        help="AutoFocus: run finer levels where a small object is at least this likely, such as 0.5; 0: everywhere.",
        min=0,
        max=1,
    ),
]
BudgetOption = Annotated[
    float | None,
    typer.Option(
        help="AutoFocus: bound on the pixels, as a share of the full pyramid; best regions first.", min=0.001, max=1
    ),
]
ProcessesOption = Annotated[
    int, typer.Option(help="Processes that work at the same time, each with its own model; GPUs are dealt out.", min=1)
]
CheckpointArgument = Annotated[Path, typer.Argument(help=".safetensors file or run folder.")]


def bad_image(value: str) -> Literal["stop", "skip"]:
    """What ``--on-bad-image`` says.

    Raises:
        RecipeError: neither of the two.
    """
    if value == "stop":
        return "stop"
    if value == "skip":
        return "skip"
    raise RecipeError(f"--on-bad-image takes stop or skip, got {value!r}")
