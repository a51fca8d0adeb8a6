"""Repeat sampling: images with rare classes come several times in an epoch, so that a long tail is learned too.

The rule of LVIS (arXiv 1908.03195, appendix B): a class in the share f of the images has the factor
``max(1, sqrt(t / f))``, an image the largest factor of its classes. ``docs/method.md``, "Chips".
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sniper.chips.seeding import Purpose, draw_unit, stream_keys
from sniper.chips.table import ChipTable
from sniper.compiled import compiled, read_only
from sniper.data.columns import ragged_rows
from sniper.data.table import AnnotationTable


def repeat_factors(table: AnnotationTable, below: float) -> NDArray[np.float64]:
    """(I,) how often each image should come, 1 or more; 1 for images without objects. Ignored objects do not count.

    Args:
        below: the share of the images below which a class is rare (t).
    """
    labels, offsets, ignored = read_only(table.labels), read_only(table.offsets), read_only(table.ignored)
    images = _images_with(labels, offsets, ignored, len(table.class_names))
    of_class = np.maximum(1.0, np.sqrt(below * len(table) / np.maximum(images, 1)))
    return _largest(labels, offsets, ignored, of_class)


def repeated(
    chips: ChipTable, factors: NDArray[np.float64], image_ids: NDArray[np.int64], *, seed: int, epoch: int
) -> ChipTable:
    """Every chip of an image as often as the image comes in this epoch.

    That is its factor rounded up or down by chance, so that the mean over epochs is the factor. The draw belongs to the
    image, the seed and the epoch. The loader varies each of the equal chips anew.

    Args:
        factors: (I,) of ``repeat_factors``.
        image_ids: (I,) of the same images.
    """
    counts = _drawn(factors, stream_keys(seed, epoch, Purpose.REPEAT, image_ids))
    rows = np.repeat(np.arange(len(chips)), counts[chips.image_index])
    objects, offsets = ragged_rows(chips.object_offsets, rows)
    columns = ("image_index", "level", "kind", "scale", "origin_xy", "size_wh", "valid_wh", "range_px")
    return replace(
        chips,
        **{name: getattr(chips, name)[rows] for name in columns},
        object_offsets=offsets,
        object_rows=chips.object_rows[objects],
    )


@compiled
def _images_with(
    labels: NDArray[np.int32], offsets: NDArray[np.int64], ignored: NDArray[np.bool_], classes: int
) -> NDArray[np.int64]:
    """(C,) in how many images each class is."""
    count, latest = np.zeros(classes, np.int64), np.full(classes, -1, np.int64)
    for image in range(len(offsets) - 1):
        for row in range(offsets[image], offsets[image + 1]):
            if not ignored[row] and latest[labels[row]] != image:
                latest[labels[row]] = image
                count[labels[row]] += 1
    return count


@compiled
def _largest(
    labels: NDArray[np.int32], offsets: NDArray[np.int64], ignored: NDArray[np.bool_], of_class: NDArray[np.float64]
) -> NDArray[np.float64]:
    factors = np.ones(len(offsets) - 1)
    for image in range(len(factors)):
        for row in range(offsets[image], offsets[image + 1]):
            if not ignored[row]:
                factors[image] = max(factors[image], of_class[labels[row]])
    return factors


@compiled
def _drawn(factors: NDArray[np.float64], keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    counts = np.empty(len(factors), np.int64)
    for image in range(len(factors)):
        whole = np.int64(factors[image])
        counts[image] = whole + (draw_unit(keys[image], 0) <= factors[image] - whole)
    return counts
