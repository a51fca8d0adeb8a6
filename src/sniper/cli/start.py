"""The verbs to begin with: demo, models and settings."""

from pathlib import Path
from typing import Annotated

import typer

from sniper.cli.display import say, show_table
from sniper.errors import RecipeError


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")] = Path("runs/demo"),
    minutes: Annotated[float, typer.Option(help="Minutes of training.", min=0.05)] = 2.0,
) -> None:
    """Mine, train, evaluate and detect on packaged aerial photos, offline, and write a report."""
    from sniper.demo.run import run_demo

    page = run_demo(output, minutes=minutes, log=say)
    say(f"open {page}")


def models() -> None:
    """List the shipped recipes and where backbones come from."""
    from sniper.recipe import Recipe, shipped_recipes

    rows = []
    for name, path in shipped_recipes().items():
        recipe = Recipe.load(path)
        rows.append([name, recipe.model.network, str(recipe.model.stride), recipe.description.strip().split("\n")[0]])
    show_table("Recipes", ["name", "backbone", "stride", "for"], rows)
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
