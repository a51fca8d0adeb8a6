"""Where an image lies on the ground.

See ``docs/method.md``, "Huge images".
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class GeoReference:
    """A coordinate system, and the affine map from pixels into it."""

    crs: str  # as GeoJSON of 2008 names it: a URN such as urn:ogc:def:crs:EPSG::32633, or WKT
    affine: tuple[
        float, float, float, float, float, float
    ]  # x = a * column + b * row + c, y = d * column + e * row + f

    def to_ground(self, points_xy: NDArray[np.floating]) -> NDArray[np.float64]:
        """Positions (..., 2) in px, counted from the corner of the picture, as (..., 2) x and y on the ground."""
        a, b, c, d, e, f = self.affine
        x, y = np.moveaxis(np.asarray(points_xy, np.float64), -1, 0)
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=-1)

    @property
    def decimals(self) -> int:
        """Digits after the point that tell hundredths of a pixel."""
        a, b, _, d, e, _ = self.affine
        side = min(math.hypot(a, d), math.hypot(b, e))
        return min(max(math.ceil(2 - math.log10(side)), 0), 15) if side > 0 else 15
