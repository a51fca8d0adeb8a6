"""The verbs that show what training would see, or write it for others: stats, preview and export."""

from pathlib import Path
from typing import Annotated

import typer

from sniper.cli.display import progress, say, show_skipped, show_table, warn
from sniper.cli.options import (
    ClassesOption,
    DataArgument,
    FormatOption,
    IgnoreFlagsOption,
    ImagesOption,
    ProposalsOption,
    SetOption,
    TrainSplitOption,
    data_source,
    optional_dataset,
)

chips_app = typer.Typer(help="Show what training would see, or write it as files.", no_args_is_help=True)


@chips_app.command()
def stats(
    data: DataArgument,
    recipe: Annotated[str, typer.Option(help="Recipe whose levels and chips are examined.")] = "mobilenetv2",
    set_: SetOption = None,
    split: TrainSplitOption = None,
    format: FormatOption = None,
    images: ImagesOption = None,
    classes: ClassesOption = None,
    ignore_flags: IgnoreFlagsOption = None,
    proposals: ProposalsOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for coverage.json and a histogram.")
    ] = None,
) -> None:
    """Which objects are valid where, and what an epoch costs against the alternatives."""
    from sniper.recipe import Recipe

    settings = Recipe.load(recipe, set_ or [])
    source = data_source(data, split, format, images, classes, ignore_flags)

    from sniper.pipeline.chips import chip_stats

    report = chip_stats(settings, source, proposals=proposals, output=output)
    for title, columns, rows in report.tables():
        show_table(title, columns, rows)
    for warning in report.warnings():
        warn(warning)


@chips_app.command()
def preview(
    data: DataArgument,
    recipe: Annotated[str, typer.Option(help="Recipe whose levels and chips are drawn.")] = "mobilenetv2",
    set_: SetOption = None,
    split: TrainSplitOption = None,
    format: FormatOption = None,
    images: ImagesOption = None,
    classes: ClassesOption = None,
    ignore_flags: IgnoreFlagsOption = None,
    proposals: ProposalsOption = None,
    count: Annotated[int, typer.Option(help="Images to draw.", min=1)] = 8,
    epoch: Annotated[int, typer.Option(help="Epoch whose chips are drawn.", min=0)] = 0,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the drawings.")] = Path("runs/chips"),
) -> None:
    """Draw the chips of some images: one colour per level, valid and ignored objects told apart."""
    from sniper.recipe import Recipe

    settings = Recipe.load(recipe, set_ or [])
    source = data_source(data, split, format, images, classes, ignore_flags)

    from sniper.pipeline.chips import chip_preview

    written = chip_preview(
        settings,
        source,
        proposals=proposals,
        count=count,
        epoch=epoch,
        output=output,
    )
    say(f"{len(written)} drawings in {output}")


@chips_app.command()
def export(
    data: DataArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder.")],
    to: Annotated[str, typer.Option(metavar="coco|yolo", help="Form to write.")],
    recipe: Annotated[str, typer.Option(help="Recipe whose levels and chips are written.")] = "mobilenetv2",
    set_: SetOption = None,
    split: TrainSplitOption = None,
    format: FormatOption = None,
    images: ImagesOption = None,
    classes: ClassesOption = None,
    ignore_flags: IgnoreFlagsOption = None,
    proposals: ProposalsOption = None,
    val: Annotated[
        str | None, typer.Option(help="Dataset whose chips become the part val.", callback=optional_dataset)
    ] = None,
    val_split: Annotated[str | None, typer.Option(help="Split of --val; none: val, or test.")] = None,
    ignored: Annotated[
        str | None,
        typer.Option(
            metavar="crowd|blank|drop",
            help="Ignored objects: iscrowd (coco), painted over (yolo), or neither: background for the trainer.",
        ),
    ] = None,
    epoch: Annotated[int, typer.Option(help="Epoch whose chips are written.", min=0)] = 0,
    lossless: Annotated[bool, typer.Option("--lossless", help="PNG in place of JPEG.")] = False,
    masks: Annotated[bool, typer.Option("--masks", help="Outlines of the objects too, cut to the chip.")] = False,
) -> None:
    """Write the chips of an epoch as images with annotations, for other trainers; chips.json leads back."""
    from sniper.recipe import Recipe

    settings = Recipe.load(recipe, set_ or [])
    source = data_source(data, split, format, images, classes, ignore_flags)
    other = None if val is None else data_source(val, val_split, None, None, None, ignore_flags)

    from sniper.pipeline.chip_export import prepare_export

    prepared = prepare_export(
        source,
        to=to,  # type: ignore[arg-type]  # checked there
        output=output,
        recipe=settings,
        val=other,
        proposals=proposals,
        epoch=epoch,
        ignored=ignored,  # type: ignore[arg-type]  # checked there
        lossless=lossless,
        masks=masks,
    )
    with progress("chips", len(prepared)) as on_progress:
        done = prepared.write(on_progress)
    for name, count in done.chips.items():
        objects, left = done.objects[name], done.ignored[name]
        say(f"{name}: {count} chips, {objects} objects to learn, {left} ignored ({prepared.ignored})")
    show_skipped(done.skipped)
    say(f"dataset: {done.data}")
