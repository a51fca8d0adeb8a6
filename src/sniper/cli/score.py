"""The verb that measures detections of any tool."""

from pathlib import Path
from typing import Annotated

import typer

from sniper.cli.display import say, show_table
from sniper.cli.options import (
    ClassesOption,
    DataArgument,
    FormatOption,
    ImagesOption,
    ProtocolOption,
    ValSplitOption,
    data_source,
    protocol_names,
)


def score(
    detections: Annotated[
        Path, typer.Argument(help="COCO results JSON, a folder in WIDER FACE's layout, or a detection table.")
    ],
    data: DataArgument,
    split: ValSplitOption = None,
    format: FormatOption = None,
    images: ImagesOption = None,
    classes: ClassesOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for metrics.json and curves; none: no files.")
    ] = None,
    protocols: ProtocolOption = None,
) -> None:
    """Measure detections that any tool has written, by the COCO protocol or others; the images need not be there."""
    names = protocol_names(protocols) or ("coco",)
    source = data_source(data, split, format, images, classes)

    from sniper.pipeline.score import score as run

    done = run(detections, source, protocols=names, output=output)
    for one in done.scores:
        for title, columns, rows in one.tables:
            show_table(title, columns, rows)
    if output is not None:
        say(f"results: {output}")
