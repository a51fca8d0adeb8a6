"""The range of 16-bit values of a dataset, found once and kept in the recipe, so that training and inference agree."""

import logging
from collections.abc import Sequence
from pathlib import Path

from sniper.data.table import AnnotationTable
from sniper.pixels.survey import Survey, survey
from sniper.recipe import Recipe

logger = logging.getLogger("sniper")


def with_value_range(recipe: Recipe, files: Sequence[Path]) -> Recipe:
    """The recipe with the range that ``files`` have, where it says ``auto`` and there are 16-bit samples.

    A range that does not use all bits is told, and so are files of more bands than are taken.
    """
    data = recipe.data
    if data.value_range != "auto" and data.bands is not None:
        return recipe
    seen = survey(files)
    if data.bands is None and seen.most_bands is not None:
        path, bands = seen.most_bands
        logger.warning("%s has %d bands: 1, 2 and 3 become red, green and blue; data.bands takes others", path, bands)
    found = seen.value_range
    if data.value_range != "auto" or found is None:
        return recipe
    _tell(seen, found)
    return recipe.model_copy(update={"data": data.model_copy(update={"value_range": found})})


def files_of(table: AnnotationTable) -> list[Path]:
    """The image files of a dataset."""
    return [table.image_path(row) for row in range(len(table))]


def _tell(seen: Survey, found: tuple[int, int]) -> None:
    whole = found == (0, 65535)
    logger.log(
        logging.INFO if whole else logging.WARNING,
        "%d of %d image files that were looked at have 16-bit samples, up to %d: values from %d to %d become 0 to 255; "
        "data.value_range sets another range",
        seen.deep, seen.files, seen.high, *found,
    )  # fmt: skip
