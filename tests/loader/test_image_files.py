"""The loader takes the files that inference takes, by windows where they are huge, and says the same of bad ones."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from loader_cases import chips_of, same, table_of
from PIL import Image

from facts import facts
from forked import Python
from sniper.data.table import AnnotationTable
from sniper.errors import DataError, StorageError
from sniper.loader import image_chips
from sniper.loader.config import AugmentConfig, LoaderConfig
from sniper.loader.stream import ChipLoader
from sniper.pipeline.sources import Skipped, table_images
from sniper.pixels.decode import read_image

rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

WIDTH, HEIGHT = 310, 230
SCENE = np.asarray(
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)).resize((WIDTH, HEIGHT))
)
TILED = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
LIVELY = AugmentConfig(horizontal_flip=0.5, vertical_flip=0.5, rotate90=0.5, brightness=0.2)


def tiff(path: Path, bands: np.ndarray, **profile: object) -> None:
    """(B, H, W) as a TIFF."""
    count, height, width = bands.shape
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=count, dtype=bands.dtype, **profile
    ) as file:
        file.write(bands)


RGB = np.ascontiguousarray(SCENE.transpose(2, 0, 1))
PALETTE = Image.fromarray(SCENE).quantize(40)
WRITERS = {
    "five.tif": lambda path: tiff(path, np.concatenate([RGB, RGB[:2]]), **TILED),
    "zstd.tif": lambda path: tiff(path, RGB, **TILED | {"compress": "zstd"}),
    "lerc.tif": lambda path: tiff(path, RGB, **TILED | {"compress": "lerc"}),
    "webp.tif": lambda path: tiff(path, RGB, **TILED | {"compress": "webp", "WEBP_LOSSLESS": True}),
    "16bit.tif": lambda path: tiff(path, RGB.astype(np.uint16) * 256 + 9, **TILED),
    "strips.tif": lambda path: tiff(path, RGB, blockysize=16, compress="lzw"),
    "tiled.tif": lambda path: tiff(path, RGB, **TILED),
    "palette.png": PALETTE.save,
    "photo.png": Image.fromarray(SCENE).save,
    "photo.jpg": Image.fromarray(SCENE).save,
    "inks.jpg": Image.fromarray(SCENE).convert("CMYK").save,
}
SHOWN = {"palette.png": np.asarray(PALETTE.convert("RGB"))}


def table_with(folder: Path, names: list[str], size_wh: tuple[int, int] = (WIDTH, HEIGHT)) -> AnnotationTable:
    """Images of these names, one box each."""
    table = table_of(folder, [size_wh] * len(names), [[(10.0, 20.0, 60.0, 90.0)]] * len(names))
    object.__setattr__(table, "file_names", tuple(names))
    return table


def chips_on(table: AnnotationTable, scales: tuple[float, ...] = (0.3, 1.0, 1.667), count: int = 9):
    """``count`` chips of 64 px on each image."""
    random = np.random.default_rng(1)
    placed = []
    for image in range(len(table)):
        for number in range(count):
            scale = scales[number % len(scales)]
            room = np.maximum(1, (table.sizes_wh[image] * scale).astype(int) - 40)
            placed.append((image, scale, (int(random.integers(room[0])), int(random.integers(room[1])))))
    return chips_of(table, placed)


def loader_of(table, chips, *, first_batch=0, **settings):
    config = LoaderConfig(**{"batch_size": 4, "workers": 0, "shuffle_chips": 8, **settings})
    return ChipLoader(table, chips, config, LIVELY, seed=3, epoch=1, first_batch=first_batch)


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of four chips."""
    monkeypatch.setattr(image_chips, "PART_BYTES", 4 * 3 * 64 * 64)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("scales", [(0.3, 1.0, 1.667), (0.2, 0.1)], ids=["whole", "reduced"])
def test_a_file_trains_as_a_png_of_the_same_pixels(tmp_path, name, scales):
    WRITERS[name](tmp_path / name)
    pixels = read_image(tmp_path / name) if name.endswith(".jpg") else SHOWN.get(name, SCENE)
    Image.fromarray(pixels).save(tmp_path / "same.png")
    table = table_with(tmp_path, [name])
    chips = chips_on(table, scales)
    expected = list(loader_of(table_with(tmp_path, ["same.png"]), chips))
    for batch, other in zip(loader_of(table, chips), expected, strict=True):
        if scales == (0.2, 0.1) and name.endswith(".jpg"):  # reduced while it is decoded: other rounding
            assert (batch.pixels.int() - other.pixels.int()).abs().float().mean() < 2
        else:
            assert same(batch, other)


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
@pytest.mark.usefixtures("small_parts")
def test_chips_read_by_windows_are_those_of_the_whole_image(tmp_path, workers):
    names = list(WRITERS)
    for name in names:
        WRITERS[name](tmp_path / name)
    table = table_with(tmp_path, names)
    chips = chips_on(table)
    whole = list(loader_of(table, chips))
    by_windows = loader_of(table, chips, whole_megapixels=0, workers=workers)
    assert all(same(a, b) for a, b in zip(by_windows, whole, strict=True))
    assert by_windows.decodes == len(names)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.usefixtures("small_parts")
def test_an_epoch_resumes_in_the_middle_of_a_scene(tmp_path, workers):
    for name in ("tiled.tif", "strips.tif"):
        WRITERS[name](tmp_path / name)
    table = table_with(tmp_path, ["tiled.tif", "strips.tif"])
    chips = chips_on(table, count=30)
    whole = list(loader_of(table, chips))
    for first in range(0, len(whole), 4):
        tail = loader_of(table, chips, first_batch=first, whole_megapixels=0, workers=workers)
        assert all(same(a, b) for a, b in zip(tail, whole[first:], strict=True))


@pytest.fixture
def damaged(tmp_path):
    """A scene in good order, and one whose tiles are damaged in the middle."""
    for name in ("tiled.tif", "good.tif"):
        tiff(tmp_path / name, RGB, **TILED)
    content = bytearray((tmp_path / "tiled.tif").read_bytes())
    with rasterio.open(tmp_path / "tiled.tif") as file:
        assert file.block_shapes[0] == (64, 64)
    middle = len(content) // 2
    content[middle : middle + 4000] = b"\xff" * 4000
    (tmp_path / "tiled.tif").write_bytes(content)
    table = table_with(tmp_path, ["tiled.tif", "good.tif"])
    return table, chips_on(table, (0.4, 1.0, 1.667), count=40)


@pytest.mark.usefixtures("small_parts")
def test_a_scene_that_fails_in_the_middle(damaged, caplog):
    """Only the chips that show what cannot be read are replaced, the same ones by any number of workers."""
    table, chips = damaged
    with pytest.raises(DataError, match=facts("tiled.tif", "image id 1", "damaged") + r".*rows \d+ to \d+"):
        list(loader_of(table, chips, whole_megapixels=0))
    options = {"whole_megapixels": 0, "on_bad_image": "skip", "batch_size": 2}
    caplog.clear()
    loader = loader_of(table, chips, **options)
    batches = list(loader)
    assert [Path(file).name for file, _ in loader.skipped] == ["tiled.tif"]
    assert len(caplog.records) == 1
    assert len(batches) == loader.num_batches == 40
    used = np.unique([int(chip) for batch in batches for chip in batch.chip_index])
    counts = np.bincount(chips.image_index[used])
    assert counts[1] == 40
    assert 0 < counts[0] < 40
    for workers in (1, 2):
        again = loader_of(table, chips, workers=workers, **options)
        assert all(same(a, b) for a, b in zip(again, batches, strict=True))
        assert again.skipped == loader.skipped
    for first in range(1, len(batches), 3):
        tail = loader_of(table, chips, first_batch=first, **options)
        assert all(same(a, b) for a, b in zip(tail, batches[first:], strict=True))


def bad_files(folder: Path) -> dict[str, tuple[int, int]]:
    """Files of every kind of trouble, with the size that the annotations give."""
    size = WIDTH, HEIGHT
    for name in ("photo.jpg", "photo.png", "tiled.tif", "five.tif"):
        WRITERS[name](folder / name)
        content = (folder / name).read_bytes()
        (folder / f"cut-{name}").write_bytes(content[: len(content) // 2])
    (folder / "empty.png").touch()
    (folder / "text.tif").write_text("no image at all")
    tiff(folder / "float.tif", RGB.astype(np.float32), **TILED)
    cut = dict.fromkeys(["cut-photo.jpg", "cut-photo.png", "cut-tiled.tif", "cut-five.tif"], size)
    return cut | {"empty.png": size, "text.tif": size, "float.tif": size, "gone.jpg": size, "five.tif": (7, 5)}


def _read_for_inference(table: AnnotationTable, megapixels: float) -> None:
    for image in table_images(table, Skipped(), whole_megapixels=megapixels):
        if not isinstance(image.pixels, np.ndarray):
            image.pixels.read(0, 0, 1, 1)
            image.pixels.read(0, 0, *image.size_wh)


@pytest.mark.parametrize("megapixels", [0, 64])
def test_training_says_of_a_bad_file_what_inference_says(tmp_path, megapixels):
    for name, size_wh in bad_files(tmp_path).items():
        table = table_with(tmp_path, [name], size_wh)
        with pytest.raises(DataError) as in_training:
            list(loader_of(table, chips_of(table, [(0, 0.2, (0, 0))]), whole_megapixels=megapixels))
        with pytest.raises(DataError) as in_inference:
            _read_for_inference(table, megapixels)
        assert str(in_training.value) == str(in_inference.value)
        assert f"{name} (image id 1)" in str(in_training.value)
        assert "\n" not in str(in_training.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_no_room_to_decode_is_one_sentence(tmp_path, monkeypatch, workers):
    WRITERS["photo.png"](tmp_path / "photo.png")
    table = table_with(tmp_path, ["photo.png"])
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: Path("/dev/full").open("r+b"))  # noqa: SIM115
    with pytest.raises(StorageError) as error:
        list(loader_of(table, chips_on(table), whole_megapixels=0, workers=workers, on_bad_image="skip"))
    assert str(error.value).startswith("no room for the decoded pixels of")
    assert "\n" not in str(error.value)


def _open_files(process: int | str, folder: Path) -> list[str]:
    """Images of ``folder`` and temporary files of pixels that a process has open."""
    names = []
    for link in Path(f"/proc/{process}/fd").iterdir():
        try:
            names.append(str(link.readlink()))
        except OSError:
            continue
    return [name for name in names if str(folder) in name or "sniper-" in name]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("form", ["tiled.tif", "photo.png", "strips.tif", "photo.jpg"])
@pytest.mark.usefixtures("small_parts")
def test_files_are_closed(tmp_path, form):
    names = [f"{number}{Path(form).suffix}" for number in range(6)]
    for name in names:
        WRITERS[form](tmp_path / name)
    table = table_with(tmp_path, names)
    chips = chips_on(table)
    for _ in loader_of(table, chips, whole_megapixels=0):
        assert len(_open_files("self", tmp_path)) <= 2  # the image, and its pixels where it is decoded once
    assert _open_files("self", tmp_path) == []
    batches = iter(loader_of(table, chips, whole_megapixels=0))
    next(batches)
    batches.close()
    assert _open_files("self", tmp_path) == []

    before = set(_children())
    for number, _ in enumerate(loader_of(table, chips, whole_megapixels=0, workers=1)):
        workers = set(_children()) - before
        assert number > 3 or len(workers) == 1
        assert all(len(_open_files(worker, tmp_path)) <= 2 for worker in workers)


def _children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


MEASURED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import numpy as np
import torch
from loader_cases import chips_of, table_of
from sniper.loader.config import AugmentConfig, LoaderConfig
from sniper.loader.stream import ChipLoader

def peak_mb(process="self"):
    return int(Path(f"/proc/{process}/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024

torch.set_num_threads(1)
folder, side, workers = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
table = table_of(folder, [(side, side)], [[]], ".tif")
random = np.random.default_rng(0)
chips = chips_of(table, [(0, 1.0, tuple(random.integers(0, side - 256, 2).tolist())) for _ in range(1200)], side=256)
config = LoaderConfig(batch_size=16, workers=workers, shuffle_chips=16, whole_megapixels=4)
plain = AugmentConfig(horizontal_flip=0)
one = chips_of(table, [(0, 1.0, (0, 0))], side=256)
next(iter(ChipLoader(table, one, config, plain, seed=0, epoch=0)))
before, in_workers, seen = peak_mb(), 0, 0
for batch in ChipLoader(table, chips, config, plain, seed=0, epoch=0):
    seen += len(batch)
    for child in Path(f"/proc/self/task/{__import__('os').getpid()}/children").read_text().split():
        in_workers = max(in_workers, peak_mb(child))
print(seen, peak_mb() - before, in_workers - before)  # workers are forked, and begin with what is here
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="tells its peak of memory on Linux only")
@pytest.mark.parametrize("workers", [0, 1])
def test_memory_does_not_grow_with_the_chips_of_a_scene(python: Python, tmp_path, workers):
    side = 3000  # 27 MB of pixels, and 1,200 chips of together 236 MB
    with rasterio.open(
        tmp_path / "0.tif", "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8", tiled=True
    ) as file:
        noise = np.random.default_rng(0).integers(0, 255, (3, 256, 256), dtype=np.uint8)
        file.write(np.tile(noise, (1, 12, 12))[:, :side, :side])
    done = python.run("-c", MEASURED, Path(__file__).parent, tmp_path, side, workers)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    seen, grown_mb, worker_mb = map(int, done.stdout.split())
    assert seen == 1200
    assert grown_mb < 200
    assert worker_mb < 200
