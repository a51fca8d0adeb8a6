"""The verb that tells before a training what it looks at, costs and takes."""

import json
from pathlib import Path
from typing import Annotated

import typer

from sniper.cli.display import say, show_table, warn
from sniper.cli.loading import importing
from sniper.cli.options import (
    ClassesOption,
    DataArgument,
    FormatOption,
    IgnoreFlagsOption,
    ImagesOption,
    SetOption,
    TrainSplitOption,
    data_source,
    optional_checkpoint,
    optional_dataset,
)


def plan(
    data: DataArgument,
    val: Annotated[
        str | None,
        typer.Option(
            help="Data to test on: test pixels are of its images; none: of DATA's.", callback=optional_dataset
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Recipe whose levels, detector and training are planned; none: the checkpoint's, or mobilenetv2."
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="Measure at what sizes this one sees objects well, on some images, and derive the levels for that.",
            callback=optional_checkpoint,
        ),
    ] = None,
    set_: SetOption = None,
    split: TrainSplitOption = None,
    val_split: Annotated[
        str | None, typer.Option(help="Split of --val; none: val, or test if there is no val.")
    ] = None,
    format: FormatOption = None,
    images: ImagesOption = None,
    classes: ClassesOption = None,
    ignore_flags: IgnoreFlagsOption = None,
    gpus: Annotated[int | None, typer.Option(help="Also project to so many GPUs.", min=1)] = None,
    gpu_memory: Annotated[float | None, typer.Option(help="Memory of each GPU, GB.", min=1)] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Tell what these buy; none: how long the recipe's training takes.", min=0.01)
    ] = None,
    calibration: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="Time training steps on this machine for so long; 0: not.", min=0, max=30),
    ] = 20.0,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON in place of tables.")] = False,
) -> None:
    """Levels and why, pixels, time and memory of a training, and whether chips, tiles or whole images suit the data."""
    from sniper.recipe import Recipe

    overrides = set_ or []
    settings = Recipe.load(recipe or "mobilenetv2", overrides) if recipe or checkpoint is None else None
    source = data_source(data, split, format, images, classes, ignore_flags)
    tested = None if val is None else data_source(val, val_split, format, None, None, ignore_flags)

    with importing():
        from sniper.pipeline.model import load_model
        from sniper.pipeline.plan import own_recipe
        from sniper.pipeline.plan import plan as make

    model = None if checkpoint is None else load_model(checkpoint)
    if settings is None and model is not None:
        settings = own_recipe(model).changed(overrides)
    made = make(
        source,
        val=tested,
        recipe=settings,
        checkpoint=model,
        gpus=gpus,
        gpu_memory=gpu_memory,
        minutes=minutes,
        calibration_s=calibration,
    )
    if json_:
        say(json.dumps(made.as_dict(), indent=1))
        return
    for title, columns, rows in made.tables():
        show_table(title, columns, rows)
    for warning in made.coverage.warnings():
        warn(warning)
    for sentence in made.sentences():
        say(sentence)
