"""Images with rare classes come again, by the rule of LVIS."""

import math
from dataclasses import fields, replace

import numpy as np

from rectangle_set import make_set
from sniper.chips.config import ChipConfig
from sniper.chips.epoch import mine
from sniper.chips.repeat import repeat_factors, repeated
from sniper.data.flags import ObjectFlag
from sniper.data.source import load_dataset
from sniper.data.table import AnnotationTable
from sniper.pipeline.chip_source import ChipSource
from sniper.pyramid import Level, Pyramid
from sniper.recipe import Recipe

PYRAMID = Pyramid(levels=(Level.model_validate({"scale": 1.0, "train_range_px": (0, None)}),))


def table_with(tmp_path, labels: list[list[int]]) -> AnnotationTable:
    """Images with objects of these labels, by image, of three classes."""
    table = load_dataset(make_set(tmp_path, "coco", images=2))
    counts = [len(some) for some in labels]
    objects = table.select([0] * len(labels))
    rows = np.zeros(sum(counts), np.int64)
    columns = ("boxes_xyxy", "areas", "annotation_ids", "flags")
    return replace(
        objects,
        image_ids=np.arange(1, len(labels) + 1),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        labels=np.array([label for some in labels for label in some], np.int32),
        class_names=("often", "seldom", "never"),
        class_ids=np.arange(3),
        masks=None,
        **{name: getattr(table, name)[rows] for name in columns},
    ).check()


def test_factors_are_those_of_lvis(tmp_path):
    table = table_with(tmp_path, [[0], [0, 0], [1, 0, 1], [], [0], [0], [0], [0], [0], [0]])
    factors = repeat_factors(table, 0.4)
    assert factors.tolist() == [1, 1, 2, 1, 1, 1, 1, 1, 1, 1], "sqrt(0.4 / 0.1) = 2; 9 of 10 images have the other"
    flags = np.where(table.labels == 1, np.uint8(ObjectFlag.GROUP_OF), np.uint8(0))
    assert repeat_factors(replace(table, flags=flags), 0.4).tolist() == [1] * 10, "ignored objects do not count"


def test_chips_come_again_with_their_objects(tmp_path):
    table = table_with(tmp_path, [[0], [1, 0], [0]])
    once = mine(table, PYRAMID, ChipConfig(), seed=0, epoch=0)
    again = repeated(once, np.array([1.0, 3.0, 1.0]), table.image_ids, seed=0, epoch=0)
    assert again.image_index.tolist() == [0, 1, 1, 1, 2]
    for chip, source in enumerate(again.image_index.tolist()):  # an image has one chip here
        rows = again.object_rows[again.object_offsets[chip] : again.object_offsets[chip + 1]]
        assert rows.tolist() == list(range(*table.offsets[source : source + 2]))
        assert (again.origin_xy[chip] == once.origin_xy[source]).all()


def test_fractions_are_drawn_by_image_seed_and_epoch(tmp_path):
    table = table_with(tmp_path, [[0]] * 2000)
    once = mine(table, PYRAMID, ChipConfig(), seed=0, epoch=0)
    factors = np.full(len(table), 2.25)
    drawn = [
        np.bincount(repeated(once, factors, table.image_ids, seed=seed, epoch=epoch).image_index)
        for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))
    ]
    assert (drawn[0] == drawn[1]).all()
    assert set(np.unique(drawn)) == {2, 3}
    for counts in drawn:
        assert abs(counts.mean() - 2.25) < 4 * math.sqrt(0.25 * 0.75 / len(table))
    for other in drawn[2:]:
        assert 0.2 < (other != drawn[0]).mean() < 0.55, "independent: 2 * 0.25 * 0.75"


def test_a_recipe_asks_for_it(tmp_path):
    table = table_with(tmp_path, [[0], [1, 0], *[[0]] * 98])
    recipe = Recipe.parse({"sampler": {"repeat_below": 0.04}})
    source = ChipSource(table, PYRAMID, recipe)
    again = source.chips(3)
    plain = ChipSource(table, PYRAMID, Recipe()).chips(3)
    assert np.bincount(again.image_index)[:3].tolist() == [1, 2, 1]
    assert len(again) == len(plain) + 1
    same = ChipSource(table, PYRAMID, recipe).chips(3)
    assert all(np.array_equal(getattr(again, one.name), getattr(same, one.name)) for one in fields(again))
