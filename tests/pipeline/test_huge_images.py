"""Huge images through the whole of ``predict``: as in one piece, in bounded memory, onto the ground."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image
from trained_run import Trained

from devices import DEVICE
from forked import Python
from sniper.errors import DataError
from sniper.pipeline.evaluate import evaluate
from sniper.pipeline.model import Model, load_model
from sniper.pipeline.predict import predict
from sniper.training.checkpoint import load_weights, save_weights
from sniper.training.weights_file import checkpoint_file

rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

SIZE = 1470, 1190
GROUND = rasterio.Affine(0.1, 0, 541_000, 0, -0.1, 4_977_000)


def _levels(model: Model, whole_megapixels: float) -> Model:
    """Two levels, windows of 512 px, and where windows begin to be read from the file."""
    inference = model.recipe.inference.model_copy(update={"whole_megapixels": whole_megapixels, "window_px": 512})
    levels = tuple(
        type(model.pyramid.levels[0]).model_validate(one)
        for one in ({"scale": 0.7, "infer_range_px": [0, 90]}, {"long_px": 300, "infer_range_px": [60, None]})
    )
    pyramid = model.recipe.pyramid.model_copy(update={"levels": levels})
    return replace(model, recipe=model.recipe.model_copy(update={"inference": inference, "pyramid": pyramid}))


@pytest.fixture(scope="module")
def model(trained: Trained) -> Model:
    return load_model(trained.run.folder, device=DEVICE)


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    random = np.random.default_rng(0)
    small = random.integers(0, 255, (170, 210, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(small).resize(SIZE, Image.Resampling.BICUBIC)).copy()
    for x, y in random.integers(0, 1150, (60, 2)).tolist():
        pixels[y : y + 30, x : x + 25] = (20, 220, 40)
    return pixels


@pytest.fixture(scope="module")
def files(scene: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("huge")
    profile = {"driver": "GTiff", "width": SIZE[0], "height": SIZE[1], "dtype": "uint8"}
    ground = {"crs": "EPSG:32612", "transform": GROUND}
    for name, bands, more in (
        ("tiled", 3, {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", **ground}),
        ("strips", 4, {"blockysize": 64, "compress": "lzw", "photometric": "RGB"}),
    ):
        with rasterio.open(folder / f"{name}.tif", "w", count=bands, **profile, **more) as file:
            file.write(scene.transpose(2, 0, 1)[[0, 1, 2, 0][:bands]])
    Image.fromarray(scene).save(folder / "photo.jpg", quality=90)
    Image.fromarray(scene).save(folder / "picture.png")
    Image.fromarray(scene[:150, :200]).save(folder / "small.png")
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize("focus", [None, (0.2, None), (0.0, 0.5)], ids=["everywhere", "threshold", "budget"])
def test_by_windows_as_in_one_piece(model: Model, files: dict[str, Path], tmp_path: Path, focus):
    paths = [files[name] for name in ("tiled.tif", "small.png", "strips.tif", "photo.jpg", "picture.png")]
    whole, pieces = (_levels(model, megapixels) for megapixels in (64, 0.1))
    if focus:
        whole, pieces = whole.focused(*focus), pieces.focused(*focus)
    expected = predict(whole, paths, min_score=0)
    windows: list[tuple[int, int]] = []
    found = predict(
        pieces,
        paths,
        min_score=0,
        output=tmp_path,
        on_window_progress=lambda done, planned: windows.append((done, planned)),
    )
    assert [item.path for item in found.items] == paths
    for ours, theirs in zip(found.items, expected.items, strict=True):
        assert len(ours.scores) > 0
        for column in ("boxes_xyxy", "scores", "labels"):
            np.testing.assert_array_equal(getattr(ours, column), getattr(theirs, column), err_msg=str(ours.path))
        assert ours.pixels_processed == theirs.pixels_processed
    assert windows[-1][0] == windows[-1][1] > 5


def test_onto_the_ground(model: Model, files: dict[str, Path], tmp_path: Path):
    found = predict(_levels(model, 0.1), [files["tiled.tif"], files["picture.png"]], output=tmp_path, min_score=0)
    item, other = found.items
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "picture.jpg",
        "predictions.json",
        "tiled.geojson",
        "tiled.jpg",
    ]
    document = json.loads((tmp_path / "tiled.geojson").read_text())
    assert document == item.geojson()
    assert document["crs"]["properties"]["name"].endswith("EPSG::32612")
    assert len(document["features"]) == len(item.scores) > 0
    with rasterio.open(files["tiled.tif"]) as file:
        for feature, (x1, y1, x2, y2), label in zip(
            document["features"], item.boxes_xyxy.astype(float), item.labels, strict=True
        ):
            (ring,) = feature["geometry"]["coordinates"]
            ground = np.asarray(ring)
            np.testing.assert_allclose(
                [*file.xy(y1, x1, offset="ul"), *file.xy(y2, x2, offset="ul")],
                [ground[:, 0].min(), ground[:, 1].max(), ground[:, 0].max(), ground[:, 1].min()],
                atol=2e-3,
            )
            assert feature["properties"]["class"] == model.class_names[label]
    assert other.geo is None
    with pytest.raises(DataError, match=r"picture.png does not say where it lies"):
        other.geojson()


def test_a_dataset_is_measured_by_windows_too(model: Model, trained: Trained):
    inference = model.recipe.inference.model_copy(update={"whole_megapixels": 0.0})
    by_windows = replace(model, recipe=model.recipe.model_copy(update={"inference": inference}))
    ours, theirs = (evaluate(one, trained.val_json).detections for one in (by_windows, model))
    np.testing.assert_array_equal(ours.boxes_xyxy, theirs.boxes_xyxy)
    np.testing.assert_array_equal(ours.scores, theirs.scores)


def test_small_images_lie_on_the_ground_too(model: Model, tmp_path: Path):
    path = tmp_path / "small.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=90, height=70, count=3, dtype="uint8", crs="EPSG:4326", transform=GROUND
    ) as file:
        file.write(np.full((3, 70, 90), 120, np.uint8))
    found = predict(model, path, min_score=0, output=tmp_path / "out", draw=False)
    assert found.items[0].geo is not None
    assert "CRS84" in (tmp_path / "out" / "small.geojson").read_text()


def test_drawings_of_what_is_read_by_windows_are_small(
    model: Model, files: dict[str, Path], tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(sys.modules["sniper.pipeline.predict_shard"], "DRAWN_PX", 420)
    predict(_levels(model, 0.1), files["tiled.tif"], output=tmp_path, min_score=0, draw_min_score=0)
    assert cv2.imread(str(tmp_path / "tiled.jpg")).shape == (340, 420, 3)


def test_a_file_that_breaks_off_is_skipped_or_stops(model: Model, files: dict[str, Path], tmp_path: Path):
    broken = tmp_path / "broken.tif"
    content = files["tiled.tif"].read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    paths = [files["small.png"], broken, files["tiled.tif"]]
    with pytest.raises(DataError, match=r"broken.tif is damaged or cut off"):
        predict(_levels(model, 0.1), paths, min_score=0)
    found = predict(_levels(model, 0.1), paths, min_score=0, on_bad_image="skip", output=tmp_path / "out")
    assert [item.path for item in found.items] == [paths[0], paths[2]]
    assert [name for name, _ in found.skipped] == [str(broken)]
    assert not (tmp_path / "out" / "broken.jpg").exists()


@pytest.fixture(scope="module")
def checkpoint(model: Model, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same detector, with one coarse level, that reads files of over a megapixel by windows."""
    weights, meta = load_weights(checkpoint_file(trained.run.folder))
    recipe = _levels(model, 1.0).recipe
    far = tuple(level.model_copy(update={"scale": 0.045}) for level in recipe.pyramid.levels[:1])
    recipe = recipe.model_copy(update={"pyramid": recipe.pyramid.model_copy(update={"levels": far})})
    path = tmp_path_factory.mktemp("far") / "far.safetensors"
    save_weights(path, weights, meta.model_copy(update={"recipe": recipe.model_dump(mode="json")}))
    return path


MEASURED = """
import sys
import sniper
model = sniper.load_model(sys.argv[1], device="cpu")
for path in sys.argv[2:]:
    sniper.predict(model, path, min_score=0)
    # Not ru_maxrss, which begins with that of the process that started this one.
    print(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="tells its peak of memory on Linux only")
def test_memory_does_not_grow_with_the_image(python: Python, checkpoint: Path, files: dict[str, Path], tmp_path: Path):
    side = 11_000  # 363 MB of pixels
    path = tmp_path / "large.tif"
    profile = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "sparse_ok": True}
    with rasterio.open(path, "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8", **profile) as file:
        noise = np.random.default_rng(0).integers(0, 255, (3, 512, 512), dtype=np.uint8)
        for at in range(0, side - 512, 2048):
            file.write(noise, window=rasterio.windows.Window(at, at, 512, 512))
    environment = os.environ | {"GDAL_CACHEMAX": "32"}
    done = python.run("-c", MEASURED, checkpoint, files["tiled.tif"], path, env=environment)
    assert done.returncode == 0, done.stderr
    small, large = (int(line) / 1000 for line in done.stdout.split())  # MB
    assert small > 100
    assert large - small < 300, (small, large)


def test_the_command_says_what_is_wrong_in_one_sentence(sniper, checkpoint, files, tmp_path):
    broken = tmp_path / "broken.tif"
    broken.write_bytes(files["tiled.tif"].read_bytes()[:90_000])
    code, (line,), _ = sniper("predict", checkpoint, broken, "-o", tmp_path / "out")
    assert code == 2
    assert line.startswith(f"error: {broken} is damaged or cut off")
    assert not (tmp_path / "out").exists()


def test_the_command_without_rasterio(sniper, checkpoint, files, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    extra = 'pip install "sniper-detection[geotiff]"'
    path = files["tiled.tif"]
    code, (whole, ground), _ = sniper("predict", checkpoint, path, "-o", tmp_path / "out")
    assert code == 0
    assert f"{path} has 2 megapixels and is decoded whole" in whole
    assert whole.endswith(extra)
    assert f"{path} lies on the ground" in ground
    assert ground.endswith(extra)
    assert not (tmp_path / "out" / "tiled.geojson").exists()
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1000))
    code, (line,), _ = sniper("predict", checkpoint, path, "-o", tmp_path / "none")
    assert code == 2
    assert line.startswith(f"error: {path} has 2 megapixels")
    assert line.endswith(extra)
