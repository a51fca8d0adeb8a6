"""Detectors of a library as they were trained there: with levels for photos and the names of their classes."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from torch import nn

from sniper.detectors.from_torchvision.build import build_torchvision
from sniper.detectors.from_torchvision.builders import BUILDERS, LIBRARY
from sniper.detectors.from_torchvision.config import TorchvisionConfig
from sniper.detectors.from_torchvision.weights import coco_classes
from sniper.detectors.from_transformers.build import build_transformers, require_transformers
from sniper.detectors.from_transformers.config import TransformersConfig
from sniper.detectors.from_transformers.models import CONFIG_FILE, PUBLISHED, RECIPES, read_config
from sniper.detectors.from_transformers.weights import model_folder, names_of
from sniper.errors import CheckpointError
from sniper.pyramid import Level
from sniper.recipe import Recipe

# COCO's small and medium objects: what a second, finer look at a photo is for.
SMALL_PX = 96.0
SIDES = (800, 1333)  # px of a photo that torchvision trains at; SSD's are its one input
OWN_SIDE = {"SSD": 300, "SSDlite": 320}
SQUARE_PX = 640  # of detectors of transformers that are not known by name
GAP = "N/A"  # the name of a number without a class


class LibraryDetector(NamedTuple):
    """What a library's detector is run with."""

    detector: nn.Module
    recipe: Recipe  # resolved
    class_names: tuple[str, ...]
    class_ids: tuple[int, ...]  # COCO's where the classes are


def torchvision_detector(name: str, recipe: Recipe | None = None, overrides: Iterable[str] = ()) -> LibraryDetector:
    """torchvision's detector ``name`` with the library's weights for COCO.

    The coarser of two levels is the size that it was trained at. The finer one has twice that, for small objects.

    Raises:
        CheckpointError: the weights are not here and cannot be fetched.
    """
    settings = (recipe or _of_torchvision(name)).changed(overrides)
    assert isinstance(settings.model, TorchvisionConfig)
    classes = coco_classes(name)
    names, ids = tuple(classes.values()), tuple(classes)
    return LibraryDetector(build_torchvision(settings.model, len(names), class_names=names), settings, names, ids)


def transformers_detector(name: str, recipe: Recipe | None = None, overrides: Iterable[str] = ()) -> LibraryDetector:
    """A detector of transformers with its weights and classes; two levels, as for torchvision's.

    The finer level is cut into windows of the size that it was trained at, each with all its queries.

    Args:
        name: OWNER/NAME on the hub, or a folder.
        recipe: settings in place of the shipped recipe's.
        overrides: ``a.b=c`` settings on top of them.

    Raises:
        RecipeError: transformers is not installed, or knows no such model.
        CheckpointError: the weights are not here and cannot be fetched, or tell no classes.
    """
    require_transformers()
    folder = model_folder(name)
    config = read_config(folder / CONFIG_FILE)
    names = tuple(one for one in names_of(config) if one != GAP)
    if not names:
        raise CheckpointError(f"{folder / CONFIG_FILE} names no classes (id2label); add them")
    settings = (recipe or _of_transformers(name, config)).changed(overrides)
    assert isinstance(settings.model, TransformersConfig)
    detector = build_transformers(settings.model, len(names), class_names=names)
    return LibraryDetector(detector, settings.model_copy(update={"model": detector.config}), names, _ids(names))


def _of_torchvision(name: str) -> Recipe:
    builder = BUILDERS[name]
    own = OWN_SIDE.get(builder.family)
    given = Recipe.load(LIBRARY + builder.recipe, [f"model.name={name}", "model.weights=coco"])
    return _with_levels(given, (own, own) if own else SIDES)


def _of_transformers(name: str, config: dict[str, Any]) -> Recipe:
    published = PUBLISHED.get(name)
    file = published.recipe if published else RECIPES.get(str(config.get("model_type")), RECIPES["rt_detr"])
    sides = published.sides if published else (SQUARE_PX, SQUARE_PX)
    own = [f"model.name={json.dumps(name)}", "model.weights=library", f"inference.window_px={max(sides)}"]
    return _with_levels(Recipe.load(f"transformers/{file}", own), sides)


def _with_levels(recipe: Recipe, sides: tuple[int, int]) -> Recipe:
    """Two levels: the size of photos that a detector was trained at, and twice that for small objects."""
    short, long = sides
    coarse, fine = (
        {"long_px": long * factor} if short == long else {"short_px": short * factor, "long_px": long * factor}
        for factor in (1, 2)
    )
    levels = (Level(**fine, infer_range_px=(0.0, SMALL_PX)), Level(**coarse))  # type: ignore[arg-type]
    pyramid = recipe.pyramid.model_copy(update={"levels": levels, "chip_px": 512})
    return recipe.model_copy(update={"pyramid": pyramid})


def _ids(names: Sequence[str]) -> tuple[int, ...]:
    """COCO's numbers where all are COCO's classes, else from 1."""
    numbers = {name: number for number, name in coco_classes("retinanet_resnet50_fpn_v2").items()}
    if all(name in numbers for name in names):
        return tuple(numbers[name] for name in names)
    return tuple(range(1, len(names) + 1))
