"""From a checkpoint to a detector of torch that is ready to run."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from sniper.backends.torch import TorchBackend
from sniper.detectors.from_torchvision.builders import library_name
from sniper.detectors.from_transformers.models import model_name
from sniper.detectors.protocol import Detector
from sniper.errors import CheckpointError, RecipeError
from sniper.new_classes.objects import is_objects
from sniper.nn.host_memory import keep_freed_memory
from sniper.nn.weights_digest import weights_digest
from sniper.pipeline.detectors import build_detector
from sniper.pipeline.library_models import torchvision_detector, transformers_detector
from sniper.pipeline.model import Model
from sniper.pipeline.objects_model import objects_detector
from sniper.recipe import Recipe
from sniper.training.checkpoint import load_into, load_weights


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; ``auto`` takes the first GPU, else the CPU.

    Raises:
        RecipeError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise RecipeError(f"device {name!r} cannot be used here; choose auto, cpu, or cuda:0 with a GPU") from error
    return device


def model_of(
    detector: nn.Module,
    recipe: Recipe,
    class_names: Sequence[str],
    class_ids: Sequence[int],
    device: torch.device | str = "cpu",
) -> Model:
    """What ``Model.of`` gives."""
    backend = TorchBackend(detector, device=device, precision=recipe.inference.precision)
    if backend.device.type == "cpu":
        keep_freed_memory()
    names, ids, digest = tuple(class_names), tuple(class_ids), partial(weights_digest, detector)
    return Model(backend, recipe, names, ids, detector, device=str(backend.device), weights_digest=digest)


def load_checkpoint(
    path: Path, detector: nn.Module | None, device: str, recipe: Recipe | None, overrides: Iterable[str] = ()
) -> Model:
    """The model of a ``.safetensors`` file; arguments and errors are those of ``pipeline.model.load_model``."""
    place = pick_device(device)
    weights, meta = load_weights(path)
    settings = (recipe or Recipe.parse(meta.recipe, f"recipe inside {path}")).changed(overrides)
    if settings.pyramid.levels == "auto" or settings.pyramid.chip_px == "auto":
        raise CheckpointError(f"{path} has a recipe without levels, so it was not written by training; use another")
    own = detector is not None
    if detector is None:
        detector = build_detector(settings, len(meta.class_names), pretrained=False)
    elif not isinstance(detector, Detector):
        raise RecipeError(f"{type(detector).__name__} is no detector: it needs the methods losses and detect")
    load_into(detector, weights, path)
    model = Model.of(detector.eval(), settings, meta.class_names, meta.class_ids, place)
    return replace(model, checkpoint=None if own else path, draw_scores=meta.draw_scores)


def load_library_model(place: Path, device: str, recipe: Recipe | None, overrides: Iterable[str] = ()) -> Model:
    """A detector of a library with that library's weights, or the one of this package; ``place`` is its name.

    Raises:
        CheckpointError, RecipeError: as for ``pipeline.model.load_model``.
    """
    chosen, torchvision, transformers = pick_device(device), library_name(place), model_name(place)
    if is_objects(place):
        found = objects_detector(recipe, overrides)
    elif torchvision is not None:
        found = torchvision_detector(torchvision, recipe, overrides)
    else:
        assert transformers is not None
        found = transformers_detector(transformers, recipe, overrides)
    model = Model.of(found.detector.eval(), found.recipe, found.class_names, found.class_ids, chosen)
    return replace(model, checkpoint=place)
