"""A picture of where AutoFocus looked, for each image of a prediction."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sniper.errors import RecipeError, StorageError
from sniper.inference.trace import ImageTrace
from sniper.pipeline.model import Model
from sniper.report.focus import draw_focus
from sniper.report.layout import save_picture


class FocusPictures:
    """Remembers what was looked at until the image is drawn."""

    def __init__(self, model: Model, stems: list[str], folder: Path, taken: Collection[Path]) -> None:
        """Name a file for each image, keys being positions in ``stems``: ``<stem>-focus.jpg``.

        ``taken`` are the sources and what else is written.

        Raises:
            RecipeError: the model looks at everything anyway.
            StorageError: a picture would replace one of ``taken``.
        """
        focus = model.recipe.inference.focus
        if focus is None or focus.looks_everywhere or len(model.pyramid.levels) < 2:
            why = "has one level" if len(model.pyramid.levels) < 2 else "looks at everything"
            raise RecipeError(
                f"where AutoFocus looks cannot be drawn, as the model {why}; give a focus threshold or a pixel budget, "
                "and a checkpoint of several levels"
            )
        self.files = [folder / f"{stem}-focus.jpg" for stem in stems]
        occupied = {path.resolve() for path in taken}
        for file in self.files:
            if file.resolve() in occupied:
                raise StorageError(
                    f"the focus picture {file} would replace a source or another drawing; choose another folder, or "
                    "rename the image"
                )
        self._looked: dict[int, ImageTrace] = {}

    def on_trace(self, looked: ImageTrace) -> None:
        """For ``detect_images``."""
        self._looked[looked.key] = looked

    def draw(self, key: int, pixels: NDArray[np.uint8]) -> None:
        """Write the picture of an image, which may come smaller than it is."""
        save_picture(self.files[key], draw_focus(pixels, self._looked.pop(key)))
