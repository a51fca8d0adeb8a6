"""Blurred detections: nothing of what was inside is left, and nothing else is touched."""

import numpy as np
import pytest

from sniper.report.blur import CELLS, GROWTH, SOLID, blur_detections

NOISE = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)


def blurred(boxes: list[list[float]], scores: list[float] | None = None, **settings: object) -> np.ndarray:
    scores = [0.9] * len(boxes) if scores is None else scores
    labels = np.zeros(len(boxes), int)
    return blur_detections(NOISE, np.array(boxes, float), np.array(scores), labels, **settings)  # type: ignore[arg-type]


def radius(box: list[float]) -> np.ndarray:
    """(H, W) distance from the middle of a box, 1 where the ellipse ends."""
    y, x = np.mgrid[: NOISE.shape[0], : NOISE.shape[1]] + 0.5
    half = np.array([box[2] - box[0], box[3] - box[1]]) / 2 * GROWTH
    return np.hypot((x - (box[0] + box[2]) / 2) / half[0], (y - (box[1] + box[3]) / 2) / half[1])


@pytest.mark.parametrize("box", [[60, 40, 100, 90], [50.5, 60.25, 58, 70], [-10, -20, 30, 40], [140, 100, 160, 120]])
def test_details_go_inside_and_stay_outside(box: list[float]) -> None:
    picture, away = blurred([box]), radius(box)
    np.testing.assert_array_equal(picture[away >= 1], NOISE[away >= 1])
    inside = away < SOLID
    assert inside[int(max(box[1], 0)) : int(box[3]), int(max(box[0], 0)) : int(box[2])].mean() > 0.9
    steps = np.abs(np.diff(picture.astype(int), axis=1))[inside[:, 1:] & inside[:, :-1]]
    assert steps.mean() < 0.12 * np.abs(np.diff(NOISE.astype(int), axis=1)).mean(), "neighbours are nearly alike"


def test_what_is_left_is_a_few_colours() -> None:
    """A change of detail that leaves the means of the cells alone leaves the blurred face alone."""
    box = [30, 20, 80, 70]  # 75 px with its margin: cells of 15 px
    other = NOISE.copy()
    side = int((box[2] - box[0]) * GROWTH) // CELLS
    x0, y0 = (int((box[k] + box[k + 2]) / 2 - side * CELLS / 2 + 0.5) for k in (0, 1))
    for row in range(1, CELLS - 1):
        for column in range(1, CELLS - 1):
            cell = other[y0 + row * side : y0 + (row + 1) * side, x0 + column * side : x0 + (column + 1) * side]
            cell[:] = cell[::-1, ::-1].copy()
    one = blurred([box])
    two = blur_detections(other, np.array([box], float), np.array([0.9]), np.array([0]))
    inside = radius(box) < SOLID
    assert np.abs(one.astype(int) - two)[inside].max() <= 30, "of a difference of up to 255"
    assert np.abs(NOISE.astype(int) - other)[inside].max() > 200


def test_scores_and_scale() -> None:
    boxes = [[20, 20, 40, 40], [100, 60, 120, 80]]
    picture = blurred(boxes, [0.4, 0.2])
    assert (picture[25:35, 25:35] != NOISE[25:35, 25:35]).any()
    np.testing.assert_array_equal(picture[60:80, 100:120], NOISE[60:80, 100:120])
    np.testing.assert_array_equal(blurred(boxes, [0.4, 0.2], min_score=[0.1]), blurred(boxes))
    halves = [[2 * side for side in box] for box in boxes]
    np.testing.assert_array_equal(blurred(halves, scale=0.5), blurred(boxes))
    np.testing.assert_array_equal(blurred([]), NOISE)
    assert blurred(boxes) is not NOISE
    small = blurred([[50, 50, 51, 51]])
    assert (small[49:52, 49:52] != NOISE[49:52, 49:52]).any(), "a face of one pixel"
