"""Pictures of chips, as a detector is about to be shown them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sniper.data.table import AnnotationTable
from sniper.errors import DataError
from sniper.pipeline.chip_source import ChipSource
from sniper.pipeline.source_files import distinct_stems
from sniper.pipeline.sources import BadImage, Skipped
from sniper.pixels.open import open_pixels
from sniper.pixels.sample_map import SampleMap
from sniper.pixels.windowed import close, small_copy
from sniper.report.chips import draw_chips, draw_levels
from sniper.writers.images import save_picture

PREVIEWS = 4  # images whose chips are drawn into a run folder
PREVIEW_PX = 4096  # longest side of an image that is read by windows, before it is drawn on


def draw_previews(
    source: ChipSource, rows: NDArray[np.integer], folder: Path, *, epoch: int = 0, on_bad_image: BadImage = "stop"
) -> list[Path]:
    """Draw the chips of some images into ``folder``: all levels on the photo, and one panel a level."""
    chips, table, proposals = source.chips(epoch), source.table, source.proposals(epoch)
    written, skipped = [], Skipped()
    stems = distinct_stems(Path(table.file_name(row)) for row in map(int, rows))
    for row, stem in zip(map(int, rows), stems, strict=True):
        try:
            pixels, _ = image_to_draw_on(
                table, row, source.recipe.loader.whole_megapixels, source.recipe.data.sample_map
            )
        except DataError as error:
            skipped.handle(str(table.image_path(row)), error, on_bad_image)
            continue
        for name, draw in (("chips", draw_chips), ("levels", draw_levels)):
            written.append(folder / f"{stem}-{name}.jpg")
            save_picture(written[-1], draw(pixels, table, row, chips, proposals=proposals))
    return written


def image_to_draw_on(
    table: AnnotationTable, row: int, whole_megapixels: float, sample_map: SampleMap
) -> tuple[NDArray[np.uint8], float]:
    """The pixels of an image of a dataset and their scale, below 1 for one that is read by windows.

    Raises:
        DataError: it cannot be read.
    """
    width, height = table.sizes_wh[row].tolist()
    opened = open_pixels(
        table.image_path(row),
        whole_pixels=whole_megapixels * 1e6,
        size_wh=(width, height),
        image_id=int(table.image_ids[row]),
        sample_map=sample_map,
    )
    try:
        return small_copy(opened, PREVIEW_PX)
    finally:
        close(opened)


def draw_busiest(source: ChipSource, folder: Path) -> list[Path]:
    """Draw the first epoch's chips of the images that have most."""
    counts = np.bincount(source.chips(0).image_index, minlength=len(source.table))
    busiest = np.argsort(-counts, kind="stable")[:PREVIEWS]
    return draw_previews(source, busiest, folder, on_bad_image=source.recipe.loader.on_bad_image)
