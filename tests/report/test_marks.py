"""Lines land on the outermost pixels inside the box, in any picture, whatever the boxes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.report.marks import draw_boxes, plated, write
from sniper.report.palette import BLUE, class_color, level_color

STYLES = ("solid", "dashed", "hatched")


def changed(picture: np.ndarray) -> np.ndarray:
    return (picture != 0).any(axis=2)


def test_solid_lines_lie_inside_the_half_open_box() -> None:
    picture = np.zeros((20, 30, 3), dtype=np.uint8)
    draw_boxes(picture, np.asarray([[5, 4, 15, 12]]), BLUE, thickness=2, halo=False)
    wanted = np.zeros((20, 30), dtype=bool)
    wanted[4:12, 5:15] = True
    wanted[6:10, 7:13] = False
    np.testing.assert_array_equal(changed(picture), wanted)


def test_dashes_are_part_of_the_solid_line_and_reach_the_corners() -> None:
    solid, dashed = np.zeros((80, 90, 3), dtype=np.uint8), np.zeros((80, 90, 3), dtype=np.uint8)
    box = np.asarray([[5, 4, 85, 72]])
    draw_boxes(solid, box, BLUE, thickness=1, halo=False)
    draw_boxes(dashed, box, BLUE, thickness=1, halo=False, style="dashed")
    assert changed(solid)[changed(dashed)].all()
    assert 0.4 < changed(dashed).sum() / changed(solid).sum() < 0.7
    assert changed(dashed)[[4, 4, 71, 71], [5, 84, 5, 84]].all()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("halo", [False, True])
def test_no_boxes_and_boxes_out_of_sight_change_nothing(style: str, halo: bool) -> None:
    picture = np.full((10, 10, 3), 9, dtype=np.uint8)
    nan, far = [np.nan, 0, 5, 5], [20, 20, 30, 30]
    for boxes in (np.zeros((0, 4)), np.asarray([nan, far, [-9, -9, 0, 0], [0, 0, np.inf, 3]])):
        draw_boxes(picture, boxes, BLUE, style=style, halo=halo)
    assert (picture == 9).all()


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    box=st.tuples(*[st.floats(-30, 70)] * 4),
    thickness=st.integers(1, 5),
    style=st.sampled_from(STYLES),
)
def test_nothing_is_drawn_outside_the_box(
    height: int, width: int, box: tuple[float, ...], thickness: int, style: str
) -> None:
    x1, x2 = sorted((box[0], box[2]))
    y1, y2 = sorted((box[1], box[3]))
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    draw_boxes(picture, np.asarray([[x1, y1, x2, y2]]), BLUE, thickness=thickness, style=style, halo=False)
    y, x = np.nonzero(changed(picture))
    # Sides lie on whole pixels, and smoothed strokes reach one further.
    (left, top), (right, bottom) = np.round([x1, y1]), np.round([x2, y2])
    assert ((x >= left - 1) & (x <= right + 1) & (y >= top - 1) & (y <= bottom + 1)).all()


def test_words_off_the_picture_are_cut_off() -> None:
    picture = np.zeros((12, 12, 3), dtype=np.uint8)
    write(picture, [plated(-5, -3, "Ünïcode и ещё", 10, BLUE), plated(100, 100, "away", 10, BLUE)])
    assert changed(picture).any()


def test_colours_differ() -> None:
    assert len({class_color(i) for i in range(80)}) == 80
    assert len({level_color(i) for i in range(12)}) == 12
