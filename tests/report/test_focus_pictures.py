"""Where AutoFocus looked, drawn; and what accuracy costs, as a chart."""

import io

import numpy as np
import pytest
from PIL import Image

from facts import facts
from sniper.inference.trace import ImageTrace, LevelTrace
from sniper.report.focus import draw_focus, draw_focus_chips, draw_focus_map
from sniper.report.palette import level_color
from sniper.report.tradeoff import Spent, draw_tradeoff


def has(picture: np.ndarray, color: tuple[int, int, int]) -> bool:
    return bool((picture == color).all(axis=2).any())


def traces(size_wh: tuple[int, int], *, fine: bool = True, hot: bool = True) -> ImageTrace:
    """Two levels; the coarse one's map has one hot cell, and the fine one looks at the square around it."""
    width, height = size_wh
    cell = 32.0
    focus = np.zeros((-(-height // 32), -(-width // 32)), np.float32)
    focus[min(3, len(focus) - 1), min(3, focus.shape[1] - 1)] = 0.9 * hot
    whole = np.asarray([[0, 0, width, height]], float)
    square = np.asarray([[0, 0, min(64, width), min(64, height)]], float) if fine else np.zeros((0, 4))
    coarse = LevelTrace(1, 0.5, whole, 1000, 1000, focus, cell, 0.1)
    return ImageTrace(0, size_wh, (coarse, LevelTrace(0, 2.0, square, 500 if fine else 0, 9000, None, 8.0, 0.1)))


def test_chips_are_outlined_and_the_rest_is_darker() -> None:
    grey = np.full((480, 640, 3), 128, np.uint8)
    picture = draw_focus_chips(grey, traces((640, 480)), max_px=640)
    for level in (0, 1):
        assert has(picture, level_color(level))
    # A pixel in the middle of the chip is as it was, and nearly all of the rest is darker.
    assert has(picture, (128, 128, 128))
    assert (picture == 128).all(axis=2).sum() < 64 * 64
    without = draw_focus_chips(grey, traces((640, 480), fine=False), max_px=640)
    assert not has(without, (128, 128, 128))
    assert (grey == 128).all()


def test_heat_lies_where_focus_is_and_tells_the_threshold() -> None:
    grey = np.full((480, 640, 3), 128, np.uint8)
    warm, cold = (draw_focus_map(grey, traces((640, 480), hot=hot), 1, max_px=640) for hot in (True, False))
    assert warm.shape == cold.shape
    changed = np.argwhere((warm != cold).any(axis=2))
    picture = changed[changed[:, 0] > 80]  # the heading tells how many cells there are
    span = picture.max(axis=0) - picture.min(axis=0)
    assert span.max() <= 32 + 8, "one cell and the line around it"
    for level in (0, 7):
        with pytest.raises(ValueError, match=facts(f"level {level}", "focus map", "[1]")):
            draw_focus_map(grey, traces((640, 480)), level)


@pytest.mark.parametrize("size_wh", [(1, 1), (1, 300), (900, 100), (300, 260)])
@pytest.mark.parametrize("fine", [True, False])
def test_sheets_of_any_size(size_wh: tuple[int, int], fine: bool) -> None:
    pixels = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)
    sheet = draw_focus(pixels, traces(size_wh, fine=fine), panel_px=300)
    assert sheet.dtype == np.uint8
    assert sheet.shape[2] == 3


def test_a_picture_may_come_smaller_than_the_original() -> None:
    sheet = draw_focus(np.zeros((30, 40, 3), np.uint8), traces((4000, 3000)), panel_px=300)
    assert sheet.shape[1] >= 300


def test_one_level_alone_is_bright_and_has_no_map() -> None:
    whole = np.asarray([[0, 0, 100, 80]], float)
    one = ImageTrace(0, (100, 80), (LevelTrace(0, 1.0, whole, 10, 10, None, 16.0, 0.1),))
    sheet = draw_focus(np.full((80, 100, 3), 128, np.uint8), one, panel_px=300)
    assert has(sheet, (128, 128, 128))


@pytest.mark.parametrize("number", [0, 1, 7])
def test_trade_off_of_any_number_of_ways(number: int) -> None:
    curve = [Spent("AutoFocus", f"{0.1 * k:g}", 1.0 + k, 0.3 + 0.01 * k, 2.0 * k) for k in range(number)]
    others = [Spent(f"way {k}", "", 2.0, 0.2, 1.0) for k in range(number)]
    image = Image.open(io.BytesIO(draw_tradeoff(curve + others)))
    assert image.format == "PNG"
    assert min(image.size) > 300


def test_trade_off_is_the_same_file_each_time() -> None:
    points = [Spent("AutoFocus", "0.1", 1.0, 0.3, 2.0), Spent("full pyramid", "", 2.0, 0.31, 3.0)]
    assert draw_tradeoff(points) == draw_tradeoff(points)
