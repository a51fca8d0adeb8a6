"""What opening the images tells: whether they can be read, what values they have, and a fingerprint to compare them."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sniper.checks.config import CheckConfig
from sniper.checks.findings import Finding, Kind
from sniper.data.table import AnnotationTable
from sniper.errors import DataError
from sniper.pixels.open import image_size, open_pixels
from sniper.pixels.sample_map import SampleMap
from sniper.pixels.windowed import PixelSource, close

THUMBNAIL_PX = 32
WHOLE_PIXELS = 64e6  # larger files are read by strips
_STRIP_PX = 16e6

Pixels = NDArray[np.uint8]


class ImageFacts(NamedTuple):
    """I images of a dataset, opened."""

    thumbnails: Pixels  # (I, 32, 32) grey; of no meaning where not readable
    lowest: Pixels  # (I,) smallest and
    highest: Pixels  # (I,) largest value of any channel
    errors: dict[int, DataError]  # by image row, of those that cannot be used
    sizes_wh: dict[int, tuple[int, int]]  # by image row, of those that are not as large as annotated

    @property
    def readable(self) -> NDArray[np.bool_]:
        """(I,) whether an image could be decoded."""
        good = np.ones(len(self.thumbnails), np.bool_)
        good[list(self.errors)] = False
        return good


class _Opened(NamedTuple):
    thumbnail: Pixels  # (32, 32)
    lowest: int
    highest: int


def open_images(
    table: AnnotationTable,
    sample_map: SampleMap,
    *,
    threads: int | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> ImageFacts:
    """Decode every image of a dataset, in parallel; huge ones by strips. Values are those after ``sample_map``."""
    count = len(table)
    values = np.zeros((2, count), np.uint8)
    facts = ImageFacts(np.zeros((count, THUMBNAIL_PX, THUMBNAIL_PX), np.uint8), values[0], values[1], {}, {})

    def one(row: int) -> None:
        path, size_wh = table.image_path(row), tuple(table.sizes_wh[row].tolist())
        try:
            opened = _open(path, size_wh, sample_map)
        except DataError as error:
            facts.errors[row] = error
            found = _size(path)
            if found is not None and found not in (size_wh, size_wh[::-1]):
                facts.sizes_wh[row] = found
        else:
            facts.thumbnails[row], facts.lowest[row], facts.highest[row] = opened
        on_progress(1)

    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        for _ in pool.map(one, range(count)):
            pass
    return facts


def check_images(facts: ImageFacts, dataset: int, config: CheckConfig) -> list[Finding]:
    """What is wrong or suspicious in the images of a dataset, number ``dataset`` of those checked."""
    found = []
    for row, error in sorted(facts.errors.items()):
        kind = Kind.SIZE_DIFFERS if row in facts.sizes_wh else Kind.UNREADABLE_IMAGE
        found.append(Finding(kind, dataset, str(error), row))
    spread = facts.highest.astype(int) - facts.lowest
    odd = facts.readable & ((facts.highest < config.dark_max) | (spread < config.flat_spread))
    for row in np.flatnonzero(odd).tolist():
        low, high = int(facts.lowest[row]), int(facts.highest[row])
        text = "one colour" if low == high else f"values from {low} to {high} only, of 0 to 255"
        found.append(Finding(Kind.VALUE_RANGE, dataset, text, row, badness=-float(spread[row])))
    return found


def _open(path: Path, size_wh: tuple[int, ...], sample_map: SampleMap) -> _Opened:
    width, height = size_wh
    pixels = open_pixels(path, whole_pixels=WHOLE_PIXELS, size_wh=(width, height), sample_map=sample_map)
    if isinstance(pixels, np.ndarray):
        return _Opened(thumbnail_of(pixels), int(pixels.min()), int(pixels.max()))
    try:
        return _by_strips(pixels)
    finally:
        close(pixels)


def _by_strips(source: PixelSource) -> _Opened:
    width, height = source.size_wh
    rows = max(1, int(_STRIP_PX // width))
    parts, lowest, highest = [], 255, 0
    for top in range(0, height, rows):
        strip = source.read(0, top, width, min(top + rows, height))
        lowest, highest = min(lowest, int(strip.min())), max(highest, int(strip.max()))
        lines = max(1, round(len(strip) * THUMBNAIL_PX * 8 / height))
        parts.append(cv2.resize(strip, (THUMBNAIL_PX, lines), interpolation=cv2.INTER_AREA))
    return _Opened(thumbnail_of(np.concatenate(parts)), lowest, highest)


def thumbnail_of(pixels: Pixels) -> Pixels:
    """(32, 32) grey, of an image in memory: what ``checks.similar`` compares."""
    small = cv2.resize(pixels, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def _size(path: Path) -> tuple[int, int] | None:
    try:
        return image_size(path)
    except DataError:
        return None
