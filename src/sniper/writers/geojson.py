"""Detections on the ground, as GeoJSON in the image's coordinate system.

See ``docs/method.md``, "Huge images".
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sniper.files import replacing
from sniper.pixels.georeference import GeoReference


def corners(boxes_xyxy: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N, 4, 2) the corners of boxes, from the top left one around."""
    x1, y1, x2, y2 = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4).T
    return np.stack([np.stack(one, axis=-1) for one in ((x1, y1), (x1, y2), (x2, y2), (x2, y1))], axis=1)


def feature_collection(
    geo: GeoReference,
    boxes_xyxy: NDArray[np.floating],
    scores: NDArray[np.floating],
    class_names: Sequence[str],
    outlines: Iterable[Sequence[NDArray[np.floating]]] | None = None,
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
    features = list(_features(geo, boxes_xyxy, scores, class_names, outlines))
    return {"type": "FeatureCollection", "crs": _crs(geo), "features": features}


def write_geojson(
    path: Path | str,
    geo: GeoReference,
    boxes_xyxy: NDArray[np.floating],
    scores: NDArray[np.floating],
    class_names: Sequence[str],
    outlines: Iterable[Sequence[NDArray[np.floating]]] | None = None,
) -> None:
    """Write ``feature_collection`` as a file, one feature after the other, completely or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write(f'{{"type": "FeatureCollection", "crs": {json.dumps(_crs(geo))}, "features": [')
        for number, feature in enumerate(_features(geo, boxes_xyxy, scores, class_names, outlines)):
            file.write((",\n" if number else "\n") + json.dumps(feature))
        file.write("\n]}\n")


def _crs(geo: GeoReference) -> dict[str, Any]:
    return {"type": "name", "properties": {"name": geo.crs}}


def _features(
    geo: GeoReference,
    boxes_xyxy: NDArray[np.floating],
    scores: NDArray[np.floating],
    class_names: Sequence[str],
    outlines: Iterable[Sequence[NDArray[np.floating]]] | None,
) -> Iterator[dict[str, Any]]:
    boxes = geo.to_ground(corners(boxes_xyxy))
    rounded = np.round(scores.astype(np.float64), 5).tolist()
    every = [()] * len(boxes) if outlines is None else outlines
    for box, score, name, parts in zip(boxes, rounded, class_names, every, strict=True):
        rings = [[_ring(geo.to_ground(one), geo.decimals)] for one in parts]
        geometry = (
            {"type": "MultiPolygon", "coordinates": rings}
            if rings
            else {"type": "Polygon", "coordinates": [_ring(box, geo.decimals)]}
        )
        yield {"type": "Feature", "properties": {"class": name, "score": score}, "geometry": geometry}


def _ring(points: NDArray[np.float64], decimals: int) -> list[list[float]]:
    """(K, 2) points as a closed ring, counter-clockwise."""
    x, y = (points - points[0]).T
    if (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() < 0:
        points = points[::-1]
    closed: list[list[float]] = np.round(np.concatenate([points, points[:1]]), decimals).tolist()
    return closed
