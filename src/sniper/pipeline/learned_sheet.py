"""The picture of what classes were learned from, as a file."""

import math
from collections.abc import Iterator
from pathlib import Path

from sniper.pipeline.learned import LearnedClasses, expectation
from sniper.pixels.open import open_pixels
from sniper.pixels.windowed import close, small_copy
from sniper.report.learned_regions import TILE_PX, LearnedTile, draw_learned
from sniper.writers.images import save_picture

_WHOLE_PIXELS = 64e6  # larger photos are read by windows


def write_sheet(learned: LearnedClasses, path: Path | str) -> None:
    """Draw every photo with the region that it taught, and write the picture (.jpg or .png).

    Raises:
        DataError: a photo can no longer be read.
        StorageError: the picture cannot be written.
    """
    names = ", ".join(learned.head.class_names)
    save_picture(path, draw_learned(f"Learned: {names}", expectation(learned.head), _tiles(learned)))


def _tiles(learned: LearnedClasses) -> Iterator[LearnedTile]:
    threshold = learned.head.calibration.threshold
    for photo in learned.photos:
        source = open_pixels(photo.path, whole_pixels=_WHOLE_PIXELS)
        pixels, scale = small_copy(source, 2 * TILE_PX)
        close(source)
        unknown = math.isnan(photo.probability)
        odd = not unknown and (photo.probability < threshold or photo.named != photo.class_name)
        told = "" if unknown else f": {photo.probability:.2f}"
        yield LearnedTile(photo.class_name, pixels, photo.boxes_xyxy * scale, f"{photo.path.name}{told}", odd)
