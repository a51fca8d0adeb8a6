"""Levels of the pyramid: how an image is scaled, and which objects count at that scale.

Valid ranges are the square root of box area in *original* pixels, as in SNIP (arXiv 1711.08189, section 5).
See ``docs/method.md``, "Levels and valid ranges".
"""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from sniper.settings import Config

Bound = Annotated[float, Field(ge=0)]
Range = tuple[Bound, Bound | None]


class Level(Config):
    """One scale. Give exactly one form: ``scale``, or ``short_px`` and ``long_px`` (either or both)."""

    scale: float | None = Field(None, gt=0, description="network px per original px, the same for every image")
    short_px: int | None = Field(None, gt=0, description="resize so that the short side has this many px ...")
    long_px: int | None = Field(None, gt=0, description="... unless the long side would exceed this many px")
    max_scale: float | None = Field(
        None, gt=0, description="with sides: small images are zoomed no further than this, network px per original px"
    )
    train_range_px: Range = Field(
        (0.0, None), description="valid objects in training, sqrt(area) in original px, low <= size < high; null = open"
    )
    infer_range_px: Range = Field(
        (0.0, None), description="detections kept at inference, sqrt(area) in original px; null = open"
    )

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        sides = self.short_px is not None or self.long_px is not None
        if (self.scale is not None) == sides:
            raise ValueError("a level takes either scale, or short_px and/or long_px")
        if self.max_scale is not None and not sides:
            raise ValueError("max_scale goes with short_px or long_px; a scale needs no bound")
        for name in ("train_range_px", "infer_range_px"):
            low, high = getattr(self, name)
            if high is not None and high <= low:
                raise ValueError(f"{name}: the upper bound {high} must exceed the lower bound {low}")
        return self

    def scales(self, sizes_wh: NDArray[np.integer] | NDArray[np.floating]) -> NDArray[np.float64]:
        """(I,) zoom of images of (I, 2) size, network px per original px.

        With both sides given, the short side rules unless the rounded long side would exceed ``long_px``.
        """
        sizes = np.asarray(sizes_wh, dtype=np.float64).reshape(-1, 2)
        if self.scale is not None:
            return np.full(len(sizes), self.scale)
        scale = self._by_sides(sizes.min(axis=1), sizes.max(axis=1))
        return scale if self.max_scale is None else np.minimum(scale, self.max_scale)

    def _by_sides(self, short: NDArray[np.float64], long: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.short_px is None:
            assert self.long_px is not None
            return self.long_px / long
        scale = self.short_px / short
        if self.long_px is None:
            return scale
        return np.where(np.round(scale * long) > self.long_px, self.long_px / long, scale)


def bounds(range_px: Range) -> tuple[float, float]:
    """A range with its open end as infinity."""
    low, high = range_px
    return float(low), math.inf if high is None else float(high)


class Pyramid(Config):
    """The levels of a run, finest first, and the size of its chips."""

    levels: tuple[Level, ...] = Field(min_length=1, description="zoom levels, finest first")
    chip_px: int = Field(512, ge=64, description="side of a chip, network px")

    def scales(self, sizes_wh: NDArray[np.integer]) -> NDArray[np.float64]:
        """(I, L) zoom of every image at every level."""
        return np.stack([level.scales(sizes_wh) for level in self.levels], axis=1)

    def train_ranges_px(self) -> NDArray[np.float64]:
        """(L, 2) valid ranges in training, original px, open ends as infinity."""
        return np.asarray([bounds(level.train_range_px) for level in self.levels], dtype=np.float64)

    def infer_ranges_px(self) -> NDArray[np.float64]:
        """(L, 2) ranges kept at inference, original px, open ends as infinity."""
        return np.asarray([bounds(level.infer_range_px) for level in self.levels], dtype=np.float64)


class PyramidConfig(Config):
    """How the pyramid is chosen: given level by level, or derived from the dataset."""

    levels: Literal["auto"] | Annotated[tuple[Level, ...], Field(min_length=1)] = Field(
        "auto", description="'auto', or the levels, finest first"
    )
    chip_px: Annotated[int, Field(ge=64)] | Literal["auto"] = Field(
        "auto", description="side of a chip, network px; auto: 512, less where all zoomed images are smaller"
    )
    object_px: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        "auto", description="size the detector sees best, sqrt(area) in network px; auto: 4 feature cells"
    )
    max_scale: float = Field(4.0, gt=0, description="the finest level that auto may choose, network px per original px")


SPREAD = 5.0  # ratio of the largest to the smallest object size that one level should have to learn
TRAIN_OVERLAP = 1.5  # neighbouring training ranges share this ratio of sizes, so that no size is at an edge twice
INFER_OVERLAP = 2.0  # and a little more at inference, as the published ranges do: predicted sizes are noisy
MOSTLY = 0.9  # share of a level's objects whose images must fit into a chip before the level shows whole images
MARGIN = 59 / 512  # part of a chip that an object must leave free to be sure to fit: the grid's coarsest stride
MIN_SIDE_PX = 2.0  # an object with a shorter side than this, original px, is never valid
SPECK_PX = 2.0  # nor do objects smaller than this, sqrt(area) in original px, have a say in the levels
SCOUT = 3.0  # how much coarser than a single level one is that only says where to look: a ninth of its pixels
COVERED = 0.995  # share of objects that auto wants valid somewhere; above the 99 % promised, to leave room for rounding


def derive_pyramid(
    object_wh: NDArray[np.floating],
    object_image: NDArray[np.integer],
    image_wh: NDArray[np.integer],
    *,
    object_px: float,
    chip_px: int | None = None,
    max_scale: float = 4.0,
    margin: float = MARGIN,
    min_side_px: float = MIN_SIDE_PX,
) -> Pyramid:
    """Levels, ranges and chip size from the sizes of a dataset's objects.

    The middle 96 % of the sizes (their logarithms) are cut into the fewest equal parts of at most ``SPREAD``;
    each part becomes a level that zooms the part's geometric centre to ``object_px``. Where that shrinks the images
    of most of its objects below one chip, the level shows whole images in one chip: going lower saves no pixel.
    The coarsest range is widened downwards, and a whole-image level added, while too many objects fit nowhere
    (long thin ones, or ones larger than a chip). No image is scaled further than by ``max_scale``, nor further at a
    coarser level than at a finer one. Objects that no level could learn (crowds are the caller's to leave out, slivers
    and specks below ``min_side_px`` are left out here) have no say. ``docs/method.md``, "Automatic levels".

    Args:
        object_wh: (N, 2) sizes of the objects, original px.
        object_image: (N,) image of each object, row of ``image_wh``.
        image_wh: (I, 2) sizes of the images, original px.
        object_px: size the detector sees best, network px.
        chip_px: side of a chip, network px; None chooses it.
        max_scale: the finest zoom allowed.
        margin: part of a chip that an object must leave free to be sure to fit (the grid's coarsest stride).
        min_side_px: objects with a shorter side, original px, are never valid.
    """
    wh, images = np.asarray(object_wh, dtype=np.float64), np.asarray(image_wh)
    usable = (wh.prod(axis=1) >= SPECK_PX**2) & (wh.min(axis=1) >= min_side_px)
    wh, image = wh[usable], np.asarray(object_image)[usable]
    chip = chip_px or 512
    if not len(wh):
        return Pyramid(levels=(_whole(chip, max_scale),), chip_px=chip)
    sizes = np.sqrt(wh.prod(axis=1))
    low, high = np.quantile(sizes, [0.02, 0.98])
    parts = max(1, math.ceil(math.log(high / low) / math.log(SPREAD) - 1e-9))
    edges = np.geomspace(low, high, parts + 1)
    centres = np.sqrt(edges[:-1] * edges[1:])
    scales = [min(float(f"{object_px / centre:.2g}"), max_scale) for centre in centres]
    if chip_px is None:
        chip = _chip_side(images, scales[0])
    long_sides = images[image].max(axis=1)
    part = np.clip(np.searchsorted(edges, sizes, side="right") - 1, 0, parts - 1)
    forms = _forms(scales, [long_sides[part == k] for k in range(parts)], chip, max_scale)
    start = Pyramid(levels=_with_ranges(forms, list(edges[1:-1])), chip_px=chip)

    def valid(levels: Sequence[Level]) -> NDArray[np.bool_]:
        trial = Pyramid(levels=tuple(levels), chip_px=chip)
        each = valid_levels(trial, wh, image, images, margin=margin, min_side_px=min_side_px)
        return np.logical_or.reduce(each, axis=1)

    return _widened(start, sizes, valid)


def with_scout(pyramid: Pyramid) -> Pyramid:
    """A pyramid of one fixed scale with a coarser level before it, from which AutoFocus tells where to look closer.

    The scout learns and finds objects of all sizes, as the level itself does: what it is sure of need not be looked
    at again. Pyramids of several levels, and one that shows whole images in a chip, stay as they are.
    """
    scale = pyramid.levels[0].scale
    if len(pyramid.levels) > 1 or scale is None:
        return pyramid
    scout = pyramid.levels[0].model_copy(update={"scale": float(f"{scale / SCOUT:.2g}")})
    return pyramid.model_copy(update={"levels": (*pyramid.levels, scout)})


def _chip_side(image_wh: NDArray[np.integer], finest: float) -> int:
    """512, or less where even the scaled images are smaller."""
    needed = float(np.max(image_wh)) * finest
    return int(min(512, max(128, 32 * math.ceil(needed / 32))))


def _forms(scales: list[float], long_sides: list[NDArray[np.integer]], chip_px: int, max_scale: float) -> list[Level]:
    """A level for each scale; one 'whole image in a chip' level in place of all that shrink images below a chip.

    ``long_sides`` are, for each scale, those of the images of its objects (an image counts once per object).
    """
    forms: list[Level] = []
    for scale, sides in zip(scales, long_sides, strict=True):
        if len(sides) and np.mean(scale * sides <= chip_px) >= MOSTLY:
            forms.append(_whole(chip_px, forms[-1].scale or max_scale if forms else max_scale))
            break
        forms.append(Level(scale=scale))
    return forms


def _whole(chip_px: int, max_scale: float) -> Level:
    """The level that shows whole images in a chip; small ones are not blown up to fill it, nor beyond finer levels."""
    return Level(long_px=chip_px, max_scale=max_scale)


def _with_ranges(forms: list[Level], edges: list[float]) -> tuple[Level, ...]:
    """Training and inference ranges that meet at ``edges`` with the usual overlaps; the ends stay open."""
    inner = edges[: len(forms) - 1]

    def ranges(overlap: float) -> list[Range]:
        half = math.sqrt(overlap)
        lows = [0.0] + [float(f"{edge / half:.3g}") for edge in inner]
        highs: list[float | None] = [float(f"{edge * half:.3g}") for edge in inner] + [None]
        return list(zip(lows, highs, strict=True))

    return tuple(
        form.model_copy(update={"train_range_px": train, "infer_range_px": infer})
        for form, train, infer in zip(forms, ranges(TRAIN_OVERLAP), ranges(INFER_OVERLAP), strict=True)
    )


def _widened(
    pyramid: Pyramid, sizes: NDArray[np.float64], valid: Callable[[Sequence[Level]], NDArray[np.bool_]]
) -> Pyramid:
    """The pyramid with its coarse end changed until ``COVERED`` of the objects are valid at some level."""
    levels = list(pyramid.levels)
    if levels[-1].scale is not None and (fits := valid(levels)).mean() < COVERED:
        edge = float(f"{max(np.quantile(sizes[~fits], 0.05) / math.sqrt(TRAIN_OVERLAP), 1.0):.3g}")
        whole = _whole(pyramid.chip_px, levels[-1].scale)
        levels.append(_from(whole, edge, float(f"{edge / 1.2:.3g}")))
    while valid(levels).mean() < COVERED and levels[-1].train_range_px[0] > 1:
        low = float(f"{levels[-1].train_range_px[0] * 0.7:.3g}")
        levels[-1] = _from(levels[-1], low, min(levels[-1].infer_range_px[0], float(f"{low / 1.2:.3g}")))
    return Pyramid(levels=tuple(levels), chip_px=pyramid.chip_px)


def _from(level: Level, train_low: float, infer_low: float) -> Level:
    """The level for all objects from these sizes on."""
    return level.model_copy(update={"train_range_px": (train_low, None), "infer_range_px": (infer_low, None)})


def valid_levels(
    pyramid: Pyramid,
    object_wh: NDArray[np.floating],
    object_image: NDArray[np.integer],
    image_wh: NDArray[np.integer],
    *,
    margin: float = MARGIN,
    min_side_px: float = MIN_SIDE_PX,
) -> NDArray[np.bool_]:
    """(N, L) whether each object is valid at each level: in its training range, not tiny, and sure to fit in a chip.

    An object fits where, along each axis, its scaled side leaves ``margin`` of the chip (in whole px) free, or the
    whole scaled image is no longer than a chip. Mining goes by the same rule (``chips.positive``).
    """
    wh = np.asarray(object_wh, dtype=np.float64)
    scales = pyramid.scales(image_wh)[object_image]  # (N, L)
    room = (pyramid.chip_px - round(margin * pyramid.chip_px)) / scales
    scaled_image = np.ceil(np.asarray(image_wh, dtype=np.float64)[object_image][:, None, :] * scales[..., None] - 1e-6)
    fits = ((wh[:, None, :] <= room[..., None]) | (scaled_image <= pyramid.chip_px)).all(axis=2)
    areas = wh.prod(axis=1)[:, None]
    ranges = pyramid.train_ranges_px() ** 2
    in_range = (areas >= ranges[None, :, 0]) & (areas < ranges[None, :, 1])
    return fits & in_range & (wh.min(axis=1) >= min_side_px)[:, None]
