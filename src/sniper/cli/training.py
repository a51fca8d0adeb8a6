"""The verb that trains."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sniper.cli.display import err, say, show_skipped
from sniper.cli.inference import is_main, show_evaluation
from sniper.cli.loading import importing
from sniper.cli.options import (
    BadImageOption,
    ClassesOption,
    FormatOption,
    IgnoreFlagsOption,
    ImagesOption,
    ProtocolOption,
    SetOption,
    bad_image,
    class_list,
    flag_names,
    form_of,
    protocol_names,
)
from sniper.errors import RecipeError
from sniper.pipeline.short_forms import short_overrides

if TYPE_CHECKING:
    from sniper.pipeline.train import TrainedRun
    from sniper.recipe import Recipe


def train(
    recipe: Annotated[str | None, typer.Argument(help="YAML file or shipped recipe; not with --resume.")] = None,
    set_: SetOption = None,
    data: Annotated[str | None, typer.Option(help="Training data; short for --set data.train=...")] = None,
    val: Annotated[str | None, typer.Option(help="Evaluation data; short for --set data.evaluate=...")] = None,
    split: Annotated[str | None, typer.Option(help="Split of the training data; none: train.")] = None,
    val_split: Annotated[
        str | None, typer.Option(help="Split of the evaluation data; none: val, or test if there is no val.")
    ] = None,
    format: FormatOption = None,
    val_format: Annotated[
        str | None,
        typer.Option(
            metavar="coco|yolo|voc|openimages|wider|imagenet", help="Form of the evaluation data; none: format."
        ),
    ] = None,
    images: ImagesOption = None,
    val_images: Annotated[
        Path | None, typer.Option(help="Folder of the images of the evaluation data; none: as --images.")
    ] = None,
    classes: ClassesOption = None,
    ignore_flags: IgnoreFlagsOption = None,
    negatives: Annotated[
        str | None,
        typer.Option(
            metavar="auto|self|FILE",
            help="Hard-negative chips: from proposals that are made first (auto), from the detector itself after two "
            "thirds of the training or every negatives.refresh_epochs (self), or from a file.",
        ),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Checkpoint or run folder to start from; short for --set weights=...")
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Length; short for --set train.epochs=...")] = None,
    minutes: Annotated[float | None, typer.Option(help="Length; short for --set train.minutes=...")] = None,
    batch: Annotated[
        int | None, typer.Option(help="Chips of a batch on each device; short for --set loader.batch_size=...")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto or cpu; short for --set train.device=...")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random; short for --set train.seed=...")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run folder; none: numbered.")] = None,
    root: Annotated[Path, typer.Option(help="Where run folders are made.")] = Path("runs"),
    resume: Annotated[Path | None, typer.Option(help="Run folder to continue exactly.")] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Write a trace of some steps, trace.json, and tell where their time goes.")
    ] = False,
    on_bad_image: BadImageOption = "stop",
    protocols: ProtocolOption = None,
) -> None:
    """Train a detector on chips."""
    if (recipe is None) == (resume is None):
        raise RecipeError("sniper train takes a recipe, or --resume RUN, and not both; see 'sniper models' for recipes")
    words = short_overrides(
        split=split,
        format=form_of(format, "--format"),
        images=images,
        classes=class_list(classes),
        ignore_flags=flag_names(ignore_flags) or None,
        val_split=val_split,
        val_format=form_of(val_format, "--val-format"),
        val_images=val_images,
        data=data or None,
        val=val or None,
        negatives=negatives or None,
        weights=weights or None,
        epochs=epochs,
        minutes=minutes,
        batch=batch,
        device=device,
        seed=seed,
        on_bad_image=None if on_bad_image == "stop" else bad_image(on_bad_image),
        protocols=protocol_names(protocols),
    )
    settings = _settings(recipe, [*(set_ or []), *words], resume)

    with importing():
        from sniper.pipeline.train import train as run

    done = run(settings, name=name, root=root, resume=resume, profile=profile, log=lambda text: say(text, err))
    if is_main():
        _show(done)
    if done.result.signal is not None:
        raise typer.Exit(128 + done.result.signal)  # so that what should come after it does not


def _show(done: "TrainedRun") -> None:
    if done.evaluation is not None:
        show_evaluation(done.evaluation)
    show_skipped(done.skipped)
    if done.result.shares is not None:
        say(f"{done.result.shares.sentence()}\ntrace: {done.result.run.trace}")
    state = "finished" if done.result.finished else f"stopped; go on with: sniper train --resume {done.folder}"
    say(f"{done.result.step} steps, {done.result.minutes:.1f} min, {state}\nrun folder: {done.folder}")


def _settings(recipe: str | None, overrides: list[str], resume: Path | None) -> "Recipe":
    """The recipe, its own or that of the run, whose files are there."""
    from sniper.pipeline.named_files import require_named_files
    from sniper.recipe import Recipe
    from sniper.training.run import RunFolder

    former = None if resume is None else RunFolder.open(resume)
    settings = Recipe.load(former.recipe if former is not None else str(recipe), overrides)
    require_named_files(settings, fresh=former is None or not former.state.is_file())
    return settings
