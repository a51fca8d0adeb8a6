"""Training on files that only rasterio reads, whole and by windows: from the dataset to the run folder."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from devices import bit_for_bit
from rectangle_set import TINY, make_set
from sniper.data.source import load_dataset
from sniper.pipeline.train import train
from sniper.pixels.decode import read_image

rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def as_five_bands(path: Path) -> str:
    """Rewrite an image as a tiled TIFF of five bands; its new name."""
    pixels = read_image(path).transpose(2, 0, 1)
    count, (height, width) = 5, pixels.shape[1:]
    profile = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "zstd"}
    with rasterio.open(
        path.with_suffix(".tif"), "w", driver="GTiff", width=width, height=height, count=count, dtype="uint8", **profile
    ) as file:
        file.write(np.concatenate([pixels, pixels[:2]]))
    path.unlink()
    return path.with_suffix(".tif").name


def losses_of(folder: Path) -> list[str]:
    rows = csv.DictReader((folder / "metrics.csv").open())
    return [row["loss"] for row in rows if row["loss"]]


@bit_for_bit
def test_five_bands_train_as_three_whole_and_by_windows(tmp_path: Path) -> None:
    plain = make_set(tmp_path / "plain")
    bands = make_set(tmp_path / "bands")
    document = json.loads(bands.read_text())
    for image in document["images"]:
        image["file_name"] = as_five_bands(bands.parent / "images" / image["file_name"])
    bands.write_text(json.dumps(document))
    runs = {}
    for name, data, megapixels in (("plain", plain, 64), ("whole", bands, 64), ("windows", bands, 0)):
        overrides = [*TINY, "train.steps=2", f"data.train={data}", f"loader.whole_megapixels={megapixels}"]
        runs[name] = train("mobilenetv2", overrides=overrides, root=tmp_path / name)
    expected = losses_of(runs["plain"].folder)
    assert len(expected) == 2
    for name in ("whole", "windows"):
        assert losses_of(runs[name].folder) == expected
        previews = sorted((runs[name].folder / "previews").iterdir())
        assert len(previews) == 8
        assert all(cv2.imread(str(path)) is not None for path in previews)


@pytest.mark.parametrize("form", ["yolo", "voc"])
def test_readers_take_the_size_of_what_only_rasterio_opens(tmp_path: Path, form: str) -> None:
    data = make_set(tmp_path / "set", form)  # type: ignore[arg-type]
    expected = load_dataset(data)
    for path in sorted((tmp_path / "set").rglob("*.png")):
        as_five_bands(path)
    for path in (tmp_path / "set").rglob("*.xml"):  # no size, as some tools write it
        text = path.read_text().replace(".png", ".tif")
        start, end = text.find("<size>"), text.find("</size>")
        path.write_text(text if start < 0 else text[:start] + text[end + len("</size>") :])
    table = load_dataset(data)
    np.testing.assert_array_equal(table.sizes_wh, expected.sizes_wh)
    np.testing.assert_array_equal(table.boxes_xyxy, expected.boxes_xyxy)
