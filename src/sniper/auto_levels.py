"""Levels, valid ranges and the side of chips, derived from a dataset. ``docs/method.md``, "Automatic levels"."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from sniper.economy import economical_scale
from sniper.pyramid import FOCUS_PX, Level, Pyramid, Range
from sniper.validity import ScaledImages, valid_sizes

SPREAD = 12.0  # ratio of the largest to the smallest object size that one level learns as well as several would
LEAST_SPREAD = 2.5  # a level for less than that is not worth its pixels
GRID = 512  # places between the smallest and the largest size at which ranges may meet
LARGEST = 4.5  # times the comfortable size: objects up to that are seen well too
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
    max_spread: float = SPREAD,
    economy: float = 0.0,
    margin: float = MARGIN,
    min_side_px: float = MIN_SIDE_PX,
    object_class: NDArray[np.integer] | None = None,
) -> Pyramid:
    """Levels, ranges and chip size from the sizes of a dataset's objects.

    The middle 96 % of the sizes (their logarithms) are cut into the fewest parts of at most ``max_spread``, where few
    objects are, of every class alike; each part becomes a level that scales the part's geometric centre to
    ``object_px``. The finest does not shrink what is seen well at full size. One part has no ranges. Where a scale
    shrinks the images of most of its objects below one chip, the level shows whole images in one chip: going lower
    saves no pixel.
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
        max_scale: the largest scale allowed.
        max_spread: ratio of the largest to the smallest object size that one level learns.
        economy: share of the AP expected at these scales that may be given up for coarser ones.
        margin: part of a chip that an object must leave free to be sure to fit (the grid's coarsest stride).
        min_side_px: objects with a shorter side, original px, are never valid.
        object_class: (N,) class of each object; None: all of one.
    """
    wh, images = np.asarray(object_wh), np.asarray(image_wh)
    areas = np.multiply(wh[:, 0], wh[:, 1], dtype=np.float64)
    usable = (areas >= SPECK_PX**2) & (np.minimum(wh[:, 0], wh[:, 1]) >= min_side_px)
    wh, image = wh[usable], np.asarray(object_image, np.int64)[usable]
    chip = chip_px or 512
    if not len(wh):
        return Pyramid(levels=(_whole(chip, max_scale),), chip_px=chip)
    sizes = np.sqrt(areas[usable])
    low, high = np.quantile(sizes, [0.02, 0.98])
    classes = np.zeros(len(sizes), np.int64) if object_class is None else np.asarray(object_class)[usable]
    edges = _edges(sizes, classes, low, high, max_spread)
    parts = len(edges) - 1
    wanted = object_px / np.sqrt(edges[:-1] * edges[1:])
    wanted[0] = max(wanted[0], min(1.0, LARGEST * object_px / edges[1]))
    part = np.clip(np.searchsorted(edges, sizes, side="right") - 1, 0, parts - 1)
    for k in range(parts) if economy else ():
        most = min(wanted[k], max_scale)
        wanted[k] = economical_scale(sizes[part == k], classes[part == k], most, economy=economy, object_px=object_px)
    scales = [min(float(f"{scale:.2g}"), max_scale) for scale in wanted]
    if chip_px is None:
        chip = _chip_side(images, scales[0])
    long_sides = images.max(axis=1)[image]
    forms = _forms(scales, [long_sides[part == k] for k in range(parts)], chip, max_scale)
    start = Pyramid(levels=_with_ranges(forms, list(edges[1:-1])), chip_px=chip)

    def valid(levels: Sequence[Level]) -> NDArray[np.bool_]:
        trial = ScaledImages.of(images, Pyramid(levels=tuple(levels), chip_px=chip))
        each = valid_sizes(wh, image, trial, stride_max=round(margin * chip), min_side_px=min_side_px)
        return np.logical_or.reduce(each, axis=1)

    return _widened(start, sizes, valid)


def with_scout(pyramid: Pyramid, small_px: float = FOCUS_PX[1]) -> Pyramid:
    """A pyramid of one fixed scale with a coarser level before it, from which AutoFocus tells where to look closer.

    The scout learns objects of all sizes, as the level itself does. What it keeps are those from ``small_px`` on
    (network px), which a focus branch does not send to the finer level; that level sees all others better, and merged
    with it the scout's detections of them only compete. Pyramids of several levels, and one that shows whole images in
    a chip, stay as they are.
    """
    scale = pyramid.levels[0].scale
    if len(pyramid.levels) > 1 or scale is None:
        return pyramid
    coarser = float(f"{scale / SCOUT:.2g}")
    kept_px = float(f"{small_px / coarser:.3g}"), None
    scout = pyramid.levels[0].model_copy(update={"scale": coarser, "infer_range_px": kept_px})
    return pyramid.model_copy(update={"levels": (*pyramid.levels, scout)})


def _edges(
    sizes: NDArray[np.float64], classes: NDArray[np.integer], low: float, high: float, max_spread: float
) -> NDArray[np.float64]:
    """(P + 1,) sizes at which the fewest parts of at most ``max_spread`` begin and end, the first and the last given.

    An object near an edge is learned at two levels, or at one and not quite at the other. An edge costs the share of
    objects within the overlap of ranges around it, the mean over classes; of equally good edges the most even ones.
    """
    parts = max(1, math.ceil(math.log(high / low) / math.log(max_spread) - 1e-9))
    edges = np.geomspace(low, high, parts + 1)
    if parts == 1:
        return edges
    grid = np.geomspace(low, high, GRID + 1)  # a histogram: as exact as it need be, and bounded in memory
    weight = 1 / np.bincount(classes)[classes].astype(np.float32)
    until = np.concatenate([[0.0], np.cumsum(np.bincount(np.searchsorted(grid, sizes), weight, GRID + 2))])
    until /= until[-1]  # share of the objects that are below a place of the grid, all classes alike

    def below(size: NDArray[np.float64]) -> NDArray[np.float64]:
        return until[np.searchsorted(grid, size) + 1]

    half = math.sqrt(TRAIN_OVERLAP)
    for _ in range(2):
        for k in range(1, parts):
            first = max(edges[k - 1] * LEAST_SPREAD, edges[k + 1] / max_spread)
            last = min(edges[k + 1] / LEAST_SPREAD, edges[k - 1] * max_spread)
            if first >= last:
                continue
            tried = np.geomspace(first, last, 64)
            cost = (below(tried * half) - below(tried / half)).round(3)
            even = np.abs(np.log(tried**2 / (edges[k - 1] * edges[k + 1])))
            edges[k] = tried[np.lexsort((even, cost))[0]]
    return edges


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
