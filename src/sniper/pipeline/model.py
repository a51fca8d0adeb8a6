"""From a recipe to a pyramid and a detector, and from a checkpoint back to both."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sniper.data.table import AnnotationTable
from sniper.detectors.original.network import build_original
from sniper.detectors.protocol import Detector
from sniper.detectors.sniper.network import build_sniper
from sniper.errors import CheckpointError, RecipeError
from sniper.inference.config import AutoFocusConfig
from sniper.pyramid import Pyramid, derive_pyramid, with_scout
from sniper.recipe import Recipe
from sniper.training.checkpoint import load_into, load_weights

ANY_CHIP_PX = 512  # side of a chip where nothing speaks for another
COMFORTABLE_CELLS = 4  # an object this many feature cells long is seen well: the reference ranges centre there


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


def resolve_pyramid(recipe: Recipe, table: AnnotationTable) -> tuple[Recipe, Pyramid]:
    """The pyramid of a recipe for a dataset, and the recipe with it written out."""
    wanted = recipe.pyramid
    chip_px = None if wanted.chip_px == "auto" else wanted.chip_px
    if wanted.levels == "auto":
        pyramid = _derived(recipe, table, chip_px)
        if chip_px is None and pyramid.chip_px != ANY_CHIP_PX:
            pyramid = _derived(recipe, table, pyramid.chip_px)  # a stride in px is another share of this chip
        if (recipe.model if recipe.original is None else recipe.original).focus:
            pyramid = with_scout(pyramid)
    else:
        pyramid = Pyramid(levels=wanted.levels, chip_px=chip_px or ANY_CHIP_PX)
    written = wanted.model_copy(update={"levels": pyramid.levels, "chip_px": pyramid.chip_px})
    return recipe.model_copy(update={"pyramid": written}), pyramid


def _derived(recipe: Recipe, table: AnnotationTable, chip_px: int | None) -> Pyramid:
    """Levels from the sizes of a dataset's objects, valid by the rule that mining will apply."""
    wanted, rule = recipe.pyramid, recipe.chips.size_rule(chip_px or ANY_CHIP_PX)
    learned = ~table.crowd
    boxes = table.boxes_xyxy[learned].astype(np.float64)
    object_px = COMFORTABLE_CELLS * recipe.stride if wanted.object_px == "auto" else wanted.object_px
    return derive_pyramid(
        boxes[:, 2:] - boxes[:, :2],
        table.image_rows_of_objects()[learned],
        table.sizes_wh,
        object_px=float(object_px),
        chip_px=chip_px,
        max_scale=wanted.max_scale,
        margin=rule.stride_max / (chip_px or ANY_CHIP_PX),
        min_side_px=rule.min_side_px,
    )


@dataclass(frozen=True, slots=True)
class Model:
    """A detector ready to run, with all that a checkpoint knows of it."""

    detector: nn.Module  # satisfies detectors.protocol.Detector; in evaluation mode on ``device``
    recipe: Recipe  # resolved
    class_names: tuple[str, ...]
    class_ids: tuple[int, ...]
    device: torch.device
    checkpoint: Path | None = None  # the file that other processes can load it from; None: there is none

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


def build_detector(recipe: Recipe, num_classes: int, *, pretrained: bool = True) -> nn.Module:
    """The detector that a recipe names; ``pretrained=False`` leaves the weights of ``recipe.model`` unread."""
    if recipe.original is not None:
        return build_original(recipe.original, num_classes)
    return build_sniper(recipe.model, num_classes, pretrained=pretrained)


def learns_masks(recipe: Recipe) -> bool:
    """Whether the detector that a recipe names has a mask branch."""
    return (recipe.model if recipe.original is None else recipe.original).masks


def load_model(
    checkpoint: Path | str, *, detector: nn.Module | None = None, device: str = "auto", recipe: Recipe | None = None
) -> Model:
    """A trained detector from a ``.safetensors`` checkpoint or a run folder (its ``best``, else ``last``).

    Args:
        checkpoint: file or run folder.
        detector: your own detector, built as it was for training; none: the reference detector of the checkpoint.
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
    own = detector is not None
    if detector is None:
        detector = build_detector(settings, len(meta.class_names), pretrained=False)
    elif not isinstance(detector, Detector):
        raise RecipeError(f"{type(detector).__name__} is no detector: it needs the methods losses and detect")
    load_into(detector, weights, path)
    detector = detector.to(place).eval()
    names, ids = tuple(meta.class_names), tuple(meta.class_ids)
    return Model(detector, settings, names, ids, place, None if own else path)


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
