"""Where an image lies on the ground, and detections as GeoJSON in its coordinate system.

See ``docs/method.md``, "Huge images".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
        """Positions (..., 2) in px, counted from the corner of the image, as (..., 2) x and y on the ground."""
        a, b, c, d, e, f = self.affine
        x, y = np.moveaxis(np.asarray(points_xy, np.float64), -1, 0)
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=-1)

    @property
    def decimals(self) -> int:
        """Digits after the point that tell hundredths of a pixel."""
        a, b, _, d, e, _ = self.affine
        side = min(math.hypot(a, d), math.hypot(b, e))
        return min(max(math.ceil(2 - math.log10(side)), 0), 15) if side > 0 else 15


def corners(boxes_xyxy: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N, 4, 2) the corners of boxes, from the top left one around."""
    x1, y1, x2, y2 = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4).T
    return np.stack([np.stack(one, axis=-1) for one in ((x1, y1), (x1, y2), (x2, y2), (x2, y1))], axis=1)


def feature_collection(
    geo: GeoReference,
    boxes_xyxy: NDArray[np.floating],
    scores: NDArray[np.floating],
    class_names: Sequence[str],
    outlines: Sequence[Sequence[NDArray[np.floating]]] | None = None,
) -> dict[str, Any]:
    """N detections as GeoJSON in the image's own coordinate system: their outlines, or the corners of their boxes.

    That is the GeoJSON of 2008, whose member ``crs`` names the system; GDAL, QGIS and GeoPandas read it. (RFC 7946
    of 2016 knows longitude and latitude alone.) Rings are counter-clockwise on the ground.

    Args:
        geo: where the image lies.
        boxes_xyxy: (N, 4) original px.
        scores: (N,)
        class_names: N, of each detection.
        outlines: of each detection its parts, (K, 2) rings in original px, not closed; without any, its box.
    """
    boxes = geo.to_ground(corners(boxes_xyxy))
    geometries = [
        {"type": "Polygon", "coordinates": [_ring(box, geo.decimals)]}
        if not parts
        else {"type": "MultiPolygon", "coordinates": [[_ring(geo.to_ground(one), geo.decimals)] for one in parts]}
        for box, parts in zip(boxes, outlines or [()] * len(boxes), strict=True)
    ]
    return {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": geo.crs}},
        "features": [
            {"type": "Feature", "properties": {"class": name, "score": score}, "geometry": geometry}
            for name, score, geometry in zip(
                class_names, np.round(scores.astype(np.float64), 5).tolist(), geometries, strict=True
            )
        ],
    }


def _ring(points: NDArray[np.float64], decimals: int) -> list[list[float]]:
    """(K, 2) points as a closed ring, counter-clockwise."""
    x, y = (points - points[0]).T
    if (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() < 0:
        points = points[::-1]
    closed: list[list[float]] = np.round(np.concatenate([points, points[:1]]), decimals).tolist()
    return closed
