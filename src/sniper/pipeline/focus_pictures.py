"""A drawing of the focus maps and chips of each image of a prediction."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sniper.errors import RecipeError, StorageError
from sniper.inference.trace import ImageTrace
from sniper.pipeline.model import Model
from sniper.report.focus import draw_focus
from sniper.writers.images import save_picture


def focus_files(model: Model, stems: Mapping[Path, str], folder: Path, taken: Collection[Path]) -> dict[Path, Path]:
    """The file of each image's focus picture: ``<stem>-focus.jpg``.

    ``taken`` are the sources and what else is written.

    Raises:
        RecipeError: the model runs on every window anyway.
        StorageError: a picture would replace one of ``taken``.
    """
    focus = model.recipe.inference.focus
    if focus is None or focus.looks_everywhere or len(model.pyramid.levels) < 2:
        why = "has one level" if len(model.pyramid.levels) < 2 else "runs on every window"
        raise RecipeError(
            f"focus maps cannot be drawn, as the model {why}; give a focus threshold or a pixel budget, "
            "and a checkpoint of several levels"
        )
    files = {path: folder / f"{stem}-focus.jpg" for path, stem in stems.items()}
    occupied = {path.resolve() for path in taken}
    for file in files.values():
        if file.resolve() in occupied:
            raise StorageError(
                f"the focus picture {file} would replace a source or another drawing; choose another folder, or "
                "rename the image"
            )
    return files


class FocusPictures:
    """Remembers the trace of an image until the image is drawn; keys are positions in ``files``."""

    def __init__(self, files: list[Path]) -> None:
        self._files = files
        self._looked: dict[int, ImageTrace] = {}

    def on_trace(self, looked: ImageTrace) -> None:
        """For ``detect_images``."""
        self._looked[looked.key] = looked

    def draw(self, key: int, pixels: NDArray[np.uint8]) -> None:
        """Write the picture of an image, which may come smaller than it is."""
        save_picture(self._files[key], draw_focus(pixels, self._looked.pop(key)))
