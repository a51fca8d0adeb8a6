"""Pixels on the ground."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sniper.pixels.georeference import GeoReference
from sniper.pixels.open import where_on_ground
from sniper.writers.geojson import feature_collection

rasterio = pytest.importorskip("rasterio")

SOUTH_UP = rasterio.Affine(0.5, 0, 400_000, 0, 0.5, 5_000_000)
NORTH_UP = rasterio.Affine(0.1, 0, 541_000, 0, -0.1, 4_977_000)
TURNED = rasterio.Affine(0.0866, 0.05, 541_000, 0.05, -0.0866, 4_977_000)
BOXES = np.asarray([[10, 20, 30.5, 60], [0, 0, 1, 1]], np.float32)


def _tiff(path: Path, transform: object, crs: object) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", width=80, height=70, count=1, dtype="uint8", transform=transform, crs=crs
    ) as file:
        file.write(np.zeros((1, 70, 80), np.uint8))
    return path


@pytest.mark.parametrize("transform", [SOUTH_UP, NORTH_UP, TURNED], ids=["south up", "north up", "turned"])
def test_corners_lie_where_rasterio_puts_them(tmp_path, transform):
    path = _tiff(tmp_path / "a.tif", transform, "EPSG:32612")
    geo = where_on_ground(path)
    assert geo is not None
    document = feature_collection(geo, BOXES, np.asarray([0.75, 0.5], np.float32), ["tree", "car"])
    assert document["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32612"
    assert [one["properties"] for one in document["features"]] == [
        {"class": "tree", "score": 0.75},
        {"class": "car", "score": 0.5},
    ]
    for box, feature in zip(BOXES.astype(float), document["features"], strict=True):
        (ring,) = feature["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
        assert len(ring) == 5
        expected = {tuple(np.round(transform * (x, y), 4)) for x in box[::2] for y in box[1::2]}
        found = {tuple(np.round(point, 4)) for point in ring}
        assert len(found) == 4
        for point in found:
            assert min(np.hypot(*(np.subtract(point, other))) for other in expected) < 0.002
        x, y = np.asarray(ring).T
        assert (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() > 0, "counter-clockwise"


def test_names_of_systems(tmp_path):
    degrees = where_on_ground(_tiff(tmp_path / "a.tif", rasterio.Affine(1e-5, 0, 7.5, 0, -1e-5, 51), "EPSG:4326"))
    assert degrees is not None
    assert degrees.crs == "urn:ogc:def:crs:OGC:1.3:CRS84"
    assert degrees.decimals == 7
    own = "+proj=tmerc +lat_0=10 +lon_0=20.5 +k=0.9 +x_0=1234 +y_0=0 +ellps=GRS80 +units=m"
    local = where_on_ground(_tiff(tmp_path / "b.tif", NORTH_UP, own))
    assert local is not None
    assert local.crs.startswith("PROJCS[")
    assert rasterio.crs.CRS.from_user_input(local.crs) == rasterio.crs.CRS.from_proj4(own)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_files_that_do_not_say_where_they_lie(tmp_path):
    assert where_on_ground(_tiff(tmp_path / "a.tif", rasterio.Affine.identity(), "EPSG:32612")) is None
    assert where_on_ground(_tiff(tmp_path / "b.tif", NORTH_UP, None)) is None
    assert where_on_ground(tmp_path / "photo.jpg") is None


@given(
    affine=st.tuples(*[st.floats(-100, 100)] * 6),
    points=st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1e5)), max_size=5),
)
def test_any_affine_map(affine, points):
    geo = GeoReference("urn:ogc:def:crs:EPSG::3857", affine)
    ground = geo.to_ground(np.asarray(points, np.float64).reshape(-1, 2))
    for (x, y), found in zip(points, ground, strict=True):
        np.testing.assert_allclose(found, rasterio.Affine(*affine) * (x, y), atol=1e-6)


def test_outlines_take_the_place_of_boxes():
    geo = GeoReference("urn:ogc:def:crs:EPSG::32612", (0.5, 0, 100, 0, -0.5, 200))
    ring = np.asarray([[0, 0], [4, 0], [4, 2.0]])
    found = feature_collection(geo, BOXES, np.ones(2), ["a", "b"], [[ring, ring + 10], []])
    first, second = (one["geometry"] for one in found["features"])
    assert first["type"] == "MultiPolygon"
    assert first["coordinates"][0] == [[[102, 199], [102, 200], [100, 200], [102, 199]]]
    assert first["coordinates"][1][0][0] == [107, 194]
    assert second["type"] == "Polygon"


def test_no_detections():
    empty = feature_collection(GeoReference("x", (1, 0, 0, 0, -1, 0)), np.zeros((0, 4)), np.zeros(0), [])
    assert empty["features"] == []
