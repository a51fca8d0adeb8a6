"""Random numbers that belong to an image and not to a worker.

Every draw is a hash of (seed, epoch, purpose, image id, draw number), so the result is the same for any
number of threads, workers and ranks, and for an image alone or among others. The hash is the output
function of splitmix64 (Steele, Lea and Flood 2014), which passes the usual test batteries.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from sniper.compiled import compiled

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31, _S32 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)
_S11, _UNIT = np.uint64(11), 2.0**-53
_MASK = (1 << 64) - 1


class Purpose(IntEnum):
    """What a stream of draws decides; streams of different purposes are independent."""

    STRIDE = 1
    COVER = 2
    EMPTY_IMAGE = 3
    EXTRA_BACKGROUND = 4
    NEGATIVE = 5
    SCALE = 6
    REPEAT = 7


@compiled
def draw(key: np.uint64, number: int) -> np.uint64:
    """The ``number``-th 64 random bits of the stream ``key``."""
    x = key + (np.uint64(number) + np.uint64(1)) * _GAMMA
    x = (x ^ (x >> _S30)) * _FIRST
    x = (x ^ (x >> _S27)) * _SECOND
    return x ^ (x >> _S31)  # type: ignore[no-any-return]


@compiled
def draw_below(key: np.uint64, number: int, limit: int) -> int:
    """The ``number``-th draw of the stream ``key`` as an integer in [0, limit), limit < 2**32."""
    return np.int64(((draw(key, number) >> _S32) * np.uint64(limit)) >> _S32)  # type: ignore[return-value]


@compiled
def draw_unit(key: np.uint64, number: int) -> float:
    """The ``number``-th draw of the stream ``key`` as a number in (0, 1]."""
    return (np.float64(draw(key, number) >> _S11) + 0.5) * _UNIT  # type: ignore[no-any-return]


@compiled
def _keys(words: NDArray[np.uint64], ids: NDArray[np.int64]) -> NDArray[np.uint64]:
    start = np.uint64(0)
    for word in words:
        start = draw(start ^ word, 0)
    keys = np.empty(len(ids), np.uint64)
    for i in range(len(ids)):
        keys[i] = draw(start ^ draw(np.uint64(ids[i]), 0), 1)
    return keys


def stream_keys(seed: int, epoch: int, purpose: Purpose, ids: NDArray[np.int64]) -> NDArray[np.uint64]:
    """(I,) keys of the streams of ``ids`` (image ids, or draw numbers) for one purpose in one epoch."""
    words = np.asarray([word & _MASK for word in (seed, epoch, int(purpose))], dtype=np.uint64)
    return _keys(words, np.ascontiguousarray(ids, dtype=np.int64))
