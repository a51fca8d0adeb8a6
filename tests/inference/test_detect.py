"""Multi-scale inference with a detector whose answers are known exactly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rectangles import RectangleFinder, draw, run

from sniper.inference.config import InferenceConfig, MergeConfig
from sniper.inference.images import ImageDetections, ImageInput
from sniper.pyramid import Level, Pyramid

HARD = MergeConfig(method="hard", iou_threshold=0.3)
SIZE = 300, 220
BOXES = np.array([[5, 8, 25, 40], [60, 50, 140, 100], [200, 20, 230, 44], [170, 120, 290, 210], [0, 180, 40, 220]])
LABELS = np.array([0, 1, 1, 0, 0])


def _detect(
    pictures: list[NDArray[np.uint8]], pyramid: Pyramid, finder: RectangleFinder | None = None, **config: object
) -> list[ImageDetections]:
    settings = InferenceConfig.model_validate({"merge": HARD} | config)
    keyed = [ImageInput(10 * number, pixels) for number, pixels in enumerate(pictures)]
    found = run(finder or RectangleFinder(), keyed, pyramid, settings)
    assert [one.key for one in found] == [picture.key for picture in keyed]
    return found


def _pyramid(*levels: dict) -> Pyramid:
    return Pyramid(levels=tuple(Level.model_validate(level) for level in levels))


def _assert_found(one: ImageDetections, boxes: NDArray, labels: NDArray, within: float) -> None:
    assert len(one.scores) == len(one.labels) == len(one.levels) == len(boxes)
    for label in (0, 1):
        ours, true = one.boxes_xyxy[one.labels == label], boxes[labels == label]
        assert len(ours) == len(true)
        by_corner = [np.lexsort((np.round(part[:, 1]), np.round(part[:, 0]))) for part in (ours, true)]
        np.testing.assert_allclose(ours[by_corner[0]], true[by_corner[1]], atol=within)


@pytest.mark.parametrize(
    ("level", "within"),
    [
        ({"scale": 1.0}, 0.05),
        ({"scale": 3.3}, 0.2),
        ({"scale": 0.5}, 0.1),
        ({"scale": 0.37}, 0.3),
        ({"long_px": 512}, 0.2),
        ({"long_px": 171}, 0.2),
        ({"short_px": 500, "long_px": 600}, 0.2),
    ],
)
def test_boxes_come_back_in_original_pixels(level: dict, within: float) -> None:
    (one,) = _detect([draw(SIZE, BOXES, LABELS)], _pyramid(level))
    _assert_found(one, BOXES, LABELS, within)
    assert one.boxes_xyxy.dtype == np.float32
    assert (one.boxes_xyxy >= 0).all()
    assert (one.boxes_xyxy <= [*SIZE, *SIZE]).all()


@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1.0, 2.0, 2.7]))
@settings(max_examples=15, deadline=None)
def test_small_windows_find_what_the_whole_image_shows(seed: int, scale: float) -> None:
    """One object in each cell of a grid, anywhere in it, so that window borders cut some of them."""
    random = np.random.default_rng(seed)
    cells = np.stack(np.meshgrid(np.arange(7), np.arange(4)), axis=-1).reshape(-1, 2) * 40
    sides = random.integers(4, 22, cells.shape)
    corners = cells + random.integers(3, 15, cells.shape)
    boxes, labels = np.concatenate([corners, corners + sides], axis=1), random.integers(0, 2, len(cells))
    pixels = draw((280, 160), boxes, labels)
    finder = RectangleFinder()
    (whole,) = _detect([pixels], _pyramid({"scale": scale}))
    (pieces,) = _detect([pixels], _pyramid({"scale": scale}), finder, window_px=128, overlap=0.5)
    _assert_found(whole, boxes, labels, 0.3)
    _assert_found(pieces, boxes, labels, 0.3)
    assert {shape[2:] for shape in finder.traces} == {(128, 128)}
    assert pieces.pixels_processed == sum(shape[0] for shape in finder.traces) * 128 * 128


def test_a_level_with_an_upper_bound_gets_overlap_for_its_largest_object() -> None:
    """Objects of up to 25 px at zoom 2 need 50 px in common, more than the least share of the window."""
    boxes = np.array([[48 + 30 * k, 20, 70 + 30 * k, 42] for k in range(7)])
    pixels = draw((280, 60), boxes, np.zeros(7, int))
    bounded = _pyramid({"scale": 2.0, "infer_range_px": [0, 30]})
    (one,) = _detect([pixels], bounded, window_px=128, overlap=0.1)
    _assert_found(one, boxes, np.zeros(7, int), 0.2)


def test_an_object_larger_than_the_overlap_is_not_lost() -> None:
    boxes, labels = np.array([[20, 20, 260, 100]]), np.array([0])
    (one,) = _detect([draw((280, 120), boxes, labels)], _pyramid({"scale": 1.0}), window_px=128, overlap=0.2)
    assert len(one.scores) >= 1
    hull = [*one.boxes_xyxy[:, :2].min(axis=0), *one.boxes_xyxy[:, 2:].max(axis=0)]
    np.testing.assert_allclose(hull, boxes[0], atol=0.2)


def test_each_level_answers_for_its_own_sizes() -> None:
    boxes = np.array([[10, 10, 18, 18], [40, 10, 60, 30], [100, 50, 180, 130]])
    pixels = draw((200, 150), boxes, np.zeros(3, int))
    pyramid = _pyramid(
        {"scale": 2.0, "infer_range_px": [0, 30]}, {"scale": 0.5, "infer_range_px": [15, None]}, {"scale": 1.0}
    )
    (fine,) = _detect([pixels], Pyramid(levels=pyramid.levels[:1]))
    _assert_found(fine, boxes[:2], np.zeros(2, int), 0.2)
    (coarse,) = _detect([pixels], Pyramid(levels=pyramid.levels[1:2]))
    _assert_found(coarse, boxes[1:], np.zeros(2, int), 0.2)
    (both,) = _detect([pixels], Pyramid(levels=pyramid.levels[:2]))
    _assert_found(both, boxes, np.zeros(3, int), 0.2)
    by_size = dict(zip((both.boxes_xyxy[:, 2] - both.boxes_xyxy[:, 0]).round().tolist(), both.levels, strict=True))
    assert (by_size[8], by_size[80]) == (0, 1)
    assert both.pixels_processed == 512 * 384 + 128 * 128


def test_a_batch_gives_what_single_images_give() -> None:
    random = np.random.default_rng(0)
    pictures = []
    for width, height in ((300, 220), (220, 300), (90, 40), (300, 220), (1, 1), (301, 219), (400, 60)):
        corners = np.array([[5, 5]]) if min(width, height) > 30 else np.zeros((0, 2), int)
        boxes = np.concatenate([corners, corners + random.integers(6, 20, corners.shape)], axis=1)
        pictures.append(draw((width, height), boxes, np.zeros(len(boxes), int)))
    pyramid = _pyramid({"scale": 2.0, "infer_range_px": [0, 60]}, {"long_px": 128, "max_scale": 2.0})
    together, few_pixels, one_by_one = RectangleFinder(), RectangleFinder(), RectangleFinder()
    expected = [one for p in pictures for one in _detect([p], pyramid, one_by_one)]
    for finder, config in (
        (together, {"images_in_flight": 7}),
        (few_pixels, {"batch_pixels": 1, "images_in_flight": 3}),
    ):
        found = _detect(pictures, pyramid, finder, **config)
        for ours, alone in zip(found, expected, strict=True):
            for column in ("boxes_xyxy", "scores", "labels", "levels"):
                np.testing.assert_array_equal(getattr(ours, column), getattr(alone, column))
            assert ours.pixels_processed == alone.pixels_processed
    assert len(together.traces) < len(one_by_one.traces)
    assert all(shape[0] == 1 for shape in few_pixels.traces)


@pytest.mark.parametrize("level", [{"scale": 1.0}, {"scale": 0.1}, {"scale": 4.0}, {"long_px": 512}])
def test_an_image_of_one_pixel(level: dict) -> None:
    (black,) = _detect([np.zeros((1, 1, 3), np.uint8)], _pyramid(level))
    assert (len(black.scores), black.boxes_xyxy.shape) == (0, (0, 4))
    (red,) = _detect([draw((1, 1), np.array([[0, 0, 1, 1]]), np.array([0]))], _pyramid(level))
    _assert_found(red, np.array([[0, 0, 1, 1]]), np.array([0]), 0.2)


def test_nothing_to_look_at_and_nothing_to_find() -> None:
    assert _detect([], _pyramid({"scale": 1.0})) == []
    (none,) = _detect([np.zeros((20, 30, 3), np.uint8)], _pyramid({"scale": 1.0}, {"long_px": 64}))
    assert (len(none.scores), none.levels.dtype, none.pixels_processed) == (0, np.int16, 2 * 128 * 128)


def test_the_cap_keeps_the_best() -> None:
    boxes = np.array([[10 * k, 4, 10 * k + 5, 12] for k in range(8)])
    merge = {"method": "hard", "max_per_image": 3}
    (one,) = _detect([draw((80, 20), boxes, np.zeros(8, int))], _pyramid({"scale": 2.0}), merge=merge)
    assert len(one.scores) == 3
