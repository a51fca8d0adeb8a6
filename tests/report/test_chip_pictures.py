"""Chips drawn on their image, level by level, and on a sheet."""

import numpy as np
import pytest
from report_cases import make_chips, make_table

from sniper.chips.negative import Proposals, proposals_shown
from sniper.chips.table import ChipKind
from sniper.report.chips import draw_chips, draw_levels, image_chips
from sniper.report.palette import NEGATIVE, WHITE, level_color

BOXES = [[10, 10, 30, 30], [100, 50, 160, 100], [40, 5, 60, 25], [150, 5, 190, 30]]


def has(picture: np.ndarray, color: tuple[int, int, int]) -> bool:
    return bool((picture == color).all(axis=2).any())


def test_windows_and_valid_objects_of_an_image() -> None:
    table = make_table(BOXES)
    chips = make_chips([(0, 0, 1.0, 0, 0, []), (1, 0, 2.0, 10, 20, [0, 2]), (1, 1, 0.5, 0, 0, [1])])
    own = image_chips(table, 1, chips)
    np.testing.assert_allclose(own.windows_xyxy, [[5, 10, 37, 42], [0, 0, 128, 128]])
    assert own.valid.tolist() == [[True, False, True, False], [False, True, False, False]]
    assert len(image_chips(table, 0, chips).level) == 1
    with pytest.raises(IndexError, match="image row 2"):
        image_chips(table, 2, chips)


def test_each_level_has_its_colour_and_ignored_objects_are_white(grey: np.ndarray) -> None:
    table = make_table(BOXES, crowd=(3,))
    chips = make_chips([(1, 0, 2.0, 0, 0, [0]), (1, 1, 0.5, 0, 0, [1])], [ChipKind.POSITIVE, ChipKind.NEGATIVE])
    for picture in (draw_chips(grey, table, 1, chips), draw_levels(grey, table, 1, chips)):
        assert has(picture, level_color(0))
        assert has(picture, level_color(1))
        assert has(picture, WHITE)


def test_what_no_chip_sees_is_darker(grey: np.ndarray) -> None:
    chips = make_chips([(1, 0, 1.0, 0, 0, [])])  # the top-left 64 x 64 px
    picture = draw_chips(grey, make_table([]), 1, chips, max_px=200)
    margin = (picture.shape[1] - 200) // 2
    assert (picture[margin + 30, margin + 30] == 128).all()
    assert (picture[margin + 100, margin + 150] < 70).all()


@pytest.mark.parametrize("boxes", [[], BOXES[:1]])
def test_images_without_chips_or_objects(grey: np.ndarray, boxes: list[list[float]]) -> None:
    table, none = make_table(boxes), make_chips([])
    assert draw_chips(grey, table, 1, none).dtype == np.uint8
    assert draw_levels(grey, table, 1, none).dtype == np.uint8


def test_one_pixel_image() -> None:
    table = make_table([[0, 0, 1, 1]], width=1, height=1)
    chips = make_chips([(1, 0, 3.0, 0, 0, [0])])
    assert draw_chips(np.zeros((1, 1, 3), np.uint8), table, 1, chips).shape[2] == 3


def test_picture_may_come_smaller_than_the_original() -> None:
    table = make_table([[0, 0, 3000, 2000]], width=4000, height=3000)
    chips = make_chips([(1, 0, 0.01, 0, 0, [0])])
    assert draw_chips(np.zeros((300, 400, 3), np.uint8), table, 1, chips).shape[2] == 3


def test_negative_chips_and_the_false_positives_in_them_have_their_own_colour(grey: np.ndarray) -> None:
    table = make_table(BOXES)
    rows = [(1, 0, 1.0, 0, 0, [0]), (1, 0, 1.0, 100, 40, [])]
    proposals = Proposals(
        np.asarray([0, 1, 3]),
        np.asarray([[0, 0, 9, 9], [110, 50, 130, 70], [5, 70, 15, 80]], np.float32),
        np.asarray([0.5, 0.9, 0.8], np.float32),
    )
    hard = make_chips(rows, [ChipKind.POSITIVE, ChipKind.NEGATIVE])
    for draw in (draw_chips, draw_levels):
        with_boxes, without = draw(grey, table, 1, hard, proposals=proposals), draw(grey, table, 1, hard)
        assert has(without, NEGATIVE)
        assert (with_boxes == NEGATIVE).all(axis=2).sum() > (without == NEGATIVE).all(axis=2).sum()
        assert not has(draw(grey, table, 1, make_chips(rows), proposals=proposals), NEGATIVE)
    held = proposals_shown(proposals, 1, np.asarray([100, 40, 164, 104]), np.asarray([10, np.inf]))
    assert held.tolist() == [True, False]
    assert not proposals_shown(proposals, 1, np.asarray([100, 40, 164, 104]), np.asarray([0, 20])).any()
