"""From a checkpoint to a detector ready to run."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from sniper.backends.torch import TorchBackend
from sniper.detectors.from_torchvision.config import library_name
from sniper.detectors.protocol import Detector
from sniper.errors import CheckpointError, RecipeError
from sniper.inference.backend import Backend
from sniper.inference.batches import OnError
from sniper.inference.config import AutoFocusConfig
from sniper.inference.detect import OnWindowProgress, detect_images
from sniper.inference.images import ImageDetections, ImageInput
from sniper.inference.trace import OnTrace
from sniper.pipeline.detectors import build_detector
from sniper.pipeline.library_models import library_detector
from sniper.pipeline.value_range import with_value_range
from sniper.pixels.in_memory import rgb_of
from sniper.pixels.open import open_pixels
from sniper.pixels.sample_map import SampleMap
from sniper.pyramid import Pyramid
from sniper.recipe import Recipe
from sniper.training.checkpoint import load_into, load_weights
from sniper.training.weights_file import checkpoint_file

logger = logging.getLogger("sniper")

AnyImage = str | Path | NDArray | Image.Image | torch.Tensor


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
    """A network ready to run, with all that a checkpoint knows of it. Any number of threads may use one."""

    backend: Backend
    recipe: Recipe  # resolved
    class_names: tuple[str, ...]
    class_ids: tuple[int, ...]
    detector: nn.Module | None = None  # what the backend runs a copy of, on the CPU; None: no detector of torch
    checkpoint: Path | None = None  # the file that other processes can load it from; None: there is none
    draw_scores: tuple[float, ...] = ()  # (C,) from which on detections of each class are drawn; empty: not known

    @classmethod
    def of(
        cls,
        detector: nn.Module,
        recipe: Recipe,
        class_names: Sequence[str],
        class_ids: Sequence[int],
        device: torch.device | str = "cpu",
    ) -> "Model":
        """A model that runs a copy of ``detector`` on ``device``, as ``recipe.inference`` says.

        Raises:
            RecipeError: it is no detector, or cannot be copied.
        """
        backend = TorchBackend(detector, device=device, precision=recipe.inference.precision)
        return cls(backend, recipe, tuple(class_names), tuple(class_ids), detector)

    @property
    def pyramid(self) -> Pyramid:
        """Levels, ranges and chip size that it was trained with."""
        levels, chip_px = self.recipe.pyramid.levels, self.recipe.pyramid.chip_px
        assert levels != "auto"
        assert chip_px != "auto"
        return Pyramid(levels=levels, chip_px=chip_px)

    @overload
    def detect(self, images: AnyImage, *, min_score: float = 0.05) -> ImageDetections: ...
    @overload
    def detect(self, images: list[AnyImage], *, min_score: float = 0.05) -> list[ImageDetections]: ...
    def detect(self, images: Any, *, min_score: float = 0.05) -> ImageDetections | list[ImageDetections]:
        """Detect at all levels, merged; ``labels`` are places in ``class_names``.

        Args:
            images: one image or a list of them. A path; a PIL image; an array (H, W, 3) uint8 RGB; or a tensor
                (3, H, W), uint8 or floating point in [0, 1]. Files of more than ``inference.whole_megapixels`` are read
                by windows.
            min_score: detections below it are left out.

        Raises:
            DataError: an image cannot be read, or is none.
        """
        several = images if isinstance(images, list | tuple) else [images]
        whole_px = self.recipe.inference.whole_megapixels * 1e6
        files = [Path(one) for one in several if isinstance(one, str | Path)]
        sample_map = with_value_range(self.recipe, files).data.sample_map if files else SampleMap()

        def opened(one: AnyImage) -> Any:
            if isinstance(one, str | Path):
                return open_pixels(one, whole_pixels=whole_px, sample_map=sample_map)
            return rgb_of(one)

        inputs = (ImageInput(key, opened(one)) for key, one in enumerate(several))
        found = [one.above(min_score) for one in self.detect_inputs(inputs)]
        return found if isinstance(images, list | tuple) else found[0]

    def detect_inputs(
        self,
        inputs: Iterable[ImageInput],
        *,
        on_trace: OnTrace | None = None,
        on_progress: OnWindowProgress | None = None,
        on_error: OnError | None = None,
    ) -> Iterator[ImageDetections]:
        """Detections of a stream of opened images, in their order; see ``inference.detect.detect_images``."""
        return detect_images(
            self.backend, inputs, self.pyramid, self.recipe.inference,
            on_trace=on_trace, on_progress=on_progress, on_error=on_error,
        )  # fmt: skip

    def focused(self, threshold: float | None = None, pixel_budget: float | None = None) -> "Model":
        """The same model, with finer levels only where small objects may be; None leaves a setting as it is.

        Args:
            threshold: focus probability from which on to look closer; 0 looks everywhere.
            pixel_budget: most pixels of an image, as a share of its full pyramid, best regions first.
        """
        given = {"threshold": threshold, "pixel_budget": pixel_budget}
        changes = {name: value for name, value in given.items() if value is not None}
        if not changes:
            return self
        if len(self.pyramid.levels) == 1:
            logger.warning(
                "the checkpoint has one level, so there is no finer one for AutoFocus to choose from: focus threshold "
                "and pixel budget change nothing"
            )
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
        checkpoint: file or run folder; or ``torchvision/<detector>``, with the library's weights and COCO's classes.
        detector: your own detector, built as it was for training; none: the one that the checkpoint names.
        device: ``auto``, ``cpu``, ``cuda:0``, ...
        recipe: settings to use in place of the checkpoint's own.

    Raises:
        CheckpointError: missing, damaged, not written by sniper, or for another detector.
        RecipeError: there is no such device, or ``detector`` is none.
    """
    place, name = pick_device(device), library_name(checkpoint)
    if name is not None:
        found = library_detector(name, recipe)
        model = Model.of(found.detector.eval(), found.recipe, found.class_names, found.class_ids, place)
        return replace(model, checkpoint=Path(checkpoint))
    path = checkpoint_file(checkpoint)
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
    model = Model.of(detector.eval(), settings, meta.class_names, meta.class_ids, place)
    return replace(model, checkpoint=None if own else path, draw_scores=meta.draw_scores)
