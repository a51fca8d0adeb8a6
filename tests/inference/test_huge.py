"""Pictures that are not in memory: found as in one piece, with bounded memory, and told about."""

from pathlib import Path

import numpy as np
import pytest
from rectangles import COLOURS, RectangleFinder, draw, run

from sniper.errors import DataError, StorageError
from sniper.inference import batches, feature_cache
from sniper.inference.batches import groups_of
from sniper.inference.config import InferenceConfig, MergeConfig
from sniper.inference.feature_cache import FeatureCache
from sniper.inference.images import ImageDetections, ImageInput
from sniper.inference.merge import merge_images
from sniper.pyramid import Level, Pyramid

SIZE = 1300, 900
LEVELS = Pyramid(
    levels=(
        Level(scale=2.0, infer_range_px=(0, 30)),
        Level(scale=1.0, infer_range_px=(15, 60)),
        Level(long_px=128, infer_range_px=(40, None)),
    )
)


class Source:
    """A picture that is given away in pieces, and may break."""

    def __init__(self, pixels: np.ndarray, broken: bool = False) -> None:
        self.pixels, self.broken, self.closed = pixels, broken, False
        self.size_wh = pixels.shape[1], pixels.shape[0]
        self.rows: list[int] = []

    def read(self, x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
        assert not self.closed
        if self.broken and y2 > 500:
            raise DataError("a.tif is damaged")
        self.rows.append(y1)
        return self.pixels[y1:y2, x1:x2].copy()

    def close(self) -> None:
        self.closed = True


def scene(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """One rectangle in each cell of 100 px."""
    random = np.random.default_rng(seed)
    cells = np.stack(np.meshgrid(np.arange(size[0] // 100), np.arange(size[1] // 100)), -1).reshape(-1, 2) * 100
    sides = random.integers(6, 80, cells.shape)
    corners = cells + random.integers(2, 15, cells.shape)
    return draw(size, np.concatenate([corners, corners + sides], 1), random.integers(0, len(COLOURS), len(cells)))


def detect(pictures: list, **config: object) -> list[ImageDetections]:
    settings = InferenceConfig.model_validate({"window_px": 256, "batch_pixels": 300_000} | config)
    keyed = [ImageInput(key, pixels) for key, pixels in enumerate(pictures)]
    return run(RectangleFinder(), keyed, LEVELS, settings)


@pytest.mark.parametrize("focus", [None, {"threshold": 0.3, "min_chip_px": 64}, {"threshold": 0, "pixel_budget": 0.4}])
def test_windows_find_what_the_picture_in_memory_gives(focus):
    """Huge and small pictures in one batch, with AutoFocus and without."""
    pictures = [scene(0), scene(1, (300, 200)), scene(2, (200, 1100))]
    whole = detect(pictures, focus=focus)
    sources = [Source(pictures[0]), pictures[1], Source(pictures[2])]
    pieces = detect(sources, focus=focus)
    assert len(whole[0].scores) > (90 if focus is None else 20)
    for ours, theirs in zip(pieces, whole, strict=True):
        for column in ("boxes_xyxy", "scores", "labels", "levels"):
            np.testing.assert_array_equal(getattr(ours, column), getattr(theirs, column))
        assert ours.pixels_processed == theirs.pixels_processed
    assert sources[0].closed
    assert sources[2].closed


def test_windows_come_row_by_row():
    """Strips and lines of a file are decoded once for all the windows beside each other."""
    source = Source(scene(0))
    run(
        RectangleFinder(),
        [ImageInput(0, source)],
        Pyramid(levels=LEVELS.levels[1:2]),
        InferenceConfig(window_px=256),
    )
    assert source.rows == sorted(source.rows)
    assert len(set(source.rows)) < len(source.rows)


def test_a_picture_that_breaks_is_told_and_left_out():
    pictures = [scene(0), Source(scene(1), broken=True), scene(2)]
    with pytest.raises(DataError, match=r"a.tif"):
        detect(pictures)
    told: list[tuple[int, str]] = []
    keyed = [ImageInput(key, pixels) for key, pixels in enumerate([scene(0), Source(scene(1), broken=True), scene(2)])]
    found = run(
        RectangleFinder(),
        keyed,
        LEVELS,
        InferenceConfig(window_px=256),
        on_error=lambda key, error: told.append((key, str(error))),
    )
    assert [one.key for one in found] == [0, 2]
    assert told == [(1, "a.tif is damaged")]
    (alone,) = detect([scene(2)])
    np.testing.assert_array_equal(found[1].boxes_xyxy, alone.boxes_xyxy)


@pytest.mark.parametrize("focus", [None, {"threshold": 0.3, "min_chip_px": 64}])
def test_windows_done_and_planned_are_told(focus):
    told: list[tuple[int, int]] = []
    config = InferenceConfig.model_validate({"window_px": 256, "batch_pixels": 300_000, "focus": focus})
    run(
        RectangleFinder(),
        [ImageInput(0, scene(0))],
        LEVELS,
        config,
        on_progress=lambda done, all: told.append((done, all)),
    )
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1] > 20
    assert all(done <= planned for done, planned in told)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_groups_are_smaller_where_pictures_are_large(monkeypatch):
    monkeypatch.setattr(batches, "IN_MEMORY_PX", 1000)
    sizes = [(10, 10), (40, 40), (20, 20), (20, 30), (5, 5), (5, 5), (5, 5)]
    pictures = [ImageInput(k, np.zeros((h, w, 3), np.uint8)) for k, (w, h) in enumerate(sizes)]
    assert [[one.key for one in group] for group in groups_of(pictures, 2)] == [[0, 1], [2, 3], [4, 5], [6]]
    assert [[one.key for one in group] for group in groups_of(pictures, 8)] == [[0, 1], [2, 3], [4, 5, 6]]
    huge = [ImageInput(k, Source(np.zeros((100, 100, 3), np.uint8))) for k in range(3)]
    assert [len(group) for group in groups_of(huge, 8)] == [3]


def test_larger_images_keep_more():
    config = MergeConfig(max_per_image=10, full_megapixels=4)
    sizes = np.asarray([[640, 480], [2000, 2000], [20_000, 20_000], [3000, 2000]])
    caps = config.caps(sizes)
    assert caps is not None
    assert caps.tolist() == [10, 10, 1000, 15]
    assert MergeConfig(max_per_image=10, full_megapixels=None).caps(sizes).tolist() == [10] * 4  # type: ignore[union-attr]
    assert MergeConfig(max_per_image=None).caps(sizes) is None
    count = 30
    boxes = np.arange(2 * count)[:, None] * 100.0 + np.asarray([0, 0, 5, 5])
    scores, zeros = np.linspace(0.9, 0.5, 2 * count), np.zeros(2 * count, int)
    merged = merge_images(
        np.asarray([0, count, 2 * count]), boxes, scores, zeros, zeros, [[0, np.inf]], config,
        sizes_wh=np.asarray([[640, 480], [3000, 2000]]),
    )  # fmt: skip
    assert merged.keep.tolist() == [*range(10), *range(count, count + 15)]


def test_maps_beyond_the_memory_wait_on_disk(monkeypatch):
    monkeypatch.setattr(feature_cache, "MEMORY_BYTES", 100)
    kept, maps = (
        FeatureCache(),
        [np.random.default_rng(k).normal(size=(2, 3, 4 + k)).astype(np.float32) for k in range(6)],
    )
    numbers = [kept.put(one) for one in maps]
    for number in (5, 0, 3, 5, 1, 2, 4):
        np.testing.assert_array_equal(kept.take(numbers[number]), maps[number].astype(np.float16))
    kept._file = Path("/dev/full").open("r+b", buffering=0)  # noqa: SIM115
    with pytest.raises(StorageError, match="set TMPDIR"):
        kept.put(maps[5])
