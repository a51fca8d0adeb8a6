"""The command line: verbs, thin over ``sniper.pipeline``.

A ``SniperError`` becomes one sentence on standard error and exit code 2; Ctrl-C exits with 130.
"""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from sniper.errors import DataError, RecipeError, SniperError

# Threads that spin while they wait starve the ones that work as soon as another program runs: training took three times
# as long beside two others. torch reads this when it is loaded, which the verbs do.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app = typer.Typer(
    help="Train and run object detectors on images whose objects differ hugely in size.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
chips_app = typer.Typer(help="Look at what training would look at.", no_args_is_help=True)
app.add_typer(chips_app, name="chips")

out = Console()
err = Console(stderr=True)

RecipeArgument = Annotated[str, typer.Argument(help="YAML file or name of a shipped recipe (see 'sniper models').")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting: train.learning_rate=0.01")
]
DataArgument = Annotated[str, typer.Argument(help="COCO JSON, YOLO data.yaml or folder, or Pascal VOC folder.")]
SplitOption = Annotated[str | None, typer.Option(help="Split of the dataset, where it holds several.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
BadImageOption = Annotated[str, typer.Option("--on-bad-image", help="stop, or skip: go on and list what was skipped.")]
ProposalsOption = Annotated[
    Path | None, typer.Option(help="Proposals (sniper propose, or COCO results JSON): negative chips too.")
]
FocusOption = Annotated[
    float | None,
    typer.Option(
        help="AutoFocus: look closer where a small object is at least this likely; 0: everywhere.", min=0, max=1
    ),
]
BudgetOption = Annotated[
    float | None,
    typer.Option(help="AutoFocus: most pixels, as a share of the full pyramid; best regions first.", min=0.001, max=1),
]
CheckpointArgument = Annotated[Path, typer.Argument(help=".safetensors file or run folder.")]


class _Lines(logging.Handler):
    """Log records as lines on standard error, above a progress bar; never wrapped, so that paths stay whole.

    Errors are for the log file: what ends a command is said by ``main``, once.
    """

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR and record.name == "sniper":
            return
        mark = "[yellow]warning:[/] " if record.levelno >= logging.WARNING else ""
        err.print(mark + escape(record.getMessage()), highlight=False, soft_wrap=True)


@app.callback()
def _options(verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False) -> None:
    logging.basicConfig(level=logging.WARNING, handlers=[_Lines()], force=True)
    logging.getLogger("sniper").setLevel(logging.INFO if verbose else logging.WARNING)


@app.command()
def train(
    recipe: Annotated[str | None, typer.Argument(help="YAML file or shipped recipe; not with --resume.")] = None,
    set_: SetOption = None,
    data: Annotated[str | None, typer.Option(help="Training data; short for --set data.train=...")] = None,
    val: Annotated[str | None, typer.Option(help="Evaluation data; short for --set data.evaluate=...")] = None,
    negatives: Annotated[
        str | None, typer.Option(metavar="auto|FILE", help="Hard-negative chips: from own proposals, or from a file.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Checkpoint or run folder to start from; short for --set weights=...")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run folder; none: numbered.")] = None,
    root: Annotated[Path, typer.Option(help="Where run folders are made.")] = Path("runs"),
    resume: Annotated[Path | None, typer.Option(help="Run folder to continue exactly.")] = None,
    on_bad_image: BadImageOption = "stop",
) -> None:
    """Train a detector on chips."""
    from sniper.pipeline import train as run

    if (recipe is None) == (resume is None):
        raise RecipeError("sniper train takes a recipe, or --resume RUN, and not both; see 'sniper models' for recipes")
    overrides = [*(set_ or [])]
    # Quoted as JSON, which is YAML: a path is a path, whatever characters it has.
    overrides += [f"data.train={json.dumps(data, ensure_ascii=False)}"] if data else []
    overrides += [f"data.evaluate={json.dumps(val, ensure_ascii=False)}"] if val else []
    overrides += [f"weights={json.dumps(weights, ensure_ascii=False)}"] if weights else []
    overrides += [f"negatives.proposals={json.dumps(negatives, ensure_ascii=False)}"] if negatives else []
    overrides += [f"loader.on_bad_image={_bad_image(on_bad_image)}"] if on_bad_image != "stop" else []
    say = lambda text: err.print(text, highlight=False, soft_wrap=True, markup=False)  # noqa: E731
    done = run(recipe, overrides=overrides, name=name, root=root, resume=resume, say=say)
    if done.evaluation is not None:
        _show_result(done.evaluation.result)
        if done.evaluation.masks is not None:
            _show_result(done.evaluation.masks)
        out.print(f"Errors: {done.evaluation.errors.sentence()}", highlight=False, soft_wrap=True)
    _show_skipped(done.skipped)
    state = "finished" if done.result.finished else f"stopped; go on with: sniper train --resume {done.folder}"
    out.print(
        f"{done.result.step} steps, {done.result.minutes:.1f} min, {state}\nrun folder: {done.folder}",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def evaluate(
    checkpoint: CheckpointArgument,
    data: DataArgument,
    split: SplitOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for predictions.json and curves.")
    ] = None,
    focus_threshold: FocusOption = None,
    pixel_budget: BudgetOption = None,
    device: DeviceOption = "auto",
    on_bad_image: BadImageOption = "stop",
) -> None:
    """Measure a checkpoint on a dataset by the COCO protocol."""
    from sniper.pipeline import evaluate as run
    from sniper.pipeline import load_model
    from sniper.pipeline.evaluate import table_for

    bad = _bad_image(on_bad_image)
    model = load_model(checkpoint, device=device).focused(focus_threshold, pixel_budget)
    table = table_for(model.class_names, data, split, on_bad_image=bad)
    folder = output or _numbered(Path("runs/evaluate"), "evaluate")
    with _progress("images", len(table)) as tick:
        done = run(model, table, output=folder, on_bad_image=bad, tick=tick)
    _show_result(done.result)
    if done.masks is not None:
        _show_result(done.masks)
    out.print(f"Errors: {done.errors.sentence()}", highlight=False, soft_wrap=True)
    _show_skipped(done.skipped)
    speed = f"{done.result.images / done.seconds:.2f} images/s{_pixels(done.pixel_share)}"
    out.print(f"{speed}, results: {folder}", highlight=False, soft_wrap=True)


@app.command()
def predict(
    checkpoint: CheckpointArgument,
    sources: Annotated[list[str], typer.Argument(help="Images, globs, folders and videos.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for predictions.json and pictures.")
    ] = None,
    min_score: Annotated[float, typer.Option(help="Detections below it are left out.", min=0, max=1)] = 0.05,
    draw_min_score: Annotated[float, typer.Option(help="Detections below it are not drawn.", min=0, max=1)] = 0.3,
    draw: Annotated[bool, typer.Option(help="Write drawn images and videos.")] = True,
    focus_threshold: FocusOption = None,
    pixel_budget: BudgetOption = None,
    device: DeviceOption = "auto",
    on_bad_image: BadImageOption = "stop",
) -> None:
    """Detect in images, folders and videos."""
    from sniper.pipeline import load_model
    from sniper.pipeline import predict as run
    from sniper.pipeline.sources import expand, is_video, video_facts

    bad = _bad_image(on_bad_image)
    paths = expand(sources)
    model = load_model(checkpoint, device=device).focused(focus_threshold, pixel_budget)
    total = 0
    for path in paths:
        try:
            total += video_facts(path).frames if is_video(path) else 1
        except DataError:
            if bad == "stop":
                raise
    folder = output or _numbered(Path("runs/predict"), "predict")
    with _progress("images", total) as tick:
        done = run(
            model,
            paths,
            output=folder,
            min_score=min_score,
            draw_min_score=draw_min_score,
            draw=draw,
            on_bad_image=bad,
            tick=tick,
        )
    _show_skipped(done.skipped)
    found = sum(len(item.scores) for item in done.items)
    summary = f"{found} detections in {len(done.items)} images{_pixels(done.pixel_share)}"
    out.print(f"{summary}, results: {folder}", highlight=False, soft_wrap=True)


@app.command()
def propose(
    checkpoint: CheckpointArgument,
    data: DataArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help=".safetensors file to write.")],
    split: SplitOption = None,
    top: Annotated[int | None, typer.Option(help="Best proposals kept of an image; none: all.", min=1)] = None,
    min_score: Annotated[float, typer.Option(help="Proposals below it are dropped.", min=0, max=1)] = 0.0,
    nms: Annotated[float, typer.Option(help="IoU above which the weaker of two proposals goes.", max=1)] = 0.7,
    processes: Annotated[int, typer.Option(help="Processes that work at the same time.", min=1)] = 1,
    device: DeviceOption = "auto",
    on_bad_image: BadImageOption = "stop",
) -> None:
    """Write class-free proposals of a dataset, for negative chips; a stopped extraction goes on where it was."""
    from sniper.inference.proposing import ProposeConfig
    from sniper.pipeline import load_model
    from sniper.pipeline import propose as run
    from sniper.pipeline.evaluate import table_for

    bad = _bad_image(on_bad_image)
    if nms <= 0:
        raise RecipeError(f"--nms is an IoU above 0, got {nms:g}")
    model = load_model(checkpoint, device=device)
    table = table_for(model.class_names, data, split, on_bad_image=bad)
    with _progress("images", len(table)) as tick:
        done = run(
            model if processes == 1 else checkpoint,
            table,
            output,
            config=ProposeConfig(nms_iou=nms, top=top, min_score=min_score),
            processes=processes,
            device=device,
            on_bad_image=bad,
            tick=tick,
        )
    _show_skipped(done.skipped)
    state = "was done before: the same weights, data and settings" if done.reused else "written"
    out.print(
        f"{done.detections.num_objects} proposals of {len(done.detections)} images, {done.path} {state}",
        highlight=False,
        soft_wrap=True,
    )


@chips_app.command("stats")
def chips_stats(
    data: DataArgument,
    recipe: Annotated[str, typer.Option(help="Recipe whose levels and chips are examined.")] = "mobilenetv2",
    set_: SetOption = None,
    split: SplitOption = None,
    proposals: ProposalsOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for coverage.json and a histogram.")
    ] = None,
) -> None:
    """Which objects are valid where, and what an epoch costs against the alternatives."""
    from sniper.pipeline import chip_stats
    from sniper.recipe import Recipe

    report = chip_stats(Recipe.load(recipe, set_ or []), data, split=split, proposals=proposals, output=output)
    for title, columns, rows in report.tables():
        _show_table(title, columns, rows)
    for warning in report.warnings():
        err.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False)


@chips_app.command("preview")
def chips_preview(
    data: DataArgument,
    recipe: Annotated[str, typer.Option(help="Recipe whose levels and chips are drawn.")] = "mobilenetv2",
    set_: SetOption = None,
    split: SplitOption = None,
    proposals: ProposalsOption = None,
    count: Annotated[int, typer.Option(help="Images to draw.", min=1)] = 8,
    epoch: Annotated[int, typer.Option(help="Epoch whose chips are drawn.", min=0)] = 0,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pictures.")] = Path("runs/chips"),
) -> None:
    """Draw the chips of some images: one colour per level, valid and ignored objects told apart."""
    from sniper.pipeline import chip_preview
    from sniper.recipe import Recipe

    written = chip_preview(
        Recipe.load(recipe, set_ or []),
        data,
        split=split,
        proposals=proposals,
        count=count,
        epoch=epoch,
        output=output,
    )
    out.print(f"{len(written)} pictures in {output}", highlight=False)


@app.command("import-mxnet")
def import_mxnet(
    file: Annotated[Path, typer.Argument(help=".params or .params.xz file of the 2018 code.")],
    arch: Annotated[str, typer.Option(help="sniper_resnet101, sniper_resnet50 or sniper_mobilenetv2.")],
    output: Annotated[Path, typer.Option("--output", "-o", help=".safetensors file to write.")],
    classes: Annotated[
        Path | None, typer.Option(help="Text file, a class name a line; none: COCO for 80 classes, VOC for 20.")
    ] = None,
) -> None:
    """Turn a checkpoint of the original SNIPER into one that predict and evaluate take."""
    from sniper.pipeline import import_mxnet as run
    from sniper.pipeline.convert import network_named, read_class_names

    names = read_class_names(classes) if classes is not None else None
    meta = run(file, network_named(arch), output, class_names=names)
    what = f"{len(meta.class_names)} classes" if meta.class_names else "backbone only, for sniper train --weights"
    out.print(f"{arch}, {what}: {output}", highlight=False, soft_wrap=True)


@app.command()
def download(
    name: Annotated[
        str,
        typer.Argument(help="resnet50 (torchvision), timm/<model>, hf:OWNER/REPO[/FILE][@REVISION] or https://..."),
    ],
    sha256: Annotated[str | None, typer.Option(metavar="HEX", help="Checksum that the file must have.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds of silence after which a server has stalled.", min=0.1)] = 30,
    retries: Annotated[int, typer.Option(help="Tries in a row that bring nothing new.", min=0)] = 5,
) -> None:
    """Fetch weights into the cache folder; a broken transfer goes on where it stopped."""
    from rich.progress import DownloadColumn, TransferSpeedColumn

    from sniper.fetch import Patience, cache_folder
    from sniper.fetch import download as run

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(escape(name), total=None)
        done = run(
            name,
            sha256=sha256,
            patience=Patience(timeout_s=timeout, retries=retries),
            tick=lambda here, total: bar.update(task, completed=here, total=total),
        )
    state = "fetched" if done.fresh else "already here"
    check = "checksum verified" if done.verified else f"sha256 {done.sha256}, which nothing vouches for"
    out.print(f"{name}: {state}, {done.size / 1e6:.1f} MB, {check}", highlight=False, markup=False, soft_wrap=True)
    out.print(f"{done.path}\ncache folder: {cache_folder()}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")] = Path("runs/demo"),
    minutes: Annotated[float, typer.Option(help="Minutes of training.", min=0.05)] = 2.0,
) -> None:
    """Mine, train, evaluate and detect on packaged aerial photos, offline, and leave a report to look at."""
    from sniper.demo.run import run_demo

    page = run_demo(output, minutes=minutes, say=lambda text: out.print(text, highlight=False))
    out.print(f"open {page}", highlight=False)


@app.command()
def models() -> None:
    """List the shipped recipes and where backbones come from."""
    from sniper.recipe import Recipe, shipped_recipes

    rows = []
    for name, path in shipped_recipes().items():
        recipe = Recipe.load(path)
        rows.append([name, recipe.network, str(recipe.stride), recipe.description.strip().split("\n")[0]])
    _show_table("Recipes", ["name", "backbone", "stride", "for"], rows)
    out.print(
        "Any backbone works by name: --set model.backbone=timm/<name> (timm.list_models()) or torchvision/<name>.",
        highlight=False,
    )


def _bad_image(value: str) -> Literal["stop", "skip"]:
    if value == "stop":
        return "stop"
    if value == "skip":
        return "skip"
    raise RecipeError(f"--on-bad-image takes stop or skip, got {value!r}")


def _pixels(share: float) -> str:
    return f", {share:.0%} of the full pyramid's pixels" if share < 1 else ""


def _numbered(parent: Path, stem: str) -> Path:
    """The first of ``stem``, ``stem2``, ``stem3``, ... that does not exist."""
    number = 1
    while (folder := parent / (stem if number == 1 else f"{stem}{number}")).exists():
        number += 1
    return folder


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(what, total=total or None, rate="")

        def tick(done: int) -> None:
            bar.advance(task, done)
            speed = bar.tasks[task].speed
            bar.update(task, rate=f"{speed:.1f}/s" if speed else "")

        yield tick


def _show_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index == 0)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    out.print(table)


def _show_result(result: object) -> None:
    for title, columns, rows in result.tables():  # type: ignore[attr-defined]
        _show_table(title, columns, rows)


def _show_skipped(skipped: list[tuple[str, str]]) -> None:
    if skipped:
        err.print(f"skipped {len(skipped)} files that cannot be read:", markup=False, highlight=False)
    for _, reason in skipped:  # which names the file
        err.print(f"  {reason}", markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point of the ``sniper`` command."""
    try:
        app(standalone_mode=True)
    except SniperError as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        err.print("stopped", highlight=False)
        sys.exit(130)


if __name__ == "__main__":
    main()
