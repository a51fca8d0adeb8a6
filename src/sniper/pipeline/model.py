"""From a checkpoint to a detector ready to run."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from sniper.detectors.protocol import Detector
from sniper.errors import CheckpointError, RecipeError
from sniper.inference.config import AutoFocusConfig
from sniper.pipeline.detectors import build_detector
from sniper.pyramid import Pyramid
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


@dataclass(frozen=True, slots=True)
class Model:
    """A detector ready to run, with all that a checkpoint knows of it."""

    detector: nn.Module  # satisfies detectors.protocol.Detector; in evaluation mode on ``device``
    recipe: Recipe  # resolved
    class_names: tuple[str, ...]
    class_ids: tuple[int, ...]
    device: torch.device

    @property
    def pyramid(self) -> Pyramid:
        """Levels, ranges and chip size that it was trained with."""
        levels, chip_px = self.recipe.pyramid.levels, self.recipe.pyramid.chip_px
        assert levels != "auto"
        assert chip_px != "auto"
        return Pyramid(levels=levels, chip_px=chip_px)

    def focused(self, threshold: float | None = None, pixel_budget: float | None = None) -> "Model":
        """The same model, looking closer only where small objects may be; None leaves a setting as it is.

        Args:
            threshold: focus probability from which on to look closer; 0 looks everywhere.
            pixel_budget: most pixels of an image, as a share of its full pyramid, best regions first.
        """
        given = {"threshold": threshold, "pixel_budget": pixel_budget}
        changes = {name: value for name, value in given.items() if value is not None}
        if not changes:
            return self
        inference = self.recipe.inference
        settings = {} if inference.focus is None else inference.focus.model_dump()
        focus = AutoFocusConfig.model_validate(settings | changes)
        changed = self.recipe.model_copy(update={"inference": inference.model_copy(update={"focus": focus})})
        return replace(self, recipe=changed)


def load_model(
    checkpoint: Path | str, *, detector: nn.Module | None = None, device: str = "auto", recipe: Recipe | None = None
) -> Model:
    """A trained detector from a ``.safetensors`` checkpoint or a run folder (its ``best``, else ``last``).

    Args:
        checkpoint: file or run folder.
        detector: your own detector, built as it was for training; none: the one that the checkpoint names.
        device: ``auto``, ``cpu``, ``cuda:0``, ...
        recipe: settings to use in place of the checkpoint's own.

    Raises:
        CheckpointError: missing, damaged, not written by sniper, or for another detector.
        RecipeError: there is no such device, or ``detector`` is none.
    """
    place, path = pick_device(device), checkpoint_file(checkpoint)
    weights, meta = load_weights(path)
    settings = recipe or Recipe.parse(meta.recipe, f"recipe inside {path}")
    if settings.pyramid.levels == "auto" or settings.pyramid.chip_px == "auto":
        raise CheckpointError(f"{path} has a recipe without levels, so it was not written by training; use another")
    if detector is None:
        detector = build_detector(settings, len(meta.class_names), pretrained=False)
    elif not isinstance(detector, Detector):
        raise RecipeError(f"{type(detector).__name__} is no detector: it needs the methods losses and detect")
    load_into(detector, weights, path)
    detector = detector.to(place).eval()
    return Model(detector, settings, tuple(meta.class_names), tuple(meta.class_ids), place)


def checkpoint_file(checkpoint: Path | str) -> Path:
    """The weights file that a path means."""
    path = Path(checkpoint)
    if path.is_dir():
        for name in ("best.safetensors", "last-ema.safetensors", "last.safetensors"):
            if (path / name).is_file():
                return path / name
        raise CheckpointError(
            f"{path}: no best.safetensors or last.safetensors in this folder; give a run folder or a file"
        )
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; give a .safetensors file or a run folder")
    return path
