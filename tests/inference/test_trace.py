"""What is handed out of a look at images: the maps, the chips, the pixels."""

import numpy as np
import pytest
import torch
from rectangles import RectangleFinder, draw, run
from test_autofocus import PYRAMID, STRIDE, FocusingFinder

from sniper.inference.config import InferenceConfig
from sniper.inference.images import ImageDetections, ImageInput
from sniper.inference.trace import ImageTrace


def _watched(
    sizes_wh: list[tuple[int, int]], finder: torch.nn.Module, focus: dict | None, **more: int
) -> tuple[list[ImageDetections], list[ImageTrace]]:
    """Pictures with one small rectangle near the top left; keys count from 7."""
    box = np.asarray([[20, 20, 32, 32]])
    pictures = [ImageInput(7 + k, draw(size, box, np.zeros(1, int))) for k, size in enumerate(sizes_wh)]
    seen: list[ImageTrace] = []
    config = InferenceConfig.model_validate({"focus": focus} | more)
    with torch.inference_mode():
        found = run(finder, pictures, PYRAMID, config, on_trace=seen.append)
    return found, seen


def test_maps_and_chips_of_each_level_coarse_to_fine() -> None:
    focus = {"threshold": [0.01, 0.02], "min_chip_px": 64}
    found, seen = _watched([(700, 500), (300, 420)], FocusingFinder(), focus, images_in_flight=2)
    assert [one.key for one in seen] == [7, 8]
    for result, one in zip(found, seen, strict=True):
        assert [level.level for level in one.levels] == [2, 1, 0]
        assert [level.scale for level in one.levels] == [0.5, 1, 2]
        coarse, middle, fine = one.levels
        assert coarse.chips_xyxy.tolist() == [[0, 0, *one.size_wh]]
        assert coarse.pixels == coarse.pixels_full
        assert (coarse.threshold, middle.threshold) == (0.01, 0.02)
        assert (coarse.cell_px, middle.cell_px) == (2 * STRIDE, STRIDE)
        assert coarse.focus is not None
        assert coarse.focus.shape == tuple(-(-side // (2 * STRIDE)) for side in one.size_wh[::-1])
        assert np.unravel_index(coarse.focus.argmax(), coarse.focus.shape) == (0, 0)
        for level in (middle, fine):
            ((x1, y1, x2, y2),) = level.chips_xyxy
            assert max(x1, y1) <= 20
            assert min(x2, y2) >= 32
            assert level.pixels < 0.3 * level.pixels_full
        assert fine.focus is None, "nothing finer follows"
        assert sum(level.pixels for level in one.levels) == result.pixels_processed
        assert sum(level.pixels_full for level in one.levels) == result.pixels_full
        assert one.share == pytest.approx(result.pixels_processed / result.pixels_full)


def test_a_chip_of_several_windows_is_one_chip() -> None:
    _, (one,) = _watched([(700, 500)], FocusingFinder(), {"threshold": 0.01, "min_chip_px": 300}, window_px=128)
    assert [len(level.chips_xyxy) for level in one.levels] == [1, 1, 1]
    assert one.levels[2].pixels > 128 * 128


def test_levels_where_nothing_is_looked_at_have_no_chips() -> None:
    _, (one,) = _watched([(700, 500)], FocusingFinder(), {"threshold": 1.0})
    assert [len(level.chips_xyxy) for level in one.levels] == [1, 0, 0]
    assert one.levels[1].chips_xyxy.shape == (0, 4)
    assert one.levels[1].focus is not None
    assert not one.levels[1].focus.any()


def test_without_focus_every_level_is_looked_at_whole() -> None:
    found, (one,) = _watched([(700, 500)], RectangleFinder(), None)
    assert all(level.chips_xyxy.tolist() == [[0, 0, 700, 500]] and level.focus is None for level in one.levels)
    assert one.share == 1
    assert sum(level.pixels for level in one.levels) == found[0].pixels_processed
