"""The verbs about datasets alone: check and convert."""

from pathlib import Path
from typing import Annotated

import typer

from sniper.cli.display import progress, say, show_table
from sniper.cli.inference import numbered
from sniper.cli.options import ClassesOption, DataArgument, FormatOption, ImagesOption, class_list, form_of
from sniper.errors import RecipeError


def check(
    data: Annotated[list[str], typer.Argument(help="Datasets that are used together; all splits of each.")],
    split: Annotated[str | None, typer.Option(help="This split only; none: all splits.")] = None,
    format: FormatOption = None,
    images: ImagesOption = None,
    classes: ClassesOption = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for check.json and index.html.")] = None,
    fix: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write COCO files without what is wrong into a new folder.")
    ] = None,
    open_images: Annotated[
        bool, typer.Option("--open/--no-open", help="Open every image, or check annotations only.")
    ] = True,
    threads: Annotated[int | None, typer.Option(help="Threads that open images; none: one a core.", min=1)] = None,
) -> None:
    """Find what is wrong or suspicious in datasets, and show the worst cases; exit code 1 if something is wrong."""
    from sniper.data.options import OF_VERBS
    from sniper.pipeline.check import check as run
    from sniper.pipeline.check import load_parts

    loaded = load_parts(
        data,
        split=split,
        format=form_of(format, "--format"),
        images=images,
        classes=class_list(classes),
        masks=fix is not None,
        options=OF_VERBS,
    )
    folder = output or numbered(Path("runs/check"), "check")
    with progress("images", loaded.images if open_images else 0) as on_progress:
        report = run(loaded, output=folder, fix=fix, open_images=open_images, threads=threads, on_progress=on_progress)
    rows = [
        [row.kind.value, "wrong" if row.kind.is_wrong else "suspicious", str(row.files), str(row.objects)]
        for row in report.rows()
    ]
    if rows:
        show_table("Findings", ["what", "", "images", "boxes"], rows)
    for row in report.rows():
        say(f"{row.kind.value}, e.g. {report.sentence(row.worst)}")
    for file, changes in report.repaired.items():
        say(f"{file}: {'; '.join(changes) or 'nothing to repair'}")
    say(f"{'nothing is wrong' if report.is_sound else 'something is wrong'}; all findings: {folder / 'index.html'}")
    if not report.is_sound:
        raise typer.Exit(1)


def convert(
    data: DataArgument,
    to: Annotated[str, typer.Option(metavar="coco|yolo|voc", help="Form to write.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder.")],
    split: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE|NAME",
            help="0.8: so many images go to train, the others to val. A name: this split only. None: all splits.",
        ),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="Regular expression on file names: images for which it finds the same stay together: '^(.+?)_'.",
        ),
    ] = None,
    masks: Annotated[bool, typer.Option("--masks", help="yolo: write outlines in place of boxes.")] = False,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the images; else they are linked or referred to.")] = False,
    seed: Annotated[int, typer.Option(help="Another one divides otherwise.")] = 0,
    format: FormatOption = None,
    images: ImagesOption = None,
    classes: ClassesOption = None,
) -> None:
    """Write a dataset in another form, divided or not, and tell what the form cannot hold."""
    from sniper.data.options import OF_VERBS
    from sniper.pipeline.convert import convert as run

    with progress("images", 0) as on_progress:
        done = run(
            data,
            to=to,  # type: ignore[arg-type]  # checked there
            output=output,
            split=_share_or_name(split),
            group_by=group_by,
            masks=masks,
            copy=copy,
            seed=seed,
            format=form_of(format, "--format"),
            images=images,
            classes=class_list(classes),
            options=OF_VERBS,
            on_progress=on_progress,
        )
    for name, count in done.images.items():
        say(f"{name}: {count} images, {done.objects[name]} objects")
    for line in done.lost:
        say(f"{to} does not hold: {line}")
    if done.missing_images:
        say(f"{done.missing_images} image files are not there and were neither linked nor copied")
    say(f"dataset: {done.data}")


def _share_or_name(split: str | None) -> float | str | None:
    """What ``--split`` says."""
    if split is None:
        return None
    try:
        return float(split)
    except ValueError:
        if not split.strip():
            raise RecipeError("--split is a share such as 0.8, or the name of a split; got nothing") from None
        return split
