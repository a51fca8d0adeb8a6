"""Which pixels of an image a chip is made of; ``cut`` makes it of them."""

import math
from typing import NamedTuple, Self


class Span(NamedTuple):
    """What one axis of a chip needs of its source."""

    low: int  # first and
    high: int  # past-the-end source pixel, or block of pixels
    first: float  # position of the first chip pixel's centre, counted from the centre of source pixel 0

    def shifted(self) -> Self:
        """The same in a source that begins at ``low``."""
        return self._replace(low=0, high=self.high - self.low, first=self.first - self.low)

    def shows_whole(self, length: int) -> bool:
        """Whether, at one source pixel per chip pixel, ``length`` chip pixels are source pixels."""
        return self.first == self.low and self.high - self.low == length


class Footprint(NamedTuple):
    """What a chip needs of its source: blocks of ``block`` x ``block`` pixels, of which ``step`` make a chip pixel."""

    x: Span
    y: Span
    block: int
    step: float

    def of_blocks(self) -> Self:
        """The same in an image of these blocks alone."""
        return self._replace(x=self.x.shifted(), y=self.y.shifted())


def footprint(
    size_wh: tuple[int, int], origin_xy: tuple[int, int], scale: float, valid_wh: tuple[int, int]
) -> Footprint:
    """What a chip needs of a source of ``size_wh`` px, of which ``scale`` chip pixels make one."""
    step = 1 / scale
    block = max(1, math.floor(step + 1e-9))
    step /= block
    x, y = (_span(origin_xy[a], valid_wh[a], step, -(-size_wh[a] // block)) for a in (0, 1))
    return Footprint(x, y, block, step)


def _span(origin: int, length: int, step: float, available: int) -> Span:
    """The span of ``length`` chip pixels, ``step`` source pixels each, of ``available`` source pixels."""
    first = (origin + 0.5) * step - 0.5
    reach = max(1.0, step) / 2 - 0.5
    low = min(max(math.floor(first - reach), 0), available - 1)
    high = max(min(math.ceil(first + (length - 1) * step + reach), available - 1), low) + 1
    return Span(low, high, first)
