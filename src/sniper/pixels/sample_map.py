"""How the samples of an image file become 8-bit red, green and blue: the range of values, and which bands.

See ``docs/method.md``, "Reading images". Recipes are read with it, and without NumPy.
"""

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FULL_RANGE = (0, 65535)


class SampleMap(NamedTuple):
    """Settings of ``data.value_range`` and ``data.bands``; what it says of 16 bit does not touch 8-bit samples."""

    value_range: tuple[int, int] = FULL_RANGE  # 16-bit values that become 0 and 255; others are clipped
    bands: tuple[int, int, int] | None = None  # numbers from 1 of red, green and blue; None: the first three

    @property
    def is_plain(self) -> bool:
        """Whether 16-bit samples keep their high byte, of the first bands."""
        return self == SampleMap()

    def to_8_bit(self, values: "NDArray[np.integer[Any]]") -> "NDArray[np.uint8]":
        """16-bit samples, (...) in 0..65535, as (...) uint8: 256 equal steps of the range."""
        if self.value_range == FULL_RANGE:
            return (values >> 8).astype("uint8")
        return _steps(*self.value_range)[values]


@cache
def _steps(low: int, high: int) -> "NDArray[np.uint8]":
    """(65536,) the 8-bit value of each 16-bit one."""
    import numpy as np

    values = np.arange(65536, dtype=np.int64)
    return np.asarray(np.clip((values - low) * 256 // (high - low + 1), 0, 255), np.uint8)
