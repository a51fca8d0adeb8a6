"""Cover, eligibility and assignment against numbers recorded from the original code.

The original counts corners inclusively, truncates sizes to integers and lets border chips be a pixel larger; only that
is converted here. The kernels that choose, judge and assign are the package's own.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from windows import assign, enough_left

from recorded import Golden
from sniper.chips.cover import cover_many
from sniper.pyramid import Level
from sniper.validity import is_valid

BLOCKED = -(2**30)


class LegacyGrid(NamedTuple):
    """All pairs of the original's x and y intervals (inclusive), and which of them it would use."""

    columns: NDArray  # (nx, 2)
    rows: NDArray  # (ny, 2)
    legal: NDArray  # (ny, nx)


def legacy_grid(width: int, height: int, chip: int, stride: int) -> LegacyGrid:
    right, below = max(width - chip, 0), max(height - chip, 0)
    xs, ys = range(0, max(width - chip, 0), stride), range(0, max(height - chip, 0), stride)
    boxes = [
        (right, 0, width - 1, min(chip, height - 1)),
        (0, below, min(chip, width - 1), height - 1),
        (right, below, width - 1, height - 1),
        *((x, y, x + chip - 1, y + chip - 1) for x in xs for y in ys),
        *((max(width - chip - 1, 0), y, width - 1, y + chip - 1) for y in ys),
        *((x, max(height - chip - 1, 0), x + chip - 1, height - 1) for x in xs),
    ]
    columns = sorted({(x1, x2) for x1, _, x2, _ in boxes})
    rows = sorted({(y1, y2) for _, y1, _, y2 in boxes})
    legal = np.zeros((len(rows), len(columns)), bool)
    for x1, y1, x2, y2 in boxes:
        legal[rows.index((y1, y2)), columns.index((x1, x2))] = True
    return LegacyGrid(np.asarray(columns), np.asarray(rows), legal)


def legacy_cover(boxes: NDArray, grid: LegacyGrid, key: int) -> tuple[NDArray, NDArray]:
    """The chips that the real kernel chooses on the original's candidates, and which boxes they cover.

    The original clips boxes one pixel tighter than the picture.
    """
    last = grid.columns[-1, 1] - 1, grid.rows[-1, 1] - 1
    boxes = np.clip(boxes, 0, [*last, *last])
    spans = np.empty((2, len(boxes), 2), np.int32)
    for axis, lines in enumerate((grid.columns, grid.rows)):
        spans[axis, :, 0] = np.searchsorted(lines[:, 1], boxes[:, 2 + axis], side="left")
        spans[axis, :, 1] = np.searchsorted(lines[:, 0], boxes[:, axis], side="right") - 1
    counts = np.where(grid.legal, 0, BLOCKED).astype(np.int32)
    before = counts.copy()
    cells, order = np.empty((len(boxes), 2), np.int32), np.empty(len(boxes), np.int32)
    covered = np.empty(len(boxes), np.int32)
    chips = cover_many(spans, len(boxes), np.uint64(key), counts, cells, order, covered)
    left = np.zeros(len(boxes), bool)
    left[order[: covered[:chips].sum()]] = True
    reachable = np.asarray(
        [grid.legal[y1 : y2 + 1, x1 : x2 + 1].any() for (x1, x2), (y1, y2) in zip(*spans, strict=True)], bool
    )
    assert np.array_equal(left, reachable)
    assert (counts - before)[grid.legal].max(initial=0) == 0
    assert all(grid.legal[y, x] for x, y in cells[:chips])
    columns, rows = grid.columns[cells[:chips, 0]], grid.rows[cells[:chips, 1]]
    return np.stack([columns[:, 0], rows[:, 0], columns[:, 1], rows[:, 1]], axis=1), left


def standard_error(values: NDArray) -> float:
    """Of the mean of independent values."""
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def ragged(values: NDArray, counts: NDArray) -> list[NDArray]:
    return np.split(values, np.cumsum(counts)[:-1])


def test_the_recorded_scenes_are_covered_alike_with_as_few_chips(golden: Golden) -> None:
    data = golden.load("chips/chip_generation.npz")
    boxes, covered = (ragged(data[name], data[f"{name}/counts"]) for name in ("boxes", "covered"))
    apart = []
    for scene, (width, height, chip, stride) in enumerate(data["params"]):
        grid = legacy_grid(width, height, chip, stride)
        counts = []
        for key in range(5):
            chips, held = legacy_cover(boxes[scene], grid, key)
            assert np.array_equal(held, covered[scene] == 1), f"scene {scene}"
            counts.append(len(chips))
        recorded = data["n_chips_cpp"][scene]
        assert recorded.min() <= np.median(counts) <= recorded.max() + 1, f"scene {scene}"
        apart.append(np.mean(counts) - recorded.mean())
    assert abs(np.mean(apart)) <= 4 * standard_error(np.asarray(apart)), "chips of both are drawn by chance"


@pytest.mark.parametrize(
    ("size", "boxes", "count", "window"),
    [
        ((512, 384), [[10, 10, 200, 200]], 1, [0, 0, 511, 383]),
        ((512, 384), [[10, 10, 511, 383]], 1, [0, 0, 511, 383]),
        ((1920, 300), [[700, 10, 900, 200]], 1, None),
        ((1920, 1440), [[0, 0, 50, 50], [1800, 1300, 1918, 1438]], 2, None),
        ((1920, 1440), [], 0, None),
    ],
)
def test_the_check_values_of_the_original(
    size: tuple[int, int], boxes: list[list[int]], count: int, window: list[int] | None
) -> None:
    stride = 57 if size == (1920, 300) else 56
    chips, held = legacy_cover(np.asarray(boxes, np.float32).reshape(-1, 4), legacy_grid(*size, 512, stride), 1)
    assert len(chips) == count
    assert held.all()
    if window is not None:
        assert chips[0].tolist() == window
    if size == (1920, 300):
        assert (chips[0, 1], chips[0, 3]) == (0, 299)


class WorkerImage(NamedTuple):
    boxes: NDArray  # (N, 4) objects and proposals
    is_object: NDArray  # (N,)
    wh: NDArray
    calls: list[NDArray]  # 3 positive and 3 negative chip lists, scaled px
    calls_wh: NDArray  # (6, 2)
    run_counts: NDArray  # (10, 8)


def worker_images(data: dict[str, NDArray], form: str) -> Iterator[WorkerImage]:
    boxes = ragged(data["boxes"], data["boxes/counts"])
    overlaps = ragged(data["max_overlaps"], data["max_overlaps/counts"])
    calls = ragged(data[f"{form}/generator_calls"], data[f"{form}/generator_calls/counts"])
    for i, wh in enumerate(data["wh"]):
        six = slice(6 * i, 6 * i + 6)
        yield WorkerImage(
            boxes[i], overlaps[i] == 1, wh, calls[six], data[f"{form}/generator_calls_wh"][six],
            data[f"{form}/run_counts"][i],
        )  # fmt: skip


def levels(data: dict[str, NDArray], form: str) -> list[Level]:
    if form == "factor":
        fine, middle, long = data["factor/scales"].tolist()
        return [Level(scale=fine), Level(scale=middle), Level(long_px=int(long))]
    (a, b), (c, d), (_, e) = data["resolution/scales"].astype(int).tolist()
    return [Level(short_px=a, long_px=b), Level(short_px=c, long_px=d), Level(long_px=e)]


def legacy_valid(
    boxes: NDArray, level: int, scale: float, ranges: NDArray, chip: int, stride: int, *, low: bool
) -> NDArray:
    """Valid by the package's rule; sizes are truncated, "below a limit" becomes "at most the integer before it"."""
    sizes = (boxes[:, 2:] - boxes[:, :2]).astype(int)
    min_count, max_count = ranges[level]
    last = level == len(ranges) - 1
    limit = np.inf if last else np.ceil((chip - stride - 1) / scale) - 1
    bounds = (min_count, np.inf) if last else (min_count if low and level > 0 else 0.0, max_count)
    return np.asarray(
        [w > 0 and h > 0 and is_valid(w, h, *bounds, 0.0 if last else 2.0, limit, limit) for w, h in sizes.tolist()],
        bool,
    )


def legacy_assign(boxes: NDArray, windows: NDArray, level: int, ranges: NDArray, *, closed: bool) -> NDArray:
    """Index of the window that each box belongs to, or -1. Shares with inclusive corners, parts without."""
    one = np.asarray([0, 0, 1, 1])
    best = assign(boxes + one, windows + one)
    min_count, max_count = ranges[level]
    if level == len(ranges) - 1:
        bounds = (min_count, np.inf)
    else:
        bounds = (0.0, float(np.nextafter(max_count, np.inf)) if closed else max_count)
    return np.where(enough_left(best.part_wh - 1, min_part_px=1.0, range_px=bounds), best.window, -1)


@pytest.mark.parametrize("form", ["resolution", "factor"])
def test_eligibility_and_assignment_equal_the_recorded_run(golden: Golden, form: str) -> None:
    data = golden.load("chips/chip_worker.npz")
    ranges = data[f"{form}/valid_ranges"]
    chip, stride = data[f"{form}/chip_size_stride"].tolist()
    expected = {
        kind: ragged(data[f"{form}/{kind}"], data[f"{form}/{kind}/counts"])
        for kind in ("chips", "props_in_chips", "neg_chips", "neg_props_in_chips")
    }
    first = {"": 0, "neg_": 0}
    scaled_images = [level.scales(data["wh"]) for level in levels(data, form)]
    for i, image in enumerate(worker_images(data, form)):
        chips: dict[str, list] = {"": [], "neg_": []}
        members: dict[str, list[NDArray]] = {"": [], "neg_": []}
        for level in range(3):
            scale = scaled_images[level][i]
            assert np.array_equal((image.wh * scale).astype(int), image.calls_wh[level])
            left = np.flatnonzero(legacy_valid(image.boxes, level, scale, ranges, chip, stride, low=False))
            for kind, call in (("", level), ("neg_", level + 3)):
                windows = image.calls[call] / scale
                best = legacy_assign(image.boxes[left], windows, level, ranges, closed=kind == "")
                for k, window in enumerate(windows):
                    rows = left[best == k]
                    if kind == "" or len(rows) > (25 if level == 0 else 10):
                        chips[kind].append([*window, level])
                        members[kind].append(rows)
                left = left[best < 0]
        for kind in ("", "neg_"):
            recorded = expected[f"{kind}chips"][i][:, [0, 1, 2, 3, 7]]
            np.testing.assert_allclose(np.asarray(chips[kind]).reshape(-1, 5), recorded, rtol=1e-6, atol=1e-4)
            names = f"{kind}props_in_chips"
            for rows in members[kind]:
                assert np.array_equal(rows, expected[names][first[kind]]), f"image {i}, {names}"
                first[kind] += 1
    assert first[""] == len(expected["props_in_chips"])
    assert first["neg_"] == len(expected["neg_props_in_chips"])


@pytest.mark.parametrize("form", ["resolution", "factor"])
def test_eligible_objects_get_as_many_chips_as_in_the_recorded_runs(golden: Golden, form: str) -> None:
    data = golden.load("chips/chip_worker.npz")
    ranges = data[f"{form}/valid_ranges"]
    chip, stride = data[f"{form}/chip_size_stride"].tolist()
    scaled_images = [level.scales(data["wh"]) for level in levels(data, form)]
    for i, image in enumerate(worker_images(data, form)):
        objects = image.boxes[image.is_object]
        for level in range(3):
            scale = scaled_images[level][i]
            eligible = objects[legacy_valid(objects, level, scale, ranges, chip, stride, low=True)]
            width, height = image.calls_wh[level].tolist()
            scaled = (eligible * scale).astype(np.float32)
            chips, held = legacy_cover(scaled, legacy_grid(width, height, chip, stride), i)
            counts = image.run_counts[:, level]
            assert held.all()
            assert counts.min() - 1 <= len(chips) <= counts.max() + 1, f"image {i}, level {level}"
            scaled = np.clip(scaled, 0, [width - 2, height - 2] * 2)
            inside = (image.calls[level][None, :, :2] <= scaled[:, None, :2]) & (
                image.calls[level][None, :, 2:] >= scaled[:, None, 2:]
            )
            assert inside.all(axis=2).any(axis=1).all(), f"image {i}: an eligible object outside the recorded chips"
            assert inside.all(axis=2).any(axis=0).all(), f"image {i}: a recorded chip without eligible objects"
