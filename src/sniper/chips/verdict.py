"""Whether chips, uniform tiles or whole images suit a dataset: a rule drawn from trainings, as a pure function.

``docs/method.md``, "Chips, tiles or whole images".
"""

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

SEEN_CELLS = (1.0, 19.0)  # sizes that a detector sees, in cells of its feature map: 16 to 304 px at stride 16
SMALL_QUANTILE = 0.1  # the small objects: a tenth of all
SMALL_CELLS = 1.5  # cells that they should span: at 1.2 a third of the AP of 1.6 was still missing (HIT-UAV)
LARGE_IMAGE_PX = 1333  # longer whole images cost more than they bring
SPARSE = 0.6  # chips' share of the pixels of the pyramid below which they save what they cost in seams and mining
FEW_CHIPS = 1.5  # chips that an image may be long for whole images to serve as well
EVERYWHERE = 0.95  # chips' share of the pixels from which on they are tiles
AS_MANY = 0.02  # share of the objects that whole images may show fewer than chips
_STEP_PX = 32  # advised sides are multiples


class Facts(NamedTuple):
    """What the verdict depends on; sides in network px."""

    one_level: bool  # objects of all sizes are learned at every level there is
    chip_px: int
    level_long_px: float  # median long side of the images at the finest level
    needed_long_px: float  # of whole images in which nine in ten objects span ``SMALL_CELLS``
    chip_share: float  # chips' pixels of an epoch over those of all images at all levels
    seen_by_chips: float  # share of the objects that chips show within ``SEEN_CELLS``
    seen_by_whole: float  # the same for whole images of ``whole_long_px``
    chips_megapixels: float  # of an epoch
    whole_megapixels: float  # the same for whole images of ``whole_long_px``


class Verdict(NamedTuple):
    """The way to train that is advised, and why."""

    method: Literal["chips", "tiles", "whole"]  # as ``sampler.method``
    long_px: int | None  # whole: long side of the images
    sentence: str


def needed_long_px(sizes_px: NDArray[np.floating], long_sides_px: NDArray[np.integer], stride: float) -> float:
    """Long side of whole images, network px, in which nine in ten objects span ``SMALL_CELLS`` cells.

    Args:
        sizes_px: (N,) sqrt(area), original px, at least one object, none empty.
        long_sides_px: (N,) long side of each object's image, original px.
        stride: network px per cell of the detector's feature map.
    """
    needed = SMALL_CELLS * stride * np.asarray(long_sides_px, np.float64) / np.asarray(sizes_px, np.float64)
    return float(np.quantile(needed, 1 - SMALL_QUANTILE))


def small_images(one_level: bool, chip_px: int, level_long_px: float) -> bool:
    """Whether one level serves all sizes, and shows images hardly larger than a chip."""
    return one_level and level_long_px <= FEW_CHIPS * chip_px


def whole_long_px(one_level: bool, chip_px: int, level_long_px: float, needed_long_px: float) -> int:
    """Long side of the whole images that chips are compared with: as chips show them, else as small objects need."""
    wanted = level_long_px if small_images(one_level, chip_px, level_long_px) else max(needed_long_px, chip_px)
    return _STEP_PX * math.ceil(wanted / _STEP_PX - 1e-9)


def verdict(facts: Facts) -> Verdict:
    """The way to train that suits a dataset.

    Chips pay where whole images would have to be larger than 1333 px for the small objects, or where objects are few
    and far between. Whole images serve as well where one level does and its images are hardly larger than a chip, or
    where they are small enough and chips would show most of them. Tiles are what chips become where they cover all.
    """
    long_px = whole_long_px(facts.one_level, facts.chip_px, facts.level_long_px, facts.needed_long_px)
    if small_images(facts.one_level, facts.chip_px, facts.level_long_px):
        why = f"one level serves objects of all sizes, and its images are no longer than {FEW_CHIPS:g} chips"
        return _whole(long_px, facts, why)
    if facts.needed_long_px > LARGE_IMAGE_PX:
        if facts.one_level and facts.chip_share >= EVERYWHERE:
            return Verdict("tiles", None, _tiles(facts))
        return Verdict(
            "chips",
            None,
            f"chips: whole images would have to be {facts.needed_long_px:.0f} px long for nine in ten objects to span "
            f"{SMALL_CELLS:g} cells of the feature map, and more than {LARGE_IMAGE_PX} px do not pay; chips are "
            f"{facts.chip_share:.0%} of the pixels of all images at their scales",
        )
    if facts.chip_share < SPARSE:
        return Verdict(
            "chips",
            None,
            f"chips: objects are few and far between; chips are {facts.chip_share:.0%} of the pixels of all images at "
            "their scales, and leave the empty ground out",
        )
    if facts.seen_by_whole < facts.seen_by_chips - AS_MANY:
        return Verdict(
            "chips",
            None,
            f"chips: sizes differ too much for one scale; whole images at {long_px} px show {facts.seen_by_whole:.0%} "
            f"of the objects at a size that the detector sees, chips {facts.seen_by_chips:.0%}",
        )
    why = f"at that size nine in ten objects span {SMALL_CELLS:g} cells, and chips would show {facts.chip_share:.0%} "
    return _whole(long_px, facts, f"{why}of all pixels")


def _whole(long_px: int, facts: Facts, why: str) -> Verdict:
    better = "cheaper" if facts.whole_megapixels < facts.chips_megapixels else "simpler"
    advice = f"whole images at {long_px} px are as good here, and {better}: use sampler.method: whole; {why}"
    return Verdict("whole", long_px, advice)


def _tiles(facts: Facts) -> str:
    return (
        f"tiles: objects are everywhere, and chips are {facts.chip_share:.0%} of the pixels of all images at their "
        "scale; uniform tiles of that scale are the same thing, and simpler: use sampler.method: tiles"
    )
