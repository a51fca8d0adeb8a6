"""Another valid value for every setting of a recipe."""

import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from sniper.pipeline.keys import flattened
from sniper.recipe import Recipe

_ANYTHING = [
    True,
    False,
    0,
    1,
    2,
    3,
    7,
    101,
    0.01,
    0.25,
    0.5,
    0.9,
    1.5,
    "other",
    [0.5, 0.25],
    [1, 2, 3],
    ["a"],
    [60, 90],
    {},
]


def changes(recipe: Recipe) -> Iterator[tuple[str, Recipe | None]]:
    """Every setting's dotted name, with the recipe in which only it has another value; None: it takes no other."""
    words = sorted(_literals(Recipe, set()))
    lists = [[word] for word in words]
    for name, value in flattened(recipe.model_dump(mode="json")).items():
        candidates = (_changed(recipe, name, one) for one in (*_near(value), *_ANYTHING, *words, *lists))
        yield name, next((one for one in candidates if one is not None), None)


def _changed(recipe: Recipe, name: str, value: Any) -> Recipe | None:
    settings = recipe.model_dump(mode="json")
    *parents, last = name.split(".")
    place = settings
    for parent in parents:
        place = place[parent]
    before = place[last]
    if last == "kind":  # whose other settings are of that kind
        place.clear()
    place[last] = value
    try:
        made = Recipe.model_validate(settings)  # all names are of this version: looking for former ones takes longer
    except ValidationError:
        return None
    after = made.model_dump(mode="json")
    for parent in parents:
        after = after.get(parent, {})
    return made if after.get(last) != before else None


def _near(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1, value - 1, 2 * value, 0.5 * value, 0.9 * value]
    if isinstance(value, str):
        return [value + "2"]
    if isinstance(value, list) and value:
        first = value[0]
        levels = [[{**first, "infer_range_px": [0.0, 77.0]}, *value[1:]]] if isinstance(first, dict) else []
        numbers = [[0.9 * one for one in value]] if all(isinstance(one, int | float) for one in value) else []
        return [*levels, *numbers, value[:-1]]
    return []


def _literals(annotation: Any, seen: set[Any]) -> set[str]:
    """Every word that some setting takes."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation in seen:
            return set()
        seen.add(annotation)
        return {word for field in annotation.model_fields.values() for word in _literals(field.annotation, seen)}
    if typing.get_origin(annotation) is typing.Literal:
        return {word for word in typing.get_args(annotation) if isinstance(word, str)}
    return {word for inner in typing.get_args(annotation) for word in _literals(inner, seen)}
