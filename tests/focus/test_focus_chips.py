"""Focus chips: invariants, values worked out by hand, and the recorded numbers of the original code."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recorded import Golden
from sniper.focus.cells import focus_chips


def _map(rows: int, columns: int, *cells: tuple[int, int]) -> NDArray[np.float32]:
    probability = np.zeros((rows, columns), np.float32)
    for row, column in cells:
        probability[row, column] = 0.9
    return probability


@pytest.mark.parametrize(
    ("probability", "valid_wh", "scale", "min_cells", "expected"),
    [
        (_map(32, 32, (20, 30)), (512, 512), 1.0, 16, [[256, 192, 512, 448]]),
        (_map(32, 32, (10, 10), (10, 15)), (512, 512), 1.0, 8, [[96, 96, 304, 224]]),
        (_map(32, 32, (2, 2), (28, 28)), (512, 512), 1.0, 8, [[0, 0, 128, 128], [384, 384, 512, 512]]),
        (_map(24, 32, (20, 30)), (512, 384), 0.8, 16, [[320, 160, 640, 480]]),
        (_map(10, 10, (3, 3)), (150, 150), 0.8, 16, [[0, 0, 187.5, 187.5]]),
    ],
)
def test_values_worked_out_by_hand(
    probability: NDArray[np.float32],
    valid_wh: tuple[int, int],
    scale: float,
    min_cells: int,
    expected: list[list[float]],
) -> None:
    found = focus_chips(probability, valid_wh, threshold=0.5, min_cells=min_cells)
    np.testing.assert_allclose(_sorted(found.boxes_xyxy / scale), expected)


def test_rectangles_merge_until_nothing_changes() -> None:
    """Two grow into each other, and what encloses both then reaches a third: three rounds."""
    cells = (4, 4), (4, 13), (13, 8)
    found = focus_chips(_map(40, 40, *cells), (640, 640), threshold=0.5, dilation=1, min_cells=10)
    np.testing.assert_array_equal(found.boxes_xyxy, [[0, 0, 18 * 16, 18 * 16]])


def test_a_ring_is_enclosed_with_what_it_encloses() -> None:
    probability = np.zeros((40, 40), np.float32)
    probability[5:30, 5:30] = 0.9
    probability[7:28, 7:28] = 0
    probability[15, 15] = 0.9
    found = focus_chips(probability, (640, 640), threshold=0.5, dilation=1, min_cells=1)
    np.testing.assert_array_equal(found.boxes_xyxy, [[80, 80, 480, 480]])


def test_padding_has_no_focus() -> None:
    probability = _map(32, 32, (25, 3), (3, 25))
    assert len(focus_chips(probability, (384, 384), threshold=0.5, min_cells=4).boxes_xyxy) == 0
    assert len(focus_chips(probability, (400.0000001, 512), threshold=0.5, min_cells=4).boxes_xyxy) == 1


def test_chips_end_with_a_picture_that_is_wider_by_a_rounding_error() -> None:
    wide = 8 + 1e-8  # one cell of 8 px, not two
    found = focus_chips(np.full((1, 2), 0.9), (wide, 8), threshold=0.5, stride=8, min_cells=2)
    np.testing.assert_array_equal(found.boxes_xyxy, [[0, 0, wide, 8]])


def test_densest_chips_come_first() -> None:
    probability = _map(40, 40, (3, 3), (30, 30), (31, 31))
    found = focus_chips(probability, (640, 640), threshold=0.5, min_cells=8)
    np.testing.assert_allclose(found.density, [1.8 / 64, 0.9 / 64], rtol=1e-6)
    assert found.boxes_xyxy[0, 0] > found.boxes_xyxy[1, 0]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 3 x 4 cells of 16 px"):
        focus_chips(np.zeros((3, 3)), (50, 48), threshold=0.5)
    with pytest.raises(ValueError, match="odd number of cells"):
        focus_chips(np.zeros((3, 3)), (48, 48), threshold=0.5, dilation=2)


@st.composite
def _scenes(draw: st.DrawFn) -> tuple[NDArray[np.float32], tuple[float, float], int]:
    stride = draw(st.sampled_from([8, 16, 32]))
    rows, columns = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**20)))
    probability = random.random((rows, columns)).astype(np.float32) ** draw(st.sampled_from([1, 20, 80]))
    padding = draw(st.floats(0, 1)), draw(st.floats(0, 1))
    width, height = (max(side * stride * (1 - 0.5 * p), 1.0) for side, p in zip((columns, rows), padding, strict=True))
    return probability, (width, height), stride


@example(scene=(np.ones((1, 2), np.float32), (8 + 1e-8, 8.0), 8), threshold=0.0, dilation=1, min_cells=2)
@given(
    scene=_scenes(),
    threshold=st.sampled_from([0.0, 0.1, 0.5, 0.9]),
    dilation=st.sampled_from([1, 3, 5]),
    min_cells=st.integers(1, 20),
)
@settings(max_examples=300, deadline=None)
def test_chips_hold_every_cell_and_keep_to_the_rules(
    scene: tuple[NDArray[np.float32], tuple[float, float], int], threshold: float, dilation: int, min_cells: int
) -> None:
    probability, (width, height), stride = scene
    found = focus_chips(
        probability, (width, height), threshold=threshold, stride=stride, dilation=dilation, min_cells=min_cells
    )
    boxes = found.boxes_xyxy
    # inside the parent
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= [width, height]).all()
    # the least size, unless the parent is smaller
    sides = boxes[:, 2:] - boxes[:, :2]
    assert (sides >= np.minimum(min_cells * stride, [width, height]) - 1e-9).all()
    # every cell above the threshold, as far as it shows the picture, by more than a rounding error
    rows, columns = np.nonzero(probability >= threshold)
    cells = np.stack([columns, rows, columns + 1, rows + 1], axis=1) * float(stride)
    cells = cells[(cells[:, :2] < np.subtract([width, height], 1e-6 * stride)).all(axis=1)]
    cells = np.minimum(cells, [width, height, width, height])
    holds = (boxes[:, None, :2] <= cells[:, :2]).all(axis=2) & (boxes[:, None, 2:] >= cells[:, 2:]).all(axis=2)
    assert holds.any(axis=0).all()
    # no chip without such a cell
    assert (len(boxes) == 0) == (len(cells) == 0)
    # disjoint
    shared = np.minimum(boxes[:, None, 2:], boxes[:, 2:]) - np.maximum(boxes[:, None, :2], boxes[:, :2])
    overlap = (shared > 0).all(axis=2) & ~np.eye(len(boxes), dtype=bool)
    assert not overlap.any()
    # by falling density, which is a mean of probabilities
    assert (np.diff(found.density) <= 0).all()
    assert ((found.density >= 0) & (found.density <= 1)).all()
    if threshold == 0:
        np.testing.assert_array_equal(boxes, [[0, 0, width, height]])


def test_direct_calls_of_the_original(golden: Golden) -> None:
    cases = golden.cases("chips/focus_chips.npz", "g.*")
    assert cases
    for case in cases:
        recorded = golden.case("chips/focus_chips.npz", case)
        dilation, threshold, min_cells, width, height, scale = recorded["params"]
        found = focus_chips(
            recorded["map"], (width, height), threshold=threshold, dilation=int(dilation), min_cells=int(min_cells)
        )
        expected = recorded["chips"].reshape(-1, 4)
        np.testing.assert_allclose(_sorted(found.boxes_xyxy / scale), _sorted(expected), atol=1e-6, err_msg=case)


def test_images_of_the_original(golden: Golden) -> None:
    """Equal wherever no padding was marked; where it was, the original's chips are larger or more than ours."""
    steps = golden.load("chips/focus_chips.npz")["hyperparams"]
    alike = 0
    for case in golden.cases("chips/focus_chips.npz", "m.*"):
        recorded = golden.case("chips/focus_chips.npz", case)
        for step, (dilation, threshold, min_cells) in enumerate(steps):
            if f"s{step}_scale" not in recorded:
                continue
            ours, padded = _chips_of_step(recorded, step, int(dilation), threshold, int(min_cells))
            expected, name = recorded[f"s{step}_chips_out"].reshape(-1, 4), f"{case}, step {step}"
            if padded:
                assert _each_in_one(ours, expected), name
            else:
                np.testing.assert_allclose(_sorted(ours), _sorted(expected), atol=1e-6, err_msg=name)
                alike += len(expected)
    assert alike > 0, "nothing was compared"


def _chips_of_step(
    recorded: dict[str, NDArray], step: int, dilation: int, threshold: float, min_cells: int
) -> tuple[NDArray[np.float64], bool]:
    """Our chips of a recorded image, original px, and whether the original may have marked padding in a map of it."""
    scale, ours, padded = float(recorded[f"s{step}_scale"]), [np.zeros((0, 4))], False
    for index, crop in enumerate(recorded[f"s{step}_crops_in"]):
        width, height = (crop[2:] - crop[:2]) * scale
        probability = recorded[f"s{step}_map{index}"]
        found = focus_chips(
            probability, (width, height), threshold=threshold, dilation=dilation, min_cells=min_cells
        )  # fmt: skip
        ours.append(found.boxes_xyxy / scale + np.tile(crop[:2], 2))
        marked = np.stack(np.nonzero(probability >= threshold), axis=1) + dilation // 2
        shown = np.ceil([height / 16, width / 16]).astype(int)
        padded |= bool((marked >= shown).any() and (probability.shape > shown).any())
    return np.concatenate(ours), padded


def _each_in_one(boxes: NDArray[np.float64], larger: NDArray[np.float64]) -> bool:
    """Whether each box lies in one of the larger ones, up to rounding."""
    low, high = larger[:, None, :2] <= boxes[:, :2] + 1e-6, larger[:, None, 2:] >= boxes[:, 2:] - 1e-6
    return bool((low & high).all(axis=2).any(axis=0).all())


def _sorted(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return boxes[np.lexsort(np.round(boxes.T, 3))]
