"""Images that show the same, found by a perceptual hash and compared by their thumbnails."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.checks.config import CheckConfig

_BANDS = 14  # of 8 bits: hashes that differ in fewer bits than there are bands have one in common
_NEIGHBOURS = 32  # compared in the order of a band; a film of one scene has more that look alike, and they form a chain
_ONES = np.array([number.bit_count() for number in range(256)], np.uint8)
_FLAT = 4  # thumbnails that span fewer grey levels tell nothing


class Pairs(NamedTuple):
    """P pairs of images that show the same."""

    first: NDArray[np.int64]  # (P,) rows, each before its second
    second: NDArray[np.int64]  # (P,)
    difference: NDArray[np.float32]  # (P,) mean difference of the thumbnails, grey levels


def similar_images(thumbnails: NDArray[np.uint8], config: CheckConfig) -> Pairs:
    """Pairs of (I, 32, 32) thumbnails that look the same. Each image is paired with its likest earlier one at most.

    The hash has a bit for each two neighbours of 8 x 8 places: whether the left, or the upper one, is brighter.
    Hashes that may be alike are found through bands of equal bits, and the thumbnails decide.
    """
    count = len(thumbnails)
    best = np.full(count, -1, np.int64)
    least = np.full(count, np.inf, np.float32)
    bits = _hashes(thumbnails)
    telling = np.flatnonzero(np.ptp(thumbnails.reshape(count, 32 * 32), axis=1) >= _FLAT)
    for band in range(_BANDS):
        order = telling[np.lexsort((*bits[telling].T, bits[telling, band]))]
        for step in range(1, min(_NEIGHBOURS, len(order) - 1) + 1):
            one, other = order[:-step], order[step:]
            near = bits[one, band] == bits[other, band]
            if not near.any():
                break
            one, other = one[near], other[near]
            near = _ONES[bits[one] ^ bits[other]].sum(axis=1) <= config.similar_bits
            low, high = np.minimum(one, other)[near], np.maximum(one, other)[near]
            _keep_best(thumbnails, low, high, best, least, config.similar_levels)
    second = np.flatnonzero(best >= 0)
    return Pairs(best[second], second, least[second])


def _keep_best(
    thumbnails: NDArray[np.uint8],
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    best: NDArray[np.int64],
    least: NDArray[np.float32],
    limit: float,
) -> None:
    """Compare pairs, and keep for each later image the earlier one that differs least; the first of equals."""
    for start in range(0, len(low), 4096):  # so that the thumbnails of all pairs are never in memory at once
        first, second = low[start : start + 4096], high[start : start + 4096]
        difference = np.abs(thumbnails[first].astype(np.int16) - thumbnails[second]).mean(axis=(1, 2), dtype=np.float32)
        order = np.lexsort((-first, -difference))  # the best is written last
        first, second, difference = first[order], second[order], difference[order]
        better = (difference <= limit) & (difference < least[second])
        least[second[better]], best[second[better]] = difference[better], first[better]


def _hashes(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(I, 14) bytes of 112 bits."""
    count = len(thumbnails)
    small = thumbnails.reshape(count, 8, 4, 8, 4).sum(axis=(2, 4), dtype=np.int32)
    left, upper = small[:, :, :-1] > small[:, :, 1:], small[:, :-1] > small[:, 1:]
    return np.packbits(np.concatenate([left.reshape(count, 56), upper.reshape(count, 56)], axis=1), axis=1)
