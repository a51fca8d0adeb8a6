"""Focus chips that cost little: invariants, and values worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sniper.focus.cover import LevelCost, covering_chips

CELL = 32.0


def _looking(rows: int, columns: int, **changes: float) -> LevelCost:
    width, height = int(columns * CELL), int(rows * CELL)
    level_cost = LevelCost(CELL, 0.0, (width, height), 64, 64, 1536, 300, width * height, 64 * 256)
    return level_cost._replace(**changes)


def _cells(rows: int, columns: int, *rects: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    cells = np.zeros((rows, columns), bool)
    for x1, y1, x2, y2 in rects:
        cells[y1:y2, x1:x2] = True
    return cells


def _chips(cells: NDArray[np.bool_], level_cost: LevelCost, **more: int) -> NDArray[np.float64]:
    return covering_chips(
        cells, cells.astype(np.float32), level_cost, **{"dilation": 1, "shared_cells": 4} | more
    ).boxes_xyxy


def _sorted(boxes: NDArray[np.float64]) -> list[list[float]]:
    return sorted(boxes.tolist())


def test_what_lies_apart_stays_apart_and_what_is_cheaper_together_becomes_one() -> None:
    level_cost = _looking(40, 40)
    far = _cells(40, 40, (2, 2, 6, 6), (20, 30, 24, 34))
    assert _sorted(_chips(far, level_cost)) == [[64, 64, 192, 192], [640, 960, 768, 1088]]
    near = _cells(40, 40, (2, 2, 6, 6), (7, 2, 10, 6))  # 8 x 4 cells together, 4 x 4 twice, padded inputs of 2 cells
    assert _sorted(_chips(near, level_cost)) == [[64, 64, 320, 192]]
    assert len(_chips(near, level_cost._replace(chip_pixels=0))) == 1


def test_bars_that_meet_are_cut_so_that_what_lies_in_their_corner_is_whole() -> None:
    corner = _cells(40, 40, (2, 2, 22, 6), (18, 2, 22, 30))
    chips = _sorted(_chips(corner, _looking(40, 40)))
    assert chips == [[64, 64, 576, 192], [448, 64, 704, 320], [576, 192, 704, 960]]


def test_a_cross_of_long_arms_is_cut() -> None:
    level_cost = _looking(60, 60, chip_pixels=0)
    cross = _cells(60, 60, (0, 28, 60, 32), (28, 0, 32, 60))
    chips = _chips(cross, level_cost)
    assert len(chips) > 2
    assert _area(chips) < 0.4 * level_cost.whole_pixels


def test_a_ring_is_cut_although_its_first_cut_does_not_save() -> None:
    ring = _cells(60, 60, (4, 4, 56, 56))
    ring[8:52, 8:52] = False
    chips = _chips(ring, _looking(60, 60))
    assert len(chips) >= 4
    assert _area(chips) < 0.6 * (52 * CELL) ** 2


def test_one_more_chip_costs_something() -> None:
    two = _cells(40, 40, (2, 2, 6, 6), (8, 2, 12, 6))
    assert len(_chips(two, _looking(40, 40, chip_pixels=0))) == 2
    assert len(_chips(two, _looking(40, 40, chip_pixels=64 * 1024))) == 1


def test_chips_grow_to_the_least_side_and_their_canvas_on_the_picture() -> None:
    one = _cells(10, 10, (9, 4, 10, 5))
    assert _chips(one, _looking(10, 10, min_px=128)).tolist() == [[192, 80, 320, 208]]
    assert _chips(one, _looking(10, 10, min_px=100, margin_px=20.0)).tolist() == [[192, 80, 320, 208]]
    assert _chips(one, _looking(10, 10, min_px=400)).tolist() == [[0, 0, 320, 320]]
    assert _chips(one, _looking(10, 10, size_wh=(301, 310))).tolist() == [[237, 112, 301, 176]]


def test_no_cells_no_chips_and_all_cells_the_whole_picture() -> None:
    level_cost = _looking(5, 7, size_wh=(215, 150))
    assert _chips(np.zeros((5, 7), bool), level_cost).shape == (0, 4)
    assert _chips(np.ones((5, 7), bool), level_cost).tolist() == [[0, 0, 215, 150]]
    assert _chips(np.ones((1, 1), bool), _looking(1, 1, size_wh=(1, 1), whole_pixels=64 * 64)).tolist() == [
        [0, 0, 1, 1]
    ]


def test_densest_chips_come_first() -> None:
    cells = _cells(40, 40, (2, 2, 4, 4), (30, 30, 32, 32))
    probability = np.where(cells, 0.5, 0).astype(np.float32)
    probability[30:32, 30:32] = 0.75
    found = covering_chips(cells, probability, _looking(40, 40), dilation=3)
    np.testing.assert_allclose(found.density, [0.75 * 4 / 16, 0.5 * 4 / 16])
    assert found.boxes_xyxy[0, 0] > found.boxes_xyxy[1, 0]


def test_an_even_dilation_is_refused() -> None:
    with pytest.raises(ValueError, match="odd number of cells"):
        _chips(_cells(3, 3, (1, 1, 2, 2)), _looking(3, 3), dilation=2)


@st.composite
def _scenes(draw: st.DrawFn) -> tuple[NDArray[np.bool_], NDArray[np.int64], LevelCost]:
    """Objects of up to four cells, all chosen, and a level that looks at them."""
    random = np.random.default_rng(draw(st.integers(0, 2**20)))
    rows, columns = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    corners = random.integers(0, [columns, rows], (draw(st.integers(0, 60)), 2))
    objects = np.concatenate([corners, np.minimum(corners + random.integers(1, 5, corners.shape), [columns, rows])], 1)
    cells = _cells(rows, columns, *objects.tolist())
    cell_px = draw(st.sampled_from([12.3, 16.0, 34.4, 64.7]))
    width, height = (int(np.ceil((n - draw(st.sampled_from([0.0, 0.3, 0.9]))) * cell_px)) for n in (columns, rows))
    whole = 128 * 128 * -(-width // 128) * -(-height // 128)
    level_cost = LevelCost(
        cell_px, draw(st.sampled_from([0.0, cell_px / 2])), (width, height), draw(st.integers(1, 300)), 64,
        draw(st.sampled_from([256, 1536])), 51, whole, draw(st.sampled_from([0, 64 * 256, 256 * 256])),
    )  # fmt: skip
    return cells, objects, level_cost


@given(scene=_scenes(), dilation=st.sampled_from([1, 3, 5]))
@settings(max_examples=300, deadline=None)
def test_chips_hold_every_cell_and_keep_to_the_rules(
    scene: tuple[NDArray[np.bool_], NDArray[np.int64], LevelCost], dilation: int
) -> None:
    cells, objects, level_cost = scene
    boxes = _chips(cells, level_cost, dilation=dilation)
    side = np.asarray(level_cost.size_wh)
    # whole pixels inside the parent, of the least size unless that is smaller
    assert (boxes == boxes.round()).all()
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= side).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= np.minimum(level_cost.min_px, side)).all()
    # every cell with those around it, and every object with the margin, whole in one chip
    columns, rows = np.nonzero(cells.T)
    found = np.stack([columns, rows, columns + 1, rows + 1], axis=1)
    for what, reach in ((found, dilation // 2 * level_cost.cell_px), (objects, 0.0)):
        away = np.repeat([-1, 1], 2) * (reach + level_cost.margin_px)
        wanted = np.clip(what * level_cost.cell_px + away, 0, np.tile(side, 2))
        holds = (boxes[:, None, :2] <= wanted[:, :2] + 1e-6) & (boxes[:, None, 2:] >= wanted[:, 2:] - 1e-6)
        assert holds.all(axis=2).any(axis=0).all()
    assert (len(boxes) == 0) == (not cells.any())
    np.testing.assert_array_equal(boxes, _chips(cells, level_cost, dilation=dilation))


def _area(boxes: NDArray[np.float64]) -> float:
    return float((boxes[:, 2:] - boxes[:, :2]).prod(axis=1).sum())
