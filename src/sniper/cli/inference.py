"""The verbs that run a trained detector: evaluate, predict, propose."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sniper.cli.display import progress, progress_of_windows, say, show_skipped, show_table
from sniper.cli.loading import importing
from sniper.cli.options import (
    BadImageOption,
    BudgetOption,
    CheckpointArgument,
    ClassesOption,
    DataArgument,
    DeviceOption,
    FocusOption,
    FormatOption,
    FormOption,
    IgnoreFlagsOption,
    ImagesOption,
    NetworkArgument,
    ProcessesOption,
    ProtocolOption,
    SetOption,
    TrainSplitOption,
    ValSplitOption,
    bad_image,
    data_source,
    protocol_names,
)
from sniper.errors import DataError, RecipeError
from sniper.files import existing

if TYPE_CHECKING:
    from sniper.pipeline.evaluate import Evaluation


def _classes(path: Path | None) -> Path | None:
    return None if path is None else existing(path, "give a file that sniper classes learn has written")


def evaluate(
    checkpoint: NetworkArgument,
    data: DataArgument,
    split: ValSplitOption = None,
    format: FormatOption = None,
    images: ImagesOption = None,
    classes: ClassesOption = None,
    ignore_flags: IgnoreFlagsOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for predictions.json and curves.")
    ] = None,
    focus_threshold: FocusOption = None,
    pixel_budget: BudgetOption = None,
    processes: ProcessesOption = 1,
    device: DeviceOption = "auto",
    form: FormOption = None,
    set_: SetOption = None,
    on_bad_image: BadImageOption = "stop",
    protocols: ProtocolOption = None,
    class_map: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What class of the data a class of the detector counts for: lines of one, a tab, the other. None: the "
            "names are the same.",
        ),
    ] = None,
) -> None:
    """Measure a checkpoint on a dataset by one protocol or more; with --output, a stopped one goes on where it was."""
    names = protocol_names(protocols)

    with importing():
        from sniper.data.class_map import read_class_map
        from sniper.pipeline.evaluate import evaluate as run
        from sniper.pipeline.shards import opened
        from sniper.pipeline.tables import table_for

    bad, by_ranks = bad_image(on_bad_image), _is_launched()
    source = data_source(data, split, format, images, classes, ignore_flags)
    model = opened(checkpoint, None, device, by_ranks=by_ranks, form=form, overrides=set_ or [])
    model = model.focused(focus_threshold, pixel_budget)
    mapped = None if class_map is None else read_class_map(class_map, model.class_names)
    known_as = model.class_names if mapped is None else mapped.names
    table = table_for(known_as, source, on_bad_image=bad, class_agnostic=model.recipe.data.class_agnostic)
    folder = output or numbered(Path("runs/evaluate"), "evaluate")
    with progress("images", len(table)) as on_progress:
        done = run(
            model,
            table,
            output=folder,
            protocols=names,
            class_map=mapped,
            processes=processes,
            by_ranks=by_ranks,
            on_bad_image=bad,
            on_progress=on_progress,
        )
    if not is_main():
        return
    show_evaluation(done)
    show_skipped(done.skipped)
    speed = f"{len(done.detections) / done.seconds:.2f} images/s, {done.pixels_per_image / 1e6:.2f} Mpx an image"
    say(f"{speed}{_pixels(done.pixel_share)}, results: {folder}")


def predict(
    checkpoint: NetworkArgument,
    sources: Annotated[list[str], typer.Argument(help="Images, globs, folders and videos.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for predictions.json, GeoJSON and drawings.")
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(help="Detections below it are left out of results and drawings; none: 0.05.", min=0, max=1),
    ] = None,
    draw_min_score: Annotated[
        float | None,
        typer.Option(
            help="Detections below it are not drawn; none: for each class the score with the best F1 on the evaluation "
            "data, which training keeps in the checkpoint, or 0.3.",
            min=0,
            max=1,
        ),
    ] = None,
    draw: Annotated[bool, typer.Option(help="Write drawn images and videos.")] = True,
    draw_focus: Annotated[
        bool, typer.Option("--draw-focus", help="AutoFocus: draw focus maps and chips of each image, <stem>-focus.jpg.")
    ] = False,
    blur: Annotated[
        bool,
        typer.Option("--blur", help="Make detections unrecognisable in images and videos instead of drawing them."),
    ] = False,
    focus_threshold: FocusOption = None,
    pixel_budget: BudgetOption = None,
    processes: ProcessesOption = 1,
    device: DeviceOption = "auto",
    form: FormOption = None,
    set_: SetOption = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            "--classes", metavar="FILE", help="Find these classes instead (sniper classes learn).", callback=_classes
        ),
    ] = None,
    reject_below: Annotated[
        float | None,
        typer.Option(
            help="With --classes: regions whose class is less probable are rejected, 0 rejects none; none: the "
            "threshold that learning has set.",
            min=0,
            max=1,
        ),
    ] = None,
    on_bad_image: BadImageOption = "stop",
) -> None:
    """Detect in images of any size, folders and videos; with --output, a stopped one goes on where it was."""
    from sniper.pipeline.source_files import expand, is_video

    bad, by_ranks = bad_image(on_bad_image), _is_launched()
    overrides = list(set_ or [])
    if reject_below is not None:
        if classes is None:
            raise RecipeError("--reject-below is for learned classes: give their file with --classes, or leave it out")
        overrides.append(f"inference.reject_below={reject_below}")
    paths = expand(sources)

    with importing():
        from sniper.pipeline.predict import predict as run
        from sniper.pipeline.shards import opened
        from sniper.pipeline.sources import video_facts

    model = opened(checkpoint, None, device, by_ranks=by_ranks, form=form, overrides=overrides, classes=classes)
    model = model.focused(focus_threshold, pixel_budget)
    total = 0
    for path in paths:
        try:
            total += video_facts(path).frames if is_video(path) else 1
        except DataError:
            if bad == "stop":
                raise
    folder = output or numbered(Path("runs/predict"), "predict")
    with progress_of_windows("images", total) as (on_progress, on_window_progress):
        done = run(
            model,
            paths,
            output=folder,
            keep=False,
            min_score=min_score,
            draw_min_score=draw_min_score,
            draw=draw,
            draw_focus=draw_focus,
            blur=blur,
            processes=processes,
            by_ranks=by_ranks,
            on_bad_image=bad,
            on_progress=on_progress,
            on_window_progress=on_window_progress,
        )
    if not is_main():
        return
    show_skipped(done.skipped)
    say(f"{done.detections} detections in {done.images} images{_pixels(done.pixel_share)}, results: {folder}")


def propose(
    checkpoint: CheckpointArgument,
    data: DataArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help=".safetensors file to write.")],
    split: TrainSplitOption = None,
    format: FormatOption = None,
    images: ImagesOption = None,
    classes: ClassesOption = None,
    ignore_flags: IgnoreFlagsOption = None,
    max_per_image: Annotated[
        int | None, typer.Option("--max-per-image", "--top", help="Best proposals kept of an image; none: all.", min=1)
    ] = None,
    min_score: Annotated[float, typer.Option(help="Proposals below it are dropped.", min=0, max=1)] = 0.0,
    nms: Annotated[float, typer.Option(help="IoU above which the weaker of two proposals goes.", max=1)] = 0.7,
    detections: Annotated[
        bool, typer.Option("--detections", help="Finished detections instead: the hardest false positives, and few.")
    ] = False,
    window_share: Annotated[
        float, typer.Option(help="Chance of each window to be run; below 1 for large data sets.", max=1)
    ] = 1.0,
    processes: ProcessesOption = 1,
    device: DeviceOption = "auto",
    on_bad_image: BadImageOption = "stop",
) -> None:
    """Write class-free proposals of a dataset, for negative chips; a stopped extraction goes on where it was."""
    if nms <= 0:
        raise RecipeError(f"--nms is an IoU above 0, got {nms:g}")
    if window_share <= 0:
        raise RecipeError(f"--window-share is a share above 0, got {window_share:g}")

    from sniper.inference.config import ProposeConfig

    with importing():
        from sniper.pipeline.propose import propose as run
        from sniper.pipeline.shards import opened
        from sniper.pipeline.tables import table_for

    bad, by_ranks = bad_image(on_bad_image), _is_launched()
    source = data_source(data, split, format, images, classes, ignore_flags)
    model = opened(checkpoint, None, device, by_ranks=by_ranks)
    agnostic = model.recipe.data.class_agnostic
    table = table_for(model.class_names, source, role="train", on_bad_image=bad, class_agnostic=agnostic)
    config = ProposeConfig(
        nms_iou=nms,
        max_per_image=max_per_image,
        min_score=min_score,
        boxes="detections" if detections else "proposals",
        window_share=window_share,
    )
    with progress("images", len(table)) as on_progress:
        done = run(
            model,
            table,
            output,
            config=config,
            processes=processes,
            by_ranks=by_ranks,
            on_bad_image=bad,
            on_progress=on_progress,
        )
    if not is_main():
        return
    show_skipped(done.skipped)
    state = "was done before: the same weights, data and settings" if done.reused else "written"
    say(f"{done.detections.num_objects} proposals of {len(done.detections)} images, {done.path} {state}")


def show_evaluation(done: "Evaluation") -> None:
    """The tables of every protocol; then the scores to draw from, and the kinds of errors."""
    for score in done.scores:
        for title, columns, rows in score.tables:
            show_table(title, columns, rows)
    show_table(*done.best_f1_table())
    say(f"Errors: {done.errors.sentence()}")


def _pixels(share: float) -> str:
    return f", {share:.0%} of the full pyramid's pixels" if share < 1 else ""


def _is_launched() -> bool:
    """Whether torchrun or accelerate has started this command several times, to work together."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_main() -> bool:
    """Whether this process is the one of its launch that tells what came out."""
    return int(os.environ.get("RANK", "0")) == 0


def numbered(parent: Path, stem: str) -> Path:
    """The first of ``stem``, ``stem2``, ``stem3``, ... that does not exist; the same in all processes of a launch."""
    if _is_launched():
        from sniper.training.devices import on_main

        return on_main(lambda: _first_free(parent, stem))
    return _first_free(parent, stem)


def _first_free(parent: Path, stem: str) -> Path:
    number = 1
    while (folder := parent / (stem if number == 1 else f"{stem}{number}")).exists():
        number += 1
    return folder
