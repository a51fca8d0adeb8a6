"""Arguments and options that several verbs share.

Each is checked when it is read, before a verb runs and loads torch: a wrong path is answered at once.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from sniper.data.place import existing_dataset, existing_proposals
from sniper.errors import DataError, RecipeError
from sniper.training.weights_file import checkpoint_file, is_named

if TYPE_CHECKING:
    from sniper.data.options import Format, IgnorableFlag
    from sniper.data.source import DataSource
    from sniper.evaluation.config import ProtocolName


def _device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|(cuda|mps|xpu|hpu|mtia)(:\d+)?", name):
        raise RecipeError(f"--device {name}: expected auto, cpu, cuda, or a number of several, such as cuda:1")
    return name


def named_checkpoint(path: Path) -> Path:
    """A checkpoint, or the name of a detector that has weights of its own."""
    if not is_named(path):
        checkpoint_file(path)
    return path


def optional_checkpoint(path: Path | None) -> Path | None:
    """A checkpoint that need not be named, and is one if it is."""
    return None if path is None else named_checkpoint(path)


def _dataset(path: str) -> str:
    existing_dataset(path)
    return path


def optional_dataset(path: str | None) -> str | None:
    """A dataset that need not be named, and is there if it is."""
    return None if path is None else _dataset(path)


def _proposals(path: Path | None) -> Path | None:
    return None if path is None else existing_proposals(path)


def _bad_image(value: str) -> str:
    return bad_image(value)


SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting: train.learning_rate=0.01")
]
DataArgument = Annotated[
    str,
    typer.Argument(
        help="COCO JSON, YOLO data.yaml or folder, Pascal VOC, OpenImages or WIDER FACE folder.", callback=_dataset
    ),
]
TrainSplitOption = Annotated[str | None, typer.Option("--split", help="Split of the data; none: train.")]
ValSplitOption = Annotated[str | None, typer.Option("--split", help="Split; none: val, or test if there is no val.")]
FormatOption = Annotated[
    str | None,
    typer.Option("--format", metavar="coco|yolo|voc|openimages|wider|imagenet", help="Form of the data; none: found."),
]
ImagesOption = Annotated[
    Path | None, typer.Option("--images", help="Folder of the images; none: the usual ones are looked in.")
]
ClassesOption = Annotated[
    str | None,
    typer.Option("--classes", metavar="A,B|FILE", help="Only these classes, in this order; a file lists one a line."),
]
IgnoreFlagsOption = Annotated[
    str | None,
    typer.Option("--ignore-flags", metavar="A,B", help="Ignore objects with these: depiction, inside, occluded, ..."),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...", callback=_device)]
BadImageOption = Annotated[
    str,
    typer.Option("--on-bad-image", help="stop, or skip: go on and list what was skipped.", callback=_bad_image),
]
ProposalsOption = Annotated[
    Path | None,
    typer.Option(help="Proposals (sniper propose, or COCO results JSON): negative chips too.", callback=_proposals),
]
ProtocolOption = Annotated[
    list[str] | None,
    typer.Option(
        "--protocol",
        metavar="coco|voc|openimages|wider|imagenet",
        help="How detections are measured; may be given several times. None: as the recipe says.",
    ),
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
CheckpointArgument = Annotated[
    Path,
    typer.Argument(
        help=".safetensors file, run folder, torchvision/<detector>, hf/OWNER/NAME or sniper/objects.",
        callback=named_checkpoint,
    ),
]
NetworkArgument = Annotated[
    Path,
    typer.Argument(
        help=".safetensors file, run folder, ONNX file, torchvision/<detector>, hf/OWNER/NAME or sniper/objects.",
        callback=named_checkpoint,
    ),
]
FormOption = Annotated[
    str | None,
    typer.Option(
        "--form", metavar="FILE", help="ONNX from elsewhere: YAML that says what it takes and gives; none: beside it."
    ),
]


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


def protocol_names(values: list[str] | None) -> "tuple[ProtocolName, ...] | None":
    """What ``--protocol`` says, each once.

    Raises:
        RecipeError: none of the protocols.
    """
    from sniper.evaluation.config import PROTOCOL_NAMES

    if not values:
        return None
    known: dict[str, ProtocolName] = {str(name): name for name in PROTOCOL_NAMES}
    for value in values:
        if value not in known:
            raise RecipeError(f"--protocol takes {', '.join(known)}, got {value!r}; give it once for each protocol")
    return tuple(dict.fromkeys(known[value] for value in values))


def data_source(
    data: str,
    split: str | None,
    format: str | None,
    images: Path | None,
    classes: str | None,
    ignore_flags: str | None = None,
) -> "DataSource":
    """The dataset that a verb's argument and options name.

    Raises:
        RecipeError: ``--format`` or ``--ignore-flags`` is none.
        DataError: the file of ``--classes`` cannot be read.
    """
    from sniper.data.options import OF_VERBS
    from sniper.data.source import DataSource

    return DataSource(
        data, split, form_of(format, "--format"), images, class_list(classes), OF_VERBS, flag_names(ignore_flags)
    )


def flag_names(value: str | None) -> "tuple[IgnorableFlag, ...]":
    """What ``--ignore-flags`` says, between commas.

    Raises:
        RecipeError: none of the flags.
    """
    from sniper.data.options import IgnorableFlag

    known: dict[str, IgnorableFlag] = {name: name for name in get_args(IgnorableFlag)}
    names = [name.strip() for name in (value or "").split(",") if name.strip()]
    wrong = [name for name in names if name not in known]
    if wrong:
        raise RecipeError(f"--ignore-flags takes {', '.join(known)}, between commas, got {wrong[0]!r}")
    return tuple(known[name] for name in names)


def form_of(value: str | None, option: str) -> "Format | None":
    """What ``--format`` says.

    Raises:
        RecipeError: none of the forms.
    """
    from sniper.data.options import FORMATS

    known = {str(form): form for form in FORMATS}
    if value is not None and value not in known:
        raise RecipeError(f"{option} takes {', '.join(known)}, got {value!r}")
    return None if value is None else known[value]


def class_list(value: str | None) -> tuple[str, ...] | None:
    """The names that ``--classes`` gives: the lines of a file, or parts between commas.

    Raises:
        DataError: the file cannot be read.
    """
    if value is None:
        return None
    file = Path(value)
    if not file.is_file():
        return tuple(name.strip() for name in value.split(",") if name.strip())
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the class names in {file}: {error}; give a text file, one name a line") from error
    return tuple(line.strip() for line in lines if line.strip())
