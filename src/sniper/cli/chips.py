"""The verbs that show what training would see: stats and preview."""

from pathlib import Path
from typing import Annotated

import typer

from sniper.cli.display import say, show_table, warn
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
)

chips_app = typer.Typer(help="Show what training would see.", no_args_is_help=True)


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
