"""Scales that vary from epoch to epoch: exact geometry, the same for an image alone or among others."""

import numpy as np
import pytest
from scenes import Scene, table_of

from sniper.chips.config import ChipConfig
from sniper.chips.epoch import mine
from sniper.chips.jitter import jittered_images
from sniper.chips.uniform import whole_images
from sniper.pyramid import Level, Pyramid
from sniper.validity import ScaledImages

PYRAMID = Pyramid(
    levels=(Level(scale=2.0, train_range_px=(0, 60)), Level(scale=0.5, train_range_px=(40, None))), chip_px=256
)
TABLE = table_of(*[Scene((640, 480), [(20, 30, 60, 70), (200, 200, 320, 300)]) for _ in range(200)])


def test_factors_are_within_the_jitter_and_spread_over_it() -> None:
    images = jittered_images(TABLE, PYRAMID, 1.4, seed=0, epoch=3)
    factors = images.scales / [2.0, 0.5]
    assert factors.min() == pytest.approx(1 / 1.4)
    assert factors.max() == pytest.approx(1.4)
    assert len(np.unique(factors.round(6))) == 9
    assert abs(np.log(factors)).mean() == pytest.approx(np.log(1.4) * 5 / 9, rel=0.1)
    assert (images.sizes_wh[:, 0, 0] == np.ceil(640 * images.scales[:, 0])).all()
    assert np.array_equal(images.ranges_px, PYRAMID.train_ranges_px())


def test_epochs_differ_and_an_image_does_not_depend_on_the_others() -> None:
    first = jittered_images(TABLE, PYRAMID, 1.4, seed=0, epoch=0)
    assert not np.array_equal(first.scales, jittered_images(TABLE, PYRAMID, 1.4, seed=0, epoch=1).scales)
    some = TABLE.select(np.asarray([5, 17]))
    assert np.array_equal(jittered_images(some, PYRAMID, 1.4, seed=0, epoch=0).scales, first.scales[[5, 17]])


def test_one_is_no_jitter() -> None:
    plain = ScaledImages.of(TABLE.sizes_wh, PYRAMID)
    assert np.array_equal(jittered_images(TABLE, PYRAMID, 1.0, seed=0, epoch=0).scales, plain.scales)
    assert np.array_equal(
        mine(TABLE, PYRAMID, ChipConfig(), seed=0, epoch=0).origin_xy,
        mine(TABLE, PYRAMID, ChipConfig(), seed=0, epoch=0, scaled_images=plain).origin_xy,
    )


def test_chips_hold_their_objects_whole_at_the_scale_that_was_drawn() -> None:
    images = jittered_images(TABLE, PYRAMID, 1.4, seed=1, epoch=0)
    chips = mine(TABLE, PYRAMID, ChipConfig(), seed=1, epoch=0, scaled_images=images)
    assert np.array_equal(chips.scale, images.scales[chips.image_index, chips.level])
    owner = np.repeat(np.arange(len(chips)), np.diff(chips.object_offsets))
    boxes = TABLE.boxes_xyxy[chips.object_rows].reshape(-1, 2, 2) * chips.scale[owner, None, None]
    assert len(owner) == 3 * len(TABLE)  # one object is in range at both levels
    assert (boxes[:, 0] >= chips.origin_xy[owner] - 1e-3).all()
    assert (boxes[:, 1] <= (chips.origin_xy + chips.size_wh)[owner] + 1e-3).all()
    assert np.array_equal(whole_images(TABLE, images).size_wh[::2], images.sizes_wh[:, 0])
