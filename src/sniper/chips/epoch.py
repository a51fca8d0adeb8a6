"""The chips of one epoch: a pure function of the annotations, the pyramid, the settings, the seed and the epoch.

Each epoch draws one stride for its candidates and its own tie-breaks, so the chips of an image differ from
epoch to epoch. See ``docs/method.md``, "Chips".
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.chips import background
from sniper.chips.config import ChipConfig
from sniper.chips.negative import NegativeConfig, Proposals, negative_chips
from sniper.chips.positive import cover_images, valid_objects
from sniper.chips.seeding import Purpose, draw_below, stream_keys
from sniper.chips.table import ChipKind, ChipTable
from sniper.data.table import AnnotationTable
from sniper.pyramid import Pyramid
from sniper.validity import ScaledImages


class _Part(NamedTuple):
    """Chips of one kind, ordered by image."""

    kind: ChipKind
    image_index: NDArray[np.int32]
    level: NDArray[np.int16]
    origin_xy: NDArray[np.int32]
    objects: NDArray[np.int32]
    object_rows: NDArray[np.int64]


def mine(
    table: AnnotationTable,
    pyramid: Pyramid,
    config: ChipConfig,
    *,
    seed: int,
    epoch: int,
    proposals: Proposals | None = None,
    negatives: NegativeConfig | None = None,
    scaled_images: ScaledImages | None = None,
) -> ChipTable:
    """The chips of one epoch, ordered by image; an image's positive chips by level, finest first, then negative ones
    (also by level), then background.

    A positive chip lists the objects that it covered first; together they list every object that is valid at a
    level exactly once for that level. A negative or a background chip lists the objects that are valid at its level
    and lie fully inside; an image without objects has none. Everything else that a chip shows is ignored.
    Negative chips come from ``proposals`` (of the images of ``table``; usually what ``negative.false_positives``
    leaves). ``scaled_images`` are those of the epoch where they vary (``jitter``); None: as the pyramid has them.

    The same arguments give the same chips, for any number of threads, and an image's positive chips do not depend on
    the other images of the table, nor do its negative ones without ``negatives.max_per_positive``.

    Raises:
        RecipeError: the stride does not suit the chip's side.
    """
    min_count, largest = config.strides_px(pyramid.chip_px)
    if scaled_images is None:
        scaled_images = ScaledImages.of(table.sizes_wh, pyramid)
    rule = config.size_rule(pyramid.chip_px)
    stride_key = stream_keys(seed, epoch, Purpose.STRIDE, np.zeros(1, np.int64))[0]
    stride = min_count + draw_below(stride_key, 0, largest - min_count + 1)
    keys = stream_keys(seed, epoch, Purpose.COVER, table.image_ids)
    positive = cover_images(table, scaled_images, rule, stride, keys)
    parts = [_Part(ChipKind.POSITIVE, *positive)]

    if proposals is not None:
        keys = stream_keys(seed, epoch, Purpose.NEGATIVE, table.image_ids)
        hard = negative_chips(
            table, scaled_images, rule, positive, proposals, negatives or NegativeConfig(), stride, keys
        )
        parts.append(_Part(ChipKind.NEGATIVE, *hard[:5]))

    empty = background.of_empty_images(
        table, scaled_images, stride, config.background_per_image, seed=seed, epoch=epoch
    )
    if len(empty.image_index):
        none = np.zeros(len(empty.image_index), np.int32)
        parts.append(_Part(ChipKind.BACKGROUND, *empty, none, np.zeros(0, np.int64)))
    extra = round(config.background_share * len(parts[0].image_index))
    if extra:
        windows = background.anywhere(extra, scaled_images, stride, seed=seed, epoch=epoch)
        inside = background.objects_inside(table, scaled_images, windows, valid_objects(table, scaled_images, rule))
        parts.append(_Part(ChipKind.BACKGROUND, *windows, *inside))
    return _join(parts, scaled_images)


def _join(parts: list[_Part], scaled_images: ScaledImages) -> ChipTable:
    """One table, ordered by image and, within an image, by part."""
    image_index = np.concatenate([part.image_index for part in parts])
    level = np.concatenate([part.level for part in parts])
    kind = np.repeat(np.asarray([part.kind for part in parts], np.int8), [len(part.image_index) for part in parts])
    origin = np.concatenate([part.origin_xy for part in parts])
    objects = np.concatenate([part.objects for part in parts])
    rows = np.concatenate([part.object_rows for part in parts])
    if len(parts) > 1:
        order = np.argsort(image_index, kind="stable")
        first = (np.cumsum(objects) - objects)[order]
        image_index, level, kind = image_index[order], level[order], kind[order]
        origin, objects = origin[order], objects[order]
        rows = rows[np.arange(len(rows)) + np.repeat(first - (np.cumsum(objects) - objects), objects)]
    offsets = np.zeros(len(objects) + 1, np.int64)
    np.cumsum(objects, out=offsets[1:])
    return ChipTable(
        image_index=image_index,
        level=level,
        kind=kind,
        scale=scaled_images.scales[image_index, level],
        origin_xy=origin,
        size_wh=np.full((len(image_index), 2), scaled_images.chip_px, np.int32),
        valid_wh=np.minimum(scaled_images.sizes_wh[image_index, level] - origin, scaled_images.chip_px).astype(
            np.int32
        ),
        range_px=scaled_images.ranges_px.astype(np.float32)[level],
        object_offsets=offsets,
        object_rows=rows,
    )
