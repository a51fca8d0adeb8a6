"""The verbs of classes: those that are learned from photos (learn, add, remove, list), and groups of many."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sniper.cli.display import progress, say, show_table, warn
from sniper.cli.loading import importing
from sniper.cli.options import (
    ClassesOption,
    DataArgument,
    DeviceOption,
    FormatOption,
    ImagesOption,
    TrainSplitOption,
    data_source,
    named_checkpoint,
)
from sniper.errors import RecipeError
from sniper.files import existing
from sniper.new_classes.objects import OBJECTS

if TYPE_CHECKING:
    from sniper.pipeline.learned import LearnedClasses

classes_app = typer.Typer(help="Learn classes from a few photos without boxes.", no_args_is_help=True)


def _head(path: Path) -> Path:
    return existing(path, "give a file that sniper classes learn has written")


def _folder(path: Path) -> Path:
    return existing(path, "give a folder with one subfolder of photos a class")


HeadArgument = Annotated[
    Path, typer.Argument(help=".safetensors file of learned classes.", metavar="HEAD", callback=_head)
]
PlacesArgument = Annotated[
    list[Path],
    typer.Argument(
        help=f"The detector that finds regions, {OBJECTS} where none is named; then a folder with one subfolder of "
        "photos a class; a subfolder background: photos of none of them. Boxes are used where a Pascal VOC XML lies "
        "beside a photo.",
        metavar="[CHECKPOINT] FOLDER",
    ),
]
PictureOption = Annotated[bool, typer.Option(help="Draw each photo with the region that it taught, beside the output.")]


@classes_app.command()
def learn(
    places: PlacesArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help=".safetensors file to write.")],
    features: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What describes regions: detector (its own trunk), torchvision/<model>, or a model of timm.",
        ),
    ] = "detector",
    feature_weights: Annotated[
        str | None, typer.Option(metavar="FILE", help="Weights of that model; none: ImageNet's, downloaded.")
    ] = None,
    picture: PictureOption = True,
    device: DeviceOption = "auto",
) -> None:
    """Learn classes from photos; sniper predict --classes then finds them."""
    _require_safetensors(output)
    checkpoint, folder = _detector_and_folder(places)
    if feature_weights is not None and features == "detector":
        raise RecipeError("--feature-weights are those of a model that --features names; give both or neither")
    with importing():
        from sniper.pipeline.learn_classes import learn_classes
        from sniper.pipeline.photo_folder import read_photo_folder

    with progress("photos", len(read_photo_folder(folder))) as on_progress:
        done = learn_classes(
            checkpoint,
            folder,
            output,
            features=features,
            feature_weights=feature_weights,
            device=device,
            on_progress=on_progress,
        )
    _show(done, output, picture)
    say(f"to find them: sniper predict {checkpoint.as_posix()} PHOTOS --classes {output}")


@classes_app.command()
def add(
    head: HeadArgument,
    places: PlacesArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help=".safetensors file to write; none: HEAD is replaced.")
    ] = None,
    picture: PictureOption = True,
    device: DeviceOption = "auto",
) -> None:
    """Learn more classes; the photos of those in the file are not needed. A class that is there is learned anew."""
    target = output or head
    _require_safetensors(target)
    checkpoint, folder = _detector_and_folder(places)
    with importing():
        from sniper.pipeline.learn_classes import add_classes
        from sniper.pipeline.photo_folder import read_photo_folder

    with progress("photos", len(read_photo_folder(folder))) as on_progress:
        done = add_classes(head, checkpoint, folder, target, device=device, on_progress=on_progress)
    _show(done, target, picture)


@classes_app.command()
def remove(
    head: HeadArgument,
    names: Annotated[list[str], typer.Argument(help="Classes to forget.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help=".safetensors file to write; none: HEAD is replaced.")
    ] = None,
) -> None:
    """Forget classes; the others are not learned again."""
    target = output or head
    _require_safetensors(target)
    with importing():
        from sniper.pipeline.learn_classes import remove_classes
        from sniper.pipeline.learned import expectation

    rest = remove_classes(head, names, target)
    say(expectation(rest))
    say(f"{len(rest)} classes: {', '.join(rest.class_names)}, written: {target}")


@classes_app.command("list")
def list_(head: HeadArgument) -> None:
    """Show the classes of a file, and what to expect of them."""
    with importing():
        from sniper.new_classes.head_file import load_head
        from sniper.pipeline.learned import expectation

    known = load_head(head)
    counts = known.photo_counts().tolist()
    show_table(
        f"{head}: {known.classifier.kind} over features of {known.features.name}",
        ["class", "photos"],
        [[name, str(count)] for name, count in zip(known.class_names, counts, strict=True)],
    )
    say(expectation(known))


@classes_app.command()
def group(
    data: DataArgument,
    super_classes: Annotated[int, typer.Option(help="How many groups.", min=1)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Text file to write, for model.clusters.")],
    features: Annotated[
        str, typer.Option(metavar="NAME", help="Network that looks at a crop of each object: a model of timm, or this.")
    ] = "torchvision/mobilenet_v2",
    feature_weights: Annotated[
        str, typer.Option(metavar="FILE", help="Its weights; imagenet: downloaded.")
    ] = "imagenet",
    objects: Annotated[int, typer.Option(help="Objects of each class that are looked at.", min=1)] = 50,
    seed: Annotated[int, typer.Option(help="Which these are, and where k-means begins.")] = 0,
    split: TrainSplitOption = None,
    format: FormatOption = None,
    images: ImagesOption = None,
    classes: ClassesOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Group the classes of a dataset by looks: the super-classes of an R-FCN-3K detector."""
    with importing():
        from sniper.pipeline.class_groups import group_by_looks

    source = data_source(data, split, format, images, classes, None)
    with progress("images", 0) as on_progress:
        found = group_by_looks(
            source,
            super_classes,
            output,
            features=features,
            feature_weights=feature_weights,
            objects=objects,
            seed=seed,
            device=device,
            on_progress=on_progress,
        )
    members: dict[int, list[str]] = {}
    for name, number in found.items():
        members.setdefault(number, []).append(name)
    rows = [[str(number), str(len(names)), _some(names)] for number, names in sorted(members.items())]
    show_table(f"{len(found)} classes in {len(members)} super-classes", ["", "classes", ""], rows)
    say(f"written: {output}; train with --set model.super_classes={super_classes} --set model.clusters={output}")


def _some(names: list[str], count: int = 8) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


def _detector_and_folder(places: list[Path]) -> tuple[Path, Path]:
    if len(places) > 2:
        raise RecipeError(
            f"expected a detector and a folder, got {len(places)} paths; put the photos of all classes into subfolders "
            "of one folder"
        )
    detector = Path(OBJECTS) if len(places) == 1 else places[0]
    return named_checkpoint(detector), _folder(places[-1])


def _require_safetensors(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise RecipeError(f"--output {path}: learned classes are written as .safetensors; name it so")


def _show(done: "LearnedClasses", output: Path, picture: bool) -> None:
    from sniper.pipeline.learned import expectation
    from sniper.pipeline.learned_sheet import write_sheet

    for warning in done.warnings:
        warn(warning)
    drawn = ""
    if picture:
        sheet = output.with_suffix(".jpg")
        write_sheet(done, sheet)
        drawn = f", what they were learned from: {sheet}"
    say(expectation(done.head))
    names = ", ".join(done.head.class_names)
    say(f"{len(done.head)} classes ({names}) from {len(done.photos)} photos, {done.seconds:.1f} s: {output}{drawn}")
