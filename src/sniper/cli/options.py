"""Arguments and options that several verbs share.

Each is checked when it is read, before a verb runs and loads torch: a wrong path is answered at once.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from sniper.data.place import existing_dataset, existing_proposals
from sniper.errors import RecipeError
from sniper.training.weights_file import checkpoint_file


def _device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|(cuda|mps|xpu|hpu|mtia)(:\d+)?", name):
        raise RecipeError(f"--device {name}: expected auto, cpu, cuda, or a number of several, such as cuda:1")
    return name


def _checkpoint(path: Path) -> Path:
    checkpoint_file(path)
    return path


def _dataset(path: str) -> str:
    existing_dataset(path)
    return path


def _proposals(path: Path | None) -> Path | None:
    return None if path is None else existing_proposals(path)


def _bad_image(value: str) -> str:
    return bad_image(value)


SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting: train.learning_rate=0.01")
]
DataArgument = Annotated[
    str, typer.Argument(help="COCO JSON, YOLO data.yaml or folder, or Pascal VOC folder.", callback=_dataset)
]
SplitOption = Annotated[str | None, typer.Option(help="Split of the dataset, where it holds several.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...", callback=_device)]
BadImageOption = Annotated[
    str,
    typer.Option("--on-bad-image", help="stop, or skip: go on and list what was skipped.", callback=_bad_image),
]
ProposalsOption = Annotated[
    Path | None,
    typer.Option(help="Proposals (sniper propose, or COCO results JSON): negative chips too.", callback=_proposals),
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
CheckpointArgument = Annotated[Path, typer.Argument(help=".safetensors file or run folder.", callback=_checkpoint)]


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
