"""Hard-negative chips: windows around a detector's own false positives.

A briefly trained detector's class-free boxes (*proposals*) crowd where the background looks like objects. Of each
level's proposals (valid there by the same rule as objects), those that the positive chips show already are left out;
the rest is covered like objects are, chips that hold few of them are dropped, and of the crowded ones an image gives a
few each epoch. Images without any object have no positive chips, so everything that is proposed there counts. Objects
need no second look: every valid one is in a positive chip. SNIPER (arXiv 1805.09300), section 3.2;
``docs/method.md``, "Negative chips".
"""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.chips.config import NegativeConfig as NegativeConfig
from sniper.chips.config import SizeRule
from sniper.chips.false_positives import Proposals as Proposals
from sniper.chips.false_positives import false_positives as false_positives
from sniper.chips.false_positives import proposals_shown as proposals_shown
from sniper.chips.negative_block import draw_time, negatives_block
from sniper.chips.positive import BLOCK_IMAGES, Cover
from sniper.compiled import compiled, read_only, thread_count
from sniper.data.table import AnnotationTable
from sniper.validity import ScaledImages


class Negatives(NamedTuple):
    """Negative chips of a block of images. K chips, M objects."""

    image_index: NDArray[np.int32]  # (K,) never decreasing
    level: NDArray[np.int16]  # (K,)
    origin_xy: NDArray[np.int32]  # (K, 2) network px
    objects: NDArray[np.int32]  # (K,) valid objects that happen to lie wholly inside
    object_rows: NDArray[np.int64]  # (M,) rows of the annotation table, grouped by chip
    proposals: NDArray[np.int32]  # (K,) uncovered proposals that it was made for
    weight: NDArray[np.float64]  # (K,) how likely it is drawn, relative to others


def negative_chips(
    table: AnnotationTable,
    scaled_images: ScaledImages,
    rule: SizeRule,
    positive: Cover,
    proposals: Proposals,
    config: NegativeConfig,
    stride: int,
    keys: NDArray[np.uint64],
) -> Negatives:
    """Negative chips of all images, by image, level (finest first) and order of the greedy choice.

    Blocks of images run on as many threads as numba may use; the result does not depend on how many.

    Args:
        scaled_images: those of ``table``.
        rule: which sizes are valid, for objects and proposals alike.
        positive: the positive chips of the epoch.
        proposals: of the images of ``table``, usually what ``false_positives`` leaves.
        config: thresholds and sampling (which proposals are left at all is ``false_positives``' affair).
        stride: spacing of the candidates in network px, at most ``rule.stride_max``.
        keys: (I,) stream of random draws of each image.

    Raises:
        ValueError: proposals of another number of images.
    """
    if len(proposals.offsets) != len(table) + 1:
        raise ValueError(f"proposals of {len(proposals.offsets) - 1} images do not fit a table of {len(table)}")
    min_count = np.full(len(scaled_images.ranges_px), config.min_proposals, np.int64)
    min_count[0] = config.min_proposals_finest
    chip_offsets = np.searchsorted(positive.image_index, np.arange(len(table) + 1)).astype(np.int64)
    per_image = config.per_image + np.floor(config.per_positive * np.diff(chip_offsets)).astype(np.int64)

    ignored = read_only(table.ignored)

    def block(start: int) -> Negatives:
        return Negatives(
            *negatives_block(
                start,
                min(start + BLOCK_IMAGES, len(table)),
                read_only(proposals.offsets),
                read_only(proposals.boxes_xyxy),
                read_only(proposals.scores),
                read_only(table.offsets),
                read_only(table.boxes_xyxy),
                ignored,
                read_only(table.sizes_wh),
                scaled_images.scales,
                scaled_images.sizes_wh,
                scaled_images.ranges_px,
                scaled_images.chip_px,
                float(rule.min_side_px),
                rule.stride_max,
                stride,
                keys,
                chip_offsets,
                positive.level,
                positive.origin_xy,
                per_image,
                min_count,
                config.covered == "overlap",
                config.covered_share,
                config.sampling == "score",
            )
        )

    starts = range(0, max(len(table), 1), BLOCK_IMAGES)
    if len(starts) == 1:
        found = block(0)
    else:
        with ThreadPoolExecutor(thread_count()) as threads:
            blocks = list(threads.map(block, starts))
        found = Negatives(*(np.concatenate(columns) for columns in zip(*blocks, strict=True)))
    if config.max_per_positive is None:
        return found
    return _drawn(found, round(config.max_per_positive * len(positive.image_index)), keys)


def _drawn(found: Negatives, max_count: int, keys: NDArray[np.uint64]) -> Negatives:
    """At most ``max_count`` of the chips, in their order."""
    if len(found.image_index) <= max_count:
        return found
    times = _arrivals(found.image_index, found.weight, keys)
    kept = np.zeros(len(times), np.bool_)
    kept[np.argsort(times, kind="stable")[:max_count]] = True
    columns = found._replace(object_rows=found.object_rows[np.repeat(kept, found.objects)])
    return Negatives(*(c if name == "object_rows" else c[kept] for name, c in columns._asdict().items()))


@compiled
def _arrivals(
    image_index: NDArray[np.int32], weight: NDArray[np.float64], keys: NDArray[np.uint64]
) -> NDArray[np.float64]:
    times = np.empty(len(weight), np.float64)
    number = 0  # of a chip in its image
    for k in range(len(weight)):
        number = number + 1 if k > 0 and image_index[k] == image_index[k - 1] else 0
        times[k] = draw_time(~keys[image_index[k]], number, weight[k])  # a stream that draws nothing else
    return times
