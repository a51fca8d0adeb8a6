"""Detectors of a library as they were trained there, on COCO: with levels for photos and the names of their classes."""

from collections.abc import Iterable
from typing import NamedTuple

from sniper.detectors.from_torchvision.build import build_torchvision
from sniper.detectors.from_torchvision.builders import BUILDERS, LIBRARY
from sniper.detectors.from_torchvision.config import TorchvisionConfig
from sniper.detectors.from_torchvision.detector import TorchvisionDetector
from sniper.detectors.from_torchvision.weights import coco_classes
from sniper.pyramid import Level
from sniper.recipe import Recipe

# COCO's small and medium objects: what a second, finer look at a photo is for.
SMALL_PX = 96.0
SIDES = (800, 1333)  # px of a photo that the library trains at; SSD's are its one input
OWN_SIDE = {"SSD": 300, "SSDlite": 320}


class LibraryDetector(NamedTuple):
    """What a library's detector is run with."""

    detector: TorchvisionDetector
    recipe: Recipe  # resolved
    class_names: tuple[str, ...]
    class_ids: tuple[int, ...]  # COCO's


def library_detector(name: str, recipe: Recipe | None = None, overrides: Iterable[str] = ()) -> LibraryDetector:
    """torchvision's detector ``name`` with the library's weights for COCO.

    The coarser of two levels is the size that it was trained at. The finer one has twice that, for small objects.

    Raises:
        CheckpointError: the weights are not here and cannot be fetched.
    """
    settings = (recipe or _recipe(name)).changed(overrides)
    assert isinstance(settings.model, TorchvisionConfig)
    classes = coco_classes(name)
    names, ids = tuple(classes.values()), tuple(classes)
    return LibraryDetector(build_torchvision(settings.model, len(names), class_names=names), settings, names, ids)


def _recipe(name: str) -> Recipe:
    builder = BUILDERS[name]
    recipe = Recipe.load(LIBRARY + builder.recipe, [f"model.name={name}", "model.weights=coco"])
    own = OWN_SIDE.get(builder.family)
    coarse, fine = (
        {"long_px": own * factor} if own else {"short_px": SIDES[0] * factor, "long_px": SIDES[1] * factor}
        for factor in (1, 2)
    )
    levels = (Level(**fine, infer_range_px=(0.0, SMALL_PX)), Level(**coarse))  # type: ignore[arg-type]
    pyramid = recipe.pyramid.model_copy(update={"levels": levels, "chip_px": 512})
    return recipe.model_copy(update={"pyramid": pyramid})
