"""A network ready to run, with all that its file knows of it; without torch where the file needs none."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union, overload

from numpy.typing import NDArray
from PIL import Image

from sniper.errors import RecipeError
from sniper.inference.backend import Backend
from sniper.inference.batches import OnError
from sniper.inference.config import AutoFocusConfig
from sniper.inference.detect import OnWindowProgress, detect_images
from sniper.inference.images import ImageDetections, ImageInput
from sniper.inference.trace import OnTrace
from sniper.pipeline.value_range import with_value_range
from sniper.pixels.in_memory import rgb_of
from sniper.pixels.open import open_pixels
from sniper.pixels.sample_map import SampleMap
from sniper.pyramid import Pyramid
from sniper.recipe import Recipe
from sniper.training.weights_file import checkpoint_file, is_named

if TYPE_CHECKING:
    import torch
    from torch import nn

    from sniper.new_classes.head import ClassHead

logger = logging.getLogger("sniper")

AnyImage = Union[str, Path, NDArray, Image.Image, "torch.Tensor"]


@dataclass(frozen=True, slots=True)
class Model:
    """A network ready to run, with all that a checkpoint knows of it. Any number of threads may use one."""

    backend: Backend
    recipe: Recipe  # resolved
    class_names: tuple[str, ...]
    class_ids: tuple[int, ...]
    detector: "nn.Module | None" = None  # what the backend runs a copy of, on the CPU; None: no detector of torch
    checkpoint: Path | None = None  # the file that other processes can load it from; None: there is none
    draw_scores: tuple[float, ...] = ()  # (C,) from which on detections of each class are drawn; empty: not known
    device: str = "cpu"  # where the backend runs
    weights_digest: Callable[[], str] | None = None  # SHA-256 of the weights; None: there are none to be read
    form: Path | None = None  # what describes an ONNX file from elsewhere
    classes: Path | None = None  # the file of learned classes that name its regions; None: its own classes

    @classmethod
    def of(
        cls,
        detector: "nn.Module",
        recipe: Recipe,
        class_names: Sequence[str],
        class_ids: Sequence[int],
        device: "torch.device | str" = "cpu",
    ) -> "Model":
        """A model that runs a copy of ``detector`` on ``device``, as ``recipe.inference`` says.

        On a CPU the process keeps the memory of freed tensors from then on (``nn.host_memory``).

        Raises:
            RecipeError: it is no detector, or cannot be copied.
        """
        from sniper.pipeline.checkpoint_model import model_of

        return model_of(detector, recipe, class_names, class_ids, device)

    def with_classes(self, classes: "Path | str | ClassHead") -> "Model":
        """The same detector, whose regions are named by classes that ``learn_classes`` has learned.

        Raises:
            DataError: the file is none, or was learned from features of another network.
            CheckpointError: the weights of the trunk that describes regions cannot be had.
        """
        from sniper.pipeline.class_model import with_classes

        return with_classes(self, classes)

    def digest(self) -> str:
        """SHA-256 of what the network is, for keys of what is kept on disk; of a function, of what kind it is alone."""
        if self.weights_digest is not None:
            return self.weights_digest()
        return hashlib.sha256(type(self.backend).__qualname__.encode()).hexdigest()

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
    checkpoint: Path | str,
    *,
    detector: "nn.Module | None" = None,
    device: str = "auto",
    recipe: Recipe | None = None,
    overrides: Iterable[str] = (),
    form: Path | str | None = None,
    classes: Path | str | None = None,
) -> Model:
    """A trained detector from a ``.safetensors`` checkpoint, a run folder (its ``best``, else ``last``) or ONNX.

    Args:
        checkpoint: file or run folder; or ``torchvision/<detector>``, ``hf/OWNER/NAME`` or a folder that
            transformers saved, with the library's weights and their classes; or ``sniper/objects``, which comes with
            the package and finds things of any kind.
        detector: your own detector, built as it was for training; none: the one that the checkpoint names.
        device: ``auto``, ``cpu``, ``cuda:0``, ...
        recipe: settings to use in place of the checkpoint's own.
        overrides: ``a.b=c`` settings on top of them, such as ``inference.merge.max_per_image=2000``.
        form: for an ONNX file that ``sniper export`` did not write: the YAML file that says what it takes and gives,
            or the name of a shipped one; none: the YAML beside the file.
        classes: a file of ``learn_classes``, whose classes take the place of the detector's own.

    Raises:
        CheckpointError: missing, damaged, not written by sniper, or for another detector.
        DataError: ``classes`` cannot be used with it.
        RecipeError: there is no such device, ``detector`` is none, or ``form`` is wrong.
    """
    model = _load(checkpoint, detector, device, recipe, overrides, form)
    if classes is not None:
        return model.with_classes(classes)
    if (rejected := model.recipe.inference.reject_below) is not None:
        raise RecipeError(
            f"inference.reject_below={rejected:g} is for learned classes: give the file of these too (classes), or set "
            "it to null"
        )
    return model


def _load(
    checkpoint: Path | str,
    detector: "nn.Module | None",
    device: str,
    recipe: Recipe | None,
    overrides: Iterable[str],
    form: Path | str | None,
) -> Model:
    """The network with its own classes."""
    named = is_named(checkpoint)
    path = Path(checkpoint) if named else checkpoint_file(checkpoint)
    if path.suffix.lower() == ".onnx":
        if detector is not None:
            raise RecipeError(f"{path} holds a whole network; leave out detector")
        from sniper.pipeline.onnx_model import load_onnx

        return load_onnx(path, device, recipe, form, overrides)
    if form is not None:
        raise RecipeError(f"{path} is no ONNX file, and only these have a form; leave out the form {form}")
    from sniper.pipeline.checkpoint_model import load_checkpoint, load_library_model

    if named:
        return load_library_model(path, device, recipe, overrides)
    return load_checkpoint(path, detector, device, recipe, overrides)
