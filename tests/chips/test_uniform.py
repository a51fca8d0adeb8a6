"""Uniform tiles and whole images: complete, inside, and with the objects that they show."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import Scene, scenes, table_of
from windows import covered_share

from sniper.chips.table import ChipKind, ChipTable
from sniper.chips.uniform import uniform_tiles, whole_images
from sniper.data.table import AnnotationTable
from sniper.errors import RecipeError
from sniper.pyramid import Level, Pyramid
from sniper.validity import ScaledImages

NATIVE = Pyramid(levels=(Level(scale=1.0),), chip_px=512)
WHOLE = Pyramid(levels=(Level(short_px=800, long_px=1333),))


def scaled(table: AnnotationTable, pyramid: Pyramid) -> ScaledImages:
    return ScaledImages.of(table.sizes_wh, pyramid)


def objects(chips: ChipTable, k: int) -> list[int]:
    return chips.object_rows[chips.object_offsets[k] : chips.object_offsets[k + 1]].tolist()


@given(
    drawn=st.lists(scenes(), max_size=4),
    factor=st.sampled_from([0.5, 1.0, 1.7]),
    overlap=st.sampled_from([0.0, 0.2, 0.9]),
    min_visible=st.sampled_from([0.01, 0.5, 1.0]),
)
@settings(max_examples=80, deadline=None)
def test_tiles_cover_every_pixel_and_list_the_objects_they_show(
    drawn: list[Scene], factor: float, overlap: float, min_visible: float
) -> None:
    table = table_of(*drawn)
    pyramid = Pyramid(levels=(Level(scale=factor),), chip_px=64)
    chips = uniform_tiles(table, scaled(table, pyramid), overlap=overlap, min_visible=min_visible)
    assert (chips.kind == ChipKind.TILE).all()
    assert (np.diff(chips.image_index) >= 0).all()
    for image in range(len(table)):
        width, height = np.ceil(table.sizes_wh[image] * factor - 1e-6).astype(int)
        seen = np.zeros((height, width), bool)
        own = np.arange(table.offsets[image], table.offsets[image + 1])
        for k in np.flatnonzero(chips.image_index == image):
            (x, y), (w, h) = chips.origin_xy[k], chips.valid_wh[k]
            seen[y : y + h, x : x + w] = True
            assert x + w <= width
            assert y + h <= height
            boxes = table.boxes_xyxy[own].astype(np.float64) * factor
            share = covered_share(boxes, np.asarray([[x, y, x + 64, y + 64]], np.float64))[:, 0]
            near = np.abs(share - min_visible) < 1e-9
            expected = own[(share >= min_visible) & ~table.ignored[own] & ~near]
            assert set(expected) <= set(objects(chips, k)) <= set(expected) | set(own[near])
        assert seen.all()


def test_tiles_of_a_known_image() -> None:
    table = table_of(Scene((1000, 600), [(0, 0, 10, 10), (400, 100, 520, 200)]))
    chips = uniform_tiles(table, scaled(table, NATIVE))
    assert chips.origin_xy.tolist() == [[0, 0], [409, 0], [488, 0], [0, 88], [409, 88], [488, 88]]
    assert [objects(chips, k) for k in range(6)] == [[0, 1], [1], [], [1], [1], []]
    assert chips.range_px.tolist() == [[0, np.inf]] * 6
    assert chips.valid_wh.tolist() == [[512, 512]] * 6


def test_whole_images() -> None:
    table = table_of(
        Scene((640, 480), [(0, 0, 9, 9), (1, 1, 5, 5)], [False, True]),
        Scene((1, 1)),
        Scene((3000, 300), [(0, 0, 1, 1)]),
    )
    chips = whole_images(table, scaled(table, WHOLE))
    assert chips.size_wh.tolist() == [[1067, 800], [800, 800], [1333, 134]]
    assert np.array_equal(chips.valid_wh, chips.size_wh)
    assert [objects(chips, k) for k in range(3)] == [[0], [], [2]]


def test_no_images() -> None:
    none = table_of()
    for chips in (uniform_tiles(none, scaled(none, NATIVE)), whole_images(none, scaled(none, WHOLE))):
        assert len(chips) == 0
        assert chips.object_offsets.tolist() == [0]


@pytest.mark.parametrize("wrong", [{"overlap": 1.0}, {"overlap": -0.1}, {"min_visible": 0.0}, {"min_visible": 1.5}])
def test_wrong_settings_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        uniform_tiles(table_of(), scaled(table_of(), NATIVE), **wrong)


def test_levels_answer_for_their_own_range() -> None:
    table = table_of(Scene((700, 300), [(0, 0, 20, 20), (100, 100, 300, 300)]), Scene((100, 100)))
    levels = (Level(scale=2.0, train_range_px=(0, 64)), Level(scale=0.5, train_range_px=(32, None)))
    images = scaled(table, Pyramid(levels=levels))
    for chips in (uniform_tiles(table, images), whole_images(table, images)):
        assert (np.diff(chips.image_index) >= 0).all()
        fine, coarse = chips.level == 0, chips.level == 1
        assert {row for k in np.flatnonzero(fine) for row in objects(chips, k)} == {0}
        assert [objects(chips, k) for k in np.flatnonzero(coarse)] == [[1], []]
        assert chips.scale[coarse].tolist() == [0.5, 0.5]
