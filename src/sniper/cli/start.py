"""The verbs to begin with: demo and models."""

from pathlib import Path
from typing import Annotated

import typer

from sniper.cli.display import say, show_table


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
