"""Background chips: images without objects are seen, and extra windows know what they show."""

import numpy as np
from scenes import COCO, Scene, table_of

from sniper.chips.background import anywhere
from sniper.chips.config import ChipConfig
from sniper.chips.epoch import mine
from sniper.chips.table import ChipKind
from sniper.validity import ScaledImages

FULL = Scene((640, 480), [(10, 10, 60, 60), (400, 300, 600, 470)])


def test_images_without_objects_get_random_windows() -> None:
    table = table_of(Scene((640, 480)), FULL, Scene((2000, 1500)), Scene((640, 480), [(0, 0, 90, 90)], [True]))
    config = ChipConfig(background_per_image=3)
    seen = set()
    for epoch in range(20):
        chips = mine(table, COCO, config, seed=0, epoch=epoch)
        background = chips.kind == ChipKind.BACKGROUND
        assert np.bincount(chips.image_index[background], minlength=4).tolist() == [3, 0, 3, 3]
        assert (np.diff(chips.object_offsets)[background] == 0).all()
        picked = background & (chips.image_index == 2)
        seen |= set(zip(chips.level[picked].tolist(), map(tuple, chips.origin_xy[picked].tolist()), strict=True))
    assert {level for level, _ in seen} == {0, 1, 2}
    assert len(seen) > 30
    none = mine(table, COCO, ChipConfig(background_per_image=0), seed=0, epoch=0)
    assert (none.kind == ChipKind.POSITIVE).all()


def test_extra_windows_are_a_share_of_the_positive_chips_and_list_what_lies_inside() -> None:
    table = table_of(*[FULL] * 30)
    chips = mine(table, COCO, ChipConfig(background_share=2.0), seed=0, epoch=0)
    positive = chips.kind == ChipKind.POSITIVE
    assert np.count_nonzero(~positive) == 2 * np.count_nonzero(positive)
    assert len(set(chips.image_index[~positive].tolist())) > 15
    listed = 0
    for k in np.flatnonzero(~positive):
        rows = chips.object_rows[chips.object_offsets[k] : chips.object_offsets[k + 1]]
        own = np.arange(*table.offsets[[chips.image_index[k], chips.image_index[k] + 1]])
        low, high = ([0, 32, 120][chips.level[k]], [80, 150, np.inf][chips.level[k]])
        boxes = table.boxes_xyxy[own] * chips.scale[k] - np.tile(chips.origin_xy[k], 2)
        size = np.sqrt((table.boxes_xyxy[own, 2:] - table.boxes_xyxy[own, :2]).prod(axis=1))
        inside = (boxes >= -1e-4).all(axis=1) & (boxes <= 512 + 1e-4).all(axis=1) & (low <= size) & (size < high)
        assert rows.tolist() == own[inside].tolist()
        listed += len(rows)
    assert listed > 0


def test_extra_windows_lie_where_detection_looks_most() -> None:
    table = table_of(Scene((2000, 1000), [(10, 10, 50, 50)] * 9), Scene((500, 400), [(10, 10, 50, 50)] * 9))
    scaled_images = ScaledImages.of(table.sizes_wh, COCO)
    windows = anywhere(20000, scaled_images, 56, seed=0, epoch=0)
    assert (np.diff(windows.image_index) >= 0).all()
    area = np.maximum(scaled_images.sizes_wh.astype(float), 512).prod(axis=-1)
    share = np.zeros((2, 3))
    np.add.at(share, (windows.image_index, windows.level), 1 / 20000)
    np.testing.assert_allclose(share, area / area.sum(), atol=0.01)
    max_count = np.maximum(scaled_images.sizes_wh[windows.image_index, windows.level] - 512, 0)
    assert (windows.origin_xy >= 0).all()
    assert (windows.origin_xy <= max_count).all()
    big = (windows.image_index == 0) & (windows.level == 0)
    assert (windows.origin_xy[big].max(axis=0) == max_count[big][0]).all()
