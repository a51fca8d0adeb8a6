"""Mining: what every chip table of an epoch promises."""

import dataclasses

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scenes import COCO, SMALL, Scene, scenes, table_of
from windows import assign

from facts import facts
from sniper.chips.config import ChipConfig
from sniper.chips.epoch import mine
from sniper.chips.positive import BLOCK_IMAGES, valid_objects
from sniper.chips.table import ChipKind, ChipTable
from sniper.data.table import AnnotationTable
from sniper.errors import RecipeError
from sniper.pyramid import Level, Pyramid
from sniper.validity import ScaledImages

CONFIG = ChipConfig()
FIELDS = [field.name for field in dataclasses.fields(ChipTable)]


def same(a: ChipTable, b: ChipTable) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in FIELDS)


def objects(chips: ChipTable, k: int) -> np.ndarray:
    return chips.object_rows[chips.object_offsets[k] : chips.object_offsets[k + 1]]


def check(table: AnnotationTable, pyramid: Pyramid, chips: ChipTable, config: ChipConfig = CONFIG) -> None:
    scaled_images = ScaledImages.of(table.sizes_wh, pyramid)
    valid = valid_objects(table, scaled_images, config.size_rule(pyramid.chip_px))
    assert not (valid & table.ignored[:, None]).any()
    assert (np.diff(chips.image_index) >= 0).all()
    assert chips.object_offsets[0] == 0
    assert chips.object_offsets[-1] == len(chips.object_rows)
    assert (chips.origin_xy >= 0).all()
    assert (chips.valid_wh >= 1).all()
    assert (chips.valid_wh <= chips.size_wh).all()
    assert (chips.size_wh == pyramid.chip_px).all()
    assert (chips.origin_xy + chips.valid_wh <= scaled_images.sizes_wh[chips.image_index, chips.level]).all()
    found = np.zeros(valid.shape, int)
    for k in range(len(chips)):
        rows = objects(chips, k)
        image = chips.image_index[k]
        assert ((table.offsets[image] <= rows) & (rows < table.offsets[image + 1])).all()
        boxes = table.boxes_xyxy[rows].astype(np.float64) * chips.scale[k] - np.tile(chips.origin_xy[k], 2)
        assert (boxes[:, :2] >= -1e-4).all()
        assert (boxes[:, 2:] <= chips.valid_wh[k] + 1e-4).all()
        assert valid[rows, chips.level[k]].all()
        if chips.kind[k] == ChipKind.POSITIVE:
            assert len(rows) > 0
            found[rows, chips.level[k]] += 1
    assert np.array_equal(found, valid)


@given(drawn=st.lists(scenes(), max_size=5), seed=st.integers(-5, 2**70), epoch=st.integers(0, 100))
@settings(max_examples=120, deadline=None)
def test_every_valid_object_is_in_exactly_one_positive_chip_of_its_level_and_fully_inside(
    drawn: list[Scene], seed: int, epoch: int
) -> None:
    table = table_of(*drawn)
    config = ChipConfig(background_share=0.5)
    chips = mine(table, SMALL, config, seed=seed, epoch=epoch)
    check(table, SMALL, chips, config)
    assert same(chips, mine(table, SMALL, config, seed=seed, epoch=epoch))


@given(scene=scenes(max_boxes=6), seed=st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_the_cover_assigns_as_the_largest_share_does(scene: Scene, seed: int) -> None:
    table = table_of(scene)
    chips = mine(table, SMALL, ChipConfig(background_per_image=0), seed=seed, epoch=0)
    for level in range(3):
        here = np.flatnonzero(chips.level == level)
        windows = np.concatenate([chips.origin_xy[here], chips.origin_xy[here] + SMALL.chip_px], axis=1)
        windows = windows + np.asarray([-1, -1, 1, 1]) * 1e-4  # a box may touch the border up to rounding
        for index, k in enumerate(here):
            rows = objects(chips, k)
            best = assign(table.boxes_xyxy[rows] * chips.scale[k], windows)
            assert (best.window == index).all()
            np.testing.assert_allclose(best.share, 1)


def many(images: int, seed: int = 0, boxes: int = 7) -> AnnotationTable:
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(images):
        width, height = (int(v) for v in rng.integers(200, 900, 2))
        low = rng.uniform(0, 0.9, (rng.poisson(boxes), 2)) * [width, height]
        high = np.minimum(low + np.exp(rng.uniform(0, 5.5, low.shape)) + 1, [width, height])
        drawn.append(Scene((width, height), [tuple(b) for b in np.hstack([low, high]).astype(np.float32).tolist()]))
    return table_of(*drawn)


def test_the_number_of_threads_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    table = many(50)
    rows = np.tile(np.arange(50), 2 * BLOCK_IMAGES // 50 + 3)
    table = dataclasses.replace(table.select(rows), image_ids=np.arange(len(rows)))
    results, torch_threads = [], torch.get_num_threads()
    for threads in (1, 2):
        monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", threads)
        results.append(mine(table, COCO, ChipConfig(background_share=0.1), seed=3, epoch=4))
    assert torch.get_num_threads() == torch_threads, "numba's own pool would change it, and torch's last bits"
    assert same(*results)
    assert len(results[0]) > BLOCK_IMAGES


def test_the_chips_of_an_image_do_not_depend_on_the_others() -> None:
    table = many(40)
    alone = table.select([17])
    all_chips = mine(table, COCO, CONFIG, seed=1, epoch=2)
    own = mine(alone, COCO, CONFIG, seed=1, epoch=2)
    picked = all_chips.image_index == 17
    assert np.array_equal(all_chips.origin_xy[picked], own.origin_xy)
    assert np.array_equal(all_chips.level[picked], own.level)


def test_a_table_shared_with_workers_gives_the_same_chips() -> None:
    table = many(20)
    shared = table.share()
    assert not shared.boxes_xyxy.flags.writeable
    assert same(mine(table, COCO, CONFIG, seed=1, epoch=2), mine(shared, COCO, CONFIG, seed=1, epoch=2))


def test_epochs_and_seeds_differ() -> None:
    table = many(40)
    results = [mine(table, COCO, CONFIG, seed=s, epoch=e).origin_xy for s, e in ((0, 0), (0, 1), (1, 0), (1, 1))]
    for i, a in enumerate(results):
        for b in results[:i]:
            assert a.shape != b.shape or not np.array_equal(a, b)


def test_crowded_images_take_the_other_kernel_and_keep_the_promises() -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(0, [1900, 1400], (700, 2))
    high = np.minimum(low + rng.uniform(2, 60, low.shape) + 2, [2000, 1500])
    boxes = [tuple(b) for b in np.hstack([low, high]).astype(np.float32).tolist()]
    table = table_of(Scene((2000, 1500), boxes), Scene((30, 30), [(1, 1, 20, 20)]), Scene((2000, 1500), boxes[:65]))
    check(table, COCO, mine(table, COCO, CONFIG, seed=0, epoch=0))


def test_no_images() -> None:
    chips = mine(table_of(), COCO, CONFIG, seed=0, epoch=0)
    assert len(chips) == 0
    assert chips.origin_xy.shape == (0, 2)
    assert chips.object_offsets.tolist() == [0]


def test_one_box() -> None:
    table = table_of(Scene((640, 480), [(100, 100, 150, 150)]))
    chips = mine(table, COCO, CONFIG, seed=0, epoch=0)
    check(table, COCO, chips)
    assert chips.level.tolist() == [0, 1]
    assert chips.object_rows.tolist() == [0, 0]
    assert chips.range_px.tolist() == [[0, 80], [32, 150]]


def test_one_pixel() -> None:
    table = table_of(Scene((1, 1), [(0, 0, 1, 1)]), Scene((1, 1)))
    chips = mine(table, COCO, ChipConfig(min_side_px=1), seed=0, epoch=0)
    check(table, COCO, chips, ChipConfig(min_side_px=1))
    assert chips.kind.tolist() == [ChipKind.POSITIVE, ChipKind.BACKGROUND]
    assert chips.valid_wh[0].tolist() == [3, 3]
    assert mine(table, COCO, CONFIG, seed=0, epoch=0).kind.tolist() == [ChipKind.BACKGROUND]


def test_an_image_smaller_than_a_chip_has_one_chip_with_everything() -> None:
    table = table_of(Scene((100, 80), [(0, 0, 79, 80), (50, 50, 100, 80), (3, 3, 5, 5)]))
    chips = mine(table, COCO, CONFIG, seed=0, epoch=0)
    check(table, COCO, chips)
    assert np.count_nonzero(chips.level == 0) == 1
    assert chips.valid_wh[0].tolist() == [300, 240]


def test_the_size_of_a_valid_object() -> None:
    pyramid = Pyramid(levels=(Level(scale=1.0, train_range_px=(10, 100)),), chip_px=256)
    sizes = [(10, 10), (9.99, 10), (100, 99.99), (100, 100), (200, 40), (230, 20), (60, 1.9), (60, 2)]
    table = table_of(Scene((600, 400), [(0, 0, w, h) for w, h in sizes]))
    rule = CONFIG.size_rule(256)
    valid = valid_objects(table, ScaledImages.of(table.sizes_wh, pyramid), rule)[:, 0]
    assert rule.stride_max == 30
    assert valid.tolist() == [True, False, True, False, True, False, False, True]
    wide = table_of(Scene((250, 400), [(0, 0, 250, 20), (0, 0, 20, 230), (0, 0, 20, 226)]))
    assert valid_objects(wide, ScaledImages.of(wide.sizes_wh, pyramid), rule)[:, 0].tolist() == [True, False, True]


def test_crowd_regions_are_never_assigned() -> None:
    table = table_of(Scene((640, 480), [(10, 10, 60, 60), (5, 5, 70, 70)], [False, True]))
    for epoch in range(3):
        chips = mine(table, COCO, ChipConfig(background_share=2.0), seed=0, epoch=epoch)
        check(table, COCO, chips)
        assert 1 not in chips.object_rows


def test_a_stride_that_leaves_gaps_is_refused() -> None:
    assert ChipConfig().strides_px(512) == (56, 59)
    assert ChipConfig().strides_px(64) == (7, 7)
    with pytest.raises(RecipeError, match=facts("512 px", "at most 511")):
        mine(table_of(), COCO, ChipConfig(stride_px=(56, 512)), seed=0, epoch=0)
    with pytest.raises(ValidationError, match="must not exceed"):
        ChipConfig(stride_px=(59, 56))
