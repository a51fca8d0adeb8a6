"""Images at every level of a pyramid, their scales varied from epoch to epoch. ``docs/method.md``, "Chips"."""

import math

import numpy as np
from numpy.typing import NDArray

from sniper.chips.seeding import Purpose, draw_unit, stream_keys
from sniper.compiled import compiled
from sniper.data.table import AnnotationTable
from sniper.pyramid import Pyramid
from sniper.validity import ScaledImages, scaled_sizes

STEPS = 9


def jittered_images(
    table: AnnotationTable, pyramid: Pyramid, scale_jitter: float, *, seed: int, epoch: int
) -> ScaledImages:
    """The images of one epoch: each scale times a factor from 1 / ``scale_jitter`` to ``scale_jitter``.

    A factor for each image and level, one of nine whose logarithms are evenly spaced: of whole images, few shapes then
    reach a GPU, which prepares its kernels anew for each. Valid ranges stay those of the level, in original px, so
    that the same objects are learned at sizes around the level's. A factor of 1 leaves every scale as it is.
    """
    images = ScaledImages.of(table.sizes_wh, pyramid)
    if scale_jitter == 1:
        return images
    units = np.empty(images.scales.shape)
    _draw_units(stream_keys(seed, epoch, Purpose.SCALE, table.image_ids), units)
    steps = np.minimum(np.floor(units * STEPS), STEPS - 1) / (STEPS - 1)
    scales = images.scales * np.exp((2 * steps - 1) * math.log(scale_jitter))
    return ScaledImages(scales, scaled_sizes(table.sizes_wh, scales), images.ranges_px, images.chip_px)


@compiled
def _draw_units(keys: NDArray[np.uint64], units: NDArray[np.float64]) -> None:
    for image in range(len(keys)):
        for level in range(units.shape[1]):
            units[image, level] = draw_unit(keys[image], level)
