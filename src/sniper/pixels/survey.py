"""What the files of a dataset say of their samples: 16-bit values, and bands. A few files are looked at.

See ``docs/method.md``, "Reading images".
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sniper.pixels.decode import deep_samples
from sniper.pixels.rasters import raster_facts

HEADERS, DECODED = 64, 16  # files whose headers, and whose samples, are looked at
_OUTLIERS = 0.001  # share of the samples, on either side, that does not count: hot pixels, saturated clouds
_PNG, _TIFF = b"\x89PNG", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JPEG2000 = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")


class Survey(NamedTuple):
    """16-bit samples and bands of some files."""

    files: int  # looked at
    deep: int  # of these, with 16-bit samples
    low: int  # quantiles of their samples, 0.1 % and 99.9 %; 0 where there are none
    high: int
    most_bands: tuple[Path, int] | None  # the first file with more than four bands, and how many

    @property
    def value_range(self) -> tuple[int, int] | None:
        """What should become 0 and 255: all values of as many bits as are in use; None without 16-bit samples.

        Values that begin high above zero (an offset of half of them) begin at the lowest.
        """
        if not self.deep:
            return None
        highest = max(255, (1 << int(self.high).bit_length()) - 1)
        if 2 * self.low < self.high:
            return 0, highest
        return self.low, self.high if self.high > self.low else highest


def survey(paths: Sequence[Path]) -> Survey:
    """Look at files that are spread evenly over ``paths``; those that cannot be read are passed over."""
    looked = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, min(HEADERS, len(paths))).astype(int))]
    deep: list[Path] = []
    most: tuple[Path, int] | None = None
    for path in looked:
        bits, bands = _header(path)
        if bits > 8:
            deep.append(path)
        if bands > 4 and most is None:
            most = path, bands
    samples = [
        values for path in deep[:: max(1, len(deep) // DECODED)][:DECODED] if (values := _values(path)) is not None
    ]
    if not samples:
        return Survey(len(looked), 0, 0, 0, most)
    counts = np.sum([np.bincount(values, minlength=65536) / values.size for values in samples], axis=0)
    below = np.cumsum(counts) / len(samples)
    low, high = (int(np.searchsorted(below, share - 1e-12)) for share in (_OUTLIERS, 1 - _OUTLIERS))
    return Survey(len(looked), len(deep), low, high, most)


def _header(path: Path) -> tuple[int, int]:
    """Bits of a sample, and bands, as far as the file begins to say so; (8, 3) for what has no more than 8 bits."""
    try:
        with path.open("rb") as file:
            start = file.read(26)
    except OSError:
        return 8, 3
    if start.startswith(_PNG) and len(start) == 26:
        return start[24], 3
    if start.startswith((*_TIFF, *_JPEG2000)):
        if (facts := raster_facts(path)) is not None:
            return (16 if facts.kind == "uint16" else 8), facts.bands
        return _by_pillow(path)
    return 8, 3


def _by_pillow(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I;16"):
                return 16, 1
            bits = image.tag_v2.get(258, (8,)) if image.format == "TIFF" else (8,)  # type: ignore[attr-defined]
            return max(bits), len(image.getbands())
    except (OSError, SyntaxError, ValueError, TypeError, Image.DecompressionBombError):
        return 8, 3


def _values(path: Path) -> NDArray[np.uint16] | None:
    """Some 16-bit samples of a file, flat; None where it cannot be read."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if not content.startswith(_PNG) and (facts := raster_facts(path, samples=True)) is not None:
        return facts.samples
    values = deep_samples(content)
    return None if values is None else values.ravel()
