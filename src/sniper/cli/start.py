"""The verbs to begin with: demo, models, settings and runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sniper.cli.display import say, show_table
from sniper.cli.loading import importing
from sniper.errors import RecipeError

if TYPE_CHECKING:
    from sniper.pipeline.runs import Run


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")] = Path("runs/demo"),
    minutes: Annotated[float, typer.Option(help="Minutes of training.", min=0.05)] = 2.0,
) -> None:
    """Mine, train, evaluate and detect on packaged aerial photos, offline, and write a report."""
    with importing():
        from sniper.demo.run import run_demo

    page = run_demo(output, minutes=minutes, log=say)
    say(f"open {page}")


def models() -> None:
    """List the shipped recipes, detectors of torchvision and transformers, and where backbones come from."""
    from sniper.detectors.from_torchvision.builders import BUILDERS, LIBRARY, LICENCE
    from sniper.detectors.from_transformers.models import PREFIX, PUBLISHED
    from sniper.new_classes.objects import OBJECTS
    from sniper.recipe import Recipe, shipped_recipes

    say("Recipes")
    for name, path in shipped_recipes().items():  # not a table: 80 columns would cut the names
        recipe = Recipe.load(path)
        stride = "" if recipe.model.stride is None else f", stride {recipe.model.stride}"
        say(f"{name} = {recipe.model.network}{stride}\n    {recipe.description.strip().splitlines()[0]}")
    rows = [
        [LIBRARY + name, one.family, f"{one.million_parameters:.1f} M", f"{one.coco_ap:.1f}", LICENCE]
        for name, one in BUILDERS.items()
    ]
    show_table(
        "torchvision's detectors, by name on evaluate, predict and propose with COCO's classes; to train, model.name",
        ["name", "family", "parameters", "COCO AP (published)", "licence"],
        rows,
    )
    say("Detectors of transformers, used in the same way; others of these families work by name or folder, too")
    for name, one in PUBLISHED.items():
        numbers = f"{one.million_parameters:.1f} M parameters, COCO AP {one.coco_ap:.1f} (published)"
        say(f"{PREFIX}{name}\n    {one.family}, {numbers}, {one.licence}")
    say(f"{OBJECTS}\n    things of any kind, comes with the package: sniper classes learn, predict, evaluate, propose")
    say("Any backbone works by name: --set model.backbone=timm/<name> (timm.list_models()) or torchvision/<name>.")


def settings(
    section: Annotated[
        str | None, typer.Argument(help="Section (train, model.anchors), or a word to look for; none: all.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Show the values of this recipe (YAML or shipped name), not the defaults.")
    ] = None,
) -> None:
    """Every setting that a recipe or --set takes: its value, what it may be, and what it means."""
    from sniper.described import settings_of
    from sniper.recipe import Recipe

    known = list(settings_of(Recipe, default=None if recipe is None else Recipe.load(recipe)))
    found = [setting for setting in known if section is None or setting.matches(section)]
    if not found:
        sections = ", ".join(dict.fromkeys(setting.name.partition(".")[0] for setting in known))
        raise RecipeError(f"no setting has {section!r} in its name or meaning; sections are {sections}")
    for setting in found:
        say(f"{setting.name} = {setting.default}\n    {setting.meaning}\n    {setting.values}")


def runs(
    run: Annotated[Path | None, typer.Argument(help="Run folder to show again; none: list all.")] = None,
    root: Annotated[Path, typer.Option(help="Where run folders are.")] = Path("runs"),
) -> None:
    """List the runs with their scores, data, time and state, or show one again."""
    from sniper.pipeline.runs import read_run
    from sniper.pipeline.runs import runs as run_all

    if run is not None:
        _show_run(read_run(run))
        return
    found = run_all(root)
    if not found:
        say(f"no runs in {root}")
        return
    rows = [
        [
            str(one.path.relative_to(root)), one.state, "" if one.score is None else f"{one.metric} {one.score:.3f}",
            "" if one.step is None else f"{one.step:,}", "" if one.minutes is None else f"{one.minutes:.1f}",
            f"{one.changed:%Y-%m-%d %H:%M}", one.data or "",
        ]
        for one in found
    ]  # fmt: skip
    show_table("Runs", ["run", "state", "score", "steps", "min", "changed", "data"], rows)


def _show_run(run: "Run") -> None:
    facts = {
        "state": run.state,
        "changed": f"{run.changed:%Y-%m-%d %H:%M}",
        "data": run.data,
        "val": run.val,
        "network": run.network,
        "steps": run.step,
        "minutes": None if run.minutes is None else f"{run.minutes:.1f}",
    }
    show_table(str(run.path), ["", ""], [[name, str(value)] for name, value in facts.items() if value is not None])
    if run.scores:
        show_table("Scores", ["", ""], [[name, f"{value:.4g}"] for name, value in run.scores.items()])
    if run.state == "stopped":
        say(f"go on with: sniper train --resume {run.path}")
    if (run.path / "recipe.yaml").is_file():
        say(f"settings: sniper settings --recipe {run.path / 'recipe.yaml'}")
