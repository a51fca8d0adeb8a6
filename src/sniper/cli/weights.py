"""The verbs that bring weights: import-mxnet and download."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sniper.cli.display import bar_of, say

if TYPE_CHECKING:
    from sniper.fetch import Patience


def import_mxnet(
    file: Annotated[Path, typer.Argument(help=".params or .params.xz file of the 2018 code.")],
    arch: Annotated[str, typer.Option(help="sniper_resnet101, sniper_resnet50 or sniper_mobilenetv2.")],
    output: Annotated[Path, typer.Option("--output", "-o", help=".safetensors file to write.")],
    classes: Annotated[
        Path | None, typer.Option(help="Text file, a class name a line; none: COCO for 80 classes, VOC for 20.")
    ] = None,
) -> None:
    """Turn a checkpoint of the original SNIPER into one that predict and evaluate take."""
    from sniper.detectors.original.config import network_named
    from sniper.files import existing
    from sniper.mxnet.classes import read_class_names

    network = network_named(arch)
    names = read_class_names(classes) if classes is not None else None
    existing(file, "give a .params or .params.xz file of the 2018 code")

    from sniper.pipeline.import_mxnet import import_mxnet as run

    meta = run(file, network, output, class_names=names)
    what = f"{len(meta.class_names)} classes" if meta.class_names else "backbone only, for sniper train --weights"
    say(f"{arch}, {what}: {output}")


def download(
    name: Annotated[
        str,
        typer.Argument(
            help="resnet50 (torchvision), timm/<model>, hf:OWNER/REPO[/FILE][@REVISION] or https://...; "
            "hf/OWNER/NAME: all files of a detector of transformers."
        ),
    ],
    sha256: Annotated[str | None, typer.Option(metavar="HEX", help="Checksum that the file must have.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds of silence after which a server has stalled.", min=0.1)] = 30,
    retries: Annotated[int, typer.Option(help="Tries in a row that bring nothing new.", min=0)] = 5,
) -> None:
    """Fetch weights into the cache folder; a broken transfer goes on where it stopped."""
    from sniper.detectors.from_transformers.models import optional_file, required_files
    from sniper.errors import DownloadError
    from sniper.fetch import Patience, cache_folder

    patience, files = Patience(timeout_s=timeout, retries=retries), required_files(name)
    if sha256 is not None and len(files) > 1:
        raise DownloadError(f"--sha256 is of one file, and {name} has {len(files)}; name one: {', '.join(files)}")
    for file in files:
        _fetch(file, sha256, patience)
    if len(files) > 1:
        try:
            _fetch(optional_file(name), None, patience)
        except DownloadError as error:
            say(f"{error}\n{name} does without")
    say(f"cache folder: {cache_folder()}")


def _fetch(name: str, sha256: str | None, patience: "Patience") -> None:
    """Fetch one file, with a bar, and tell what came."""
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn

    from sniper.fetch import download as run

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with bar_of(*columns) as bar:
        task = bar.add_task(escape(name), total=None)
        done = run(
            name,
            sha256=sha256,
            patience=patience,
            on_progress=lambda here, total: bar.update(task, completed=here, total=total),
        )
    state = "fetched" if done.fresh else "already here"
    check = "checksum verified" if done.verified else f"sha256 {done.sha256}, which nothing vouches for"
    say(f"{name}: {state}, {done.size / 1e6:.1f} MB, {check}")
    say(f"{done.path}")
