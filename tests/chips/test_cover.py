"""The greedy choice: exact, random among equals, and the same rule in both kernels."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sniper.chips.cover import FEW, cover_few, cover_many


class Result(NamedTuple):
    cells: NDArray  # (K, 2)
    groups: list[NDArray]  # boxes of each window


def run(kernel: str, spans: NDArray, shape: tuple[int, int], key: int) -> Result:
    n = spans.shape[1]
    cells, order, covered = np.empty((n, 2), np.int32), np.empty(n, np.int32), np.empty(n, np.int32)
    if kernel == "few":
        events = np.zeros(max(shape) + 1, np.uint64)
        masks, starts = np.empty((2, 2 * FEW + 1), np.uint64), np.empty((2, 2 * FEW + 1), np.int64)
        k = cover_few(spans, n, np.uint64(key), events, masks, starts, cells, order, covered)
        assert not events.any()
    else:
        counts = np.zeros(shape, np.int32)
        k = cover_many(spans, n, np.uint64(key), counts, cells, order, covered)
        assert not counts.any()
    return Result(cells[:k], np.split(order, np.cumsum(covered[:k]))[:-1])


@st.composite
def grids(draw: st.DrawFn, max_count: int = FEW) -> tuple[NDArray, tuple[int, int]]:
    ny, nx = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    seed, n = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, max_count))
    ends = np.random.default_rng(seed).integers(0, [[[nx]], [[ny]]], size=(2, n, 2))
    return np.sort(ends, axis=2).astype(np.int32), (ny, nx)


@pytest.mark.parametrize("kernel", ["few", "many"])
@given(grid=grids(), key=st.integers(0, 2**63))
@settings(max_examples=150, deadline=None)
def test_every_step_takes_a_candidate_with_the_most_uncovered_boxes(
    kernel: str, grid: tuple[NDArray, tuple[int, int]], key: int
) -> None:
    spans, (ny, nx) = grid
    x, y = np.arange(nx), np.arange(ny)
    held = (
        (
            (spans[0, :, :1] <= x) & (x <= spans[0, :, 1:])  # (N, nx)
        )[:, None, :]
        & ((spans[1, :, :1] <= y) & (y <= spans[1, :, 1:]))[:, :, None]
    )
    left = np.ones(spans.shape[1], bool)
    result = run(kernel, spans, (ny, nx), key)
    for (column, row), group in zip(result.cells, result.groups, strict=True):
        counts = held[left].sum(axis=0)
        assert len(group) == counts.max() == counts[row, column]
        assert np.array_equal(group, np.flatnonzero(held[:, row, column] & left))
        left[group] = False
    assert not left.any()


@pytest.mark.parametrize("kernel", ["few", "many"])
def test_more_boxes_than_fit_in_a_word_or_exactly_as_many(kernel: str) -> None:
    n = FEW if kernel == "few" else 3 * FEW
    spans = np.tile(np.arange(n, dtype=np.int32)[:, None], (2, 1, 2))
    result = run(kernel, spans, (n, n), 5)
    assert sorted(result.cells.tolist()) == [[i, i] for i in range(n)]


@pytest.mark.parametrize("kernel", ["few", "many"])
def test_ties_are_broken_uniformly_over_all_candidates(kernel: str) -> None:
    # two boxes: 3 x 2 candidates hold both; then one box: 4 x 3 candidates hold it
    both = np.asarray([[[0, 4], [2, 6]], [[1, 2], [0, 3]]], np.int32)
    draws = 6000
    picked = np.zeros((4, 7), int)
    for key in range(draws):
        (column, row), = run(kernel, both, (4, 7), key).cells  # fmt: skip
        picked[row, column] += 1
    assert np.count_nonzero(picked) == 6
    assert np.abs(picked[1:3, 2:5] - draws / 6).max() < 5 * np.sqrt(draws / 6)


def test_boxes_apart_are_covered_in_random_order_by_the_kernel_for_many() -> None:
    apart = np.asarray([[[0, 1], [4, 6]], [[0, 0], [2, 3]]], np.int32)  # 2 candidates, and 6 elsewhere
    first = [run("many", apart, (4, 7), key).groups[0][0] for key in range(6000)]
    assert np.mean(first) == pytest.approx(6 / 8, abs=0.03)


@pytest.mark.parametrize("kernel", ["few", "many"])
def test_windows_of_boxes_apart_are_uniform_and_independent(kernel: str) -> None:
    apart = np.asarray([[[0, 1], [4, 5], [0, 1]], [[0, 0], [0, 0], [3, 3]]], np.int32)
    picked = np.zeros((2, 2, 2), int)
    for key in range(4000):
        cells = {(row, column // 4): column % 4 for column, row in run(kernel, apart, (4, 7), key).cells.tolist()}
        picked[cells[0, 0], cells[0, 1], cells[3, 0]] += 1
    assert np.abs(picked - 500).max() < 5 * np.sqrt(500)
