"""ScaledImages by the published rules, and levels that are derived from a dataset."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from sniper.auto_levels import MARGIN, MIN_SIDE_PX, derive_pyramid, with_scout
from sniper.boxes import sqrt_area
from sniper.chips.config import ChipConfig
from sniper.chips.positive import valid_objects
from sniper.data.building import ObjectRows, build_table
from sniper.data.source import load_dataset
from sniper.data.table import AnnotationTable
from sniper.pipeline.detectors import resolve_pyramid
from sniper.pyramid import Level, Pyramid
from sniper.recipe import Recipe
from sniper.validity import ScaledImages, scaled_sizes, valid_sizes

VGA = np.array([[640, 480]])


def valid_levels(pyramid: Pyramid, object_wh: NDArray, object_image: NDArray, image_wh: NDArray) -> NDArray:
    """(N, L) by the rule, with the margin and the shortest side that auto levels assume."""
    images, stride = ScaledImages.of(image_wh, pyramid), round(MARGIN * pyramid.chip_px)
    return valid_sizes(object_wh, object_image, images, stride_max=stride, min_side_px=MIN_SIDE_PX)


def _zoom(level: Level, width: int, height: int) -> float:
    both = level.scales(np.array([[width, height], [height, width]]))
    assert both[0] == both[1], "an image and the image on its side are zoomed alike"
    return float(both[0])


@pytest.mark.parametrize(
    ("level", "scale", "size_wh"),
    [
        ({"scale": 3.0}, 3.0, (1920, 1440)),
        ({"scale": 1.667}, 1.667, (1067, 801)),
        ({"long_px": 512}, 0.8, (512, 384)),
        ({"short_px": 1400, "long_px": 2000}, 1400 / 480, (1867, 1400)),
        ({"short_px": 800, "long_px": 1280}, 800 / 480, (1067, 800)),
        ({"short_px": 480, "long_px": 512}, 0.8, (512, 384)),
        ({"short_px": 960}, 2.0, (1280, 960)),
        ({"long_px": 512, "max_scale": 0.5}, 0.5, (320, 240)),
    ],
)
def test_published_zooms_of_a_vga_image(level: dict, scale: float, size_wh: tuple[int, int]) -> None:
    scale = Level.model_validate(level).scales(VGA)
    assert scale == pytest.approx(scale)
    assert scaled_sizes(VGA, scale).tolist() == [list(size_wh)]


def test_long_side_rules_only_where_it_would_exceed_its_bound() -> None:
    assert _zoom(Level(short_px=1400, long_px=2000), 1000, 400) == 2.0
    assert _zoom(Level(short_px=480, long_px=512), 640, 480) == 0.8
    assert _zoom(Level(short_px=800, long_px=1333), 500, 300) == 800 / 300, "1333.33 rounds to 1333"
    assert _zoom(Level(long_px=512), 1, 1) == 512
    assert _zoom(Level(long_px=512), 10_000, 1) == 0.0512


@pytest.mark.parametrize(
    ("level", "message"),
    [
        ({}, "either scale, or short_px"),
        ({"scale": 2, "long_px": 512}, "either scale, or short_px"),
        ({"scale": 0}, "greater than 0"),
        ({"scale": 2, "max_scale": 3}, "max_scale goes with"),
        ({"scale": 2, "train_range_px": [50, 50]}, "upper bound 50.0 must exceed the lower bound 50.0"),
        ({"scale": 2, "infer_range_px": [-1, 50]}, "greater than or equal to 0"),
        ({"scale": 2, "range_px": [1, 50]}, "Extra inputs"),
    ],
)
def test_levels_that_make_no_sense(level: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Level.model_validate(level)


def _check(pyramid: Pyramid, image_wh: NDArray[np.integer], max_scale: float) -> None:
    """What every derived pyramid promises."""
    scales = pyramid.scales(image_wh)
    assert (np.diff(scales, axis=1) <= 1e-12).all(), "finest first, for every image"
    assert scales.max() <= max_scale
    for ranges in (pyramid.train_ranges_px(), pyramid.infer_ranges_px()):
        assert ranges[0, 0] <= 1
        assert math.isinf(ranges[-1, 1])
        assert (ranges[1:, 0] < ranges[:-1, 1]).all(), "no gap between neighbours"
        assert (ranges[1:, 1] >= ranges[:-1, 1]).all()
    assert (pyramid.infer_ranges_px()[:, 0] <= pyramid.train_ranges_px()[:, 0]).all()
    assert (pyramid.infer_ranges_px()[:, 1] >= pyramid.train_ranges_px()[:, 1]).all()
    reloaded = Pyramid.model_validate(json.loads(pyramid.model_dump_json()))
    assert reloaded == pyramid


@st.composite
def datasets(draw: st.DrawFn) -> tuple[NDArray, NDArray, NDArray]:
    """Object sizes, their images and image sizes: any mixture of sizes, thin objects, tiny and huge images."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    largest = draw(st.sampled_from([1, 4, 30, 200, 1000, 6000]))
    smallest = draw(st.sampled_from([1, largest // 3 + 1, largest]))
    image_wh = random.integers(min(smallest, largest), largest + 1, (draw(st.integers(1, 6)), 2))
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        low, high = sorted(draw(st.tuples(*[st.floats(2, 2000)] * 2)))
        sizes = np.exp(random.uniform(math.log(low), math.log(high), draw(st.integers(1, 200))))
        thin = np.exp(random.normal(0, draw(st.sampled_from([0.0, 0.3, 1.5])), len(sizes)))
        parts.append(np.stack([sizes * thin, sizes / thin], axis=1))
    object_wh = np.concatenate(parts)
    image = random.integers(0, len(image_wh), len(object_wh))
    return np.minimum(object_wh, image_wh[image]), image, image_wh


@given(
    data=datasets(),
    object_px=st.sampled_from([32.0, 64.0, 128.0]),
    chip_px=st.sampled_from([None, 128, 512]),
    max_scale=st.sampled_from([1.0, 2.75, 4.0]),
)
@settings(max_examples=50, deadline=None)
def test_derived_levels_cover_what_can_be_learned(data, object_px, chip_px, max_scale) -> None:
    object_wh, image, image_wh = data
    pyramid = derive_pyramid(object_wh, image, image_wh, object_px=object_px, chip_px=chip_px, max_scale=max_scale)
    _check(pyramid, image_wh, max_scale)
    assert chip_px in (None, pyramid.chip_px)
    learnable = object_wh.min(axis=1) >= 2
    valid = valid_levels(pyramid, object_wh, image, image_wh).any(axis=1)
    assert not valid[~learnable].any()
    assert valid[learnable].sum() >= 0.99 * learnable.sum()


@given(data=datasets(), chip_px=st.sampled_from([64, 128, 160, 512, 700]))
@settings(max_examples=40, deadline=None)
def test_validity_is_that_of_mining(data, chip_px) -> None:
    object_wh, image, image_wh = data
    pyramid = derive_pyramid(object_wh, image, image_wh, object_px=64.0, chip_px=chip_px)
    table = _table(object_wh, image, image_wh)
    rows, boxes = table.image_rows_of_objects(), table.boxes_xyxy.astype(np.float64)
    ours = valid_levels(pyramid, boxes[:, 2:] - boxes[:, :2], rows, table.sizes_wh)
    mined = valid_objects(table, ScaledImages.of(table.sizes_wh, pyramid), ChipConfig().size_rule(pyramid.chip_px))
    np.testing.assert_array_equal(ours, mined)


def _table(object_wh: NDArray, image: NDArray, image_wh: NDArray) -> AnnotationTable:
    boxes = np.concatenate([np.zeros_like(object_wh), object_wh], axis=1).astype(np.float64)
    return build_table(
        ObjectRows(image, boxes, np.zeros(len(image), np.int32)),
        source="made up",
        root=Path("nowhere"),
        file_names=[f"{row}.jpg" for row in range(len(image_wh))],
        image_ids=None,
        sizes_wh=image_wh,
        class_names=["thing"],
    )


def test_nothing_to_learn_gives_one_whole_image_level() -> None:
    for object_wh in (np.zeros((0, 2)), np.full((5, 2), 1.5), np.array([[100.0, 0.5]])):
        image_wh = np.array([[640, 480], [1, 1]])
        pyramid = derive_pyramid(object_wh, np.zeros(len(object_wh), int), image_wh, object_px=64)
        _check(pyramid, image_wh, 4.0)
        assert len(pyramid.levels) == 1
        assert pyramid.scales(image_wh)[:, 0].tolist() == [0.8, 4.0]


def test_one_object_gives_one_level_that_shows_it_at_the_comfortable_size() -> None:
    pyramid = derive_pyramid(np.array([[20.0, 20.0]]), np.array([0]), np.array([[4000, 3000]]), object_px=64)
    assert [level.scale for level in pyramid.levels] == [3.2]
    assert pyramid.chip_px == 512
    small = derive_pyramid(np.array([[20.0, 20.0]]), np.array([0]), np.array([[100, 50]]), object_px=64)
    assert small.chip_px == 320, "no larger than the zoomed image"
    assert small.scales(np.array([[100, 50]])).tolist() == [[3.2]]


def test_objects_far_apart_in_size_get_levels_of_their_own() -> None:
    object_wh = np.repeat([[10.0, 10.0], [300.0, 300.0], [1900.0, 1900.0]], 50, axis=0)
    image_wh = np.array([[4000, 3000]])
    pyramid = derive_pyramid(object_wh, np.zeros(150, int), image_wh, object_px=64)
    _check(pyramid, image_wh, 4.0)
    assert len(pyramid.levels) >= 3
    valid = valid_levels(pyramid, object_wh, np.zeros(150, int), image_wh)
    assert valid[0, 0]
    assert not valid[0, -1]
    assert valid[-1].tolist() == [False] * (len(pyramid.levels) - 1) + [True]


def test_sizes_of_a_factor_of_ten_share_one_level_without_ranges() -> None:
    """Several levels with ranges were worse there once training was long: benchmarks/RESULTS.md, "Near convergence"."""
    sizes = np.geomspace(10, 92, 200)
    pyramid = derive_pyramid(np.stack([sizes, sizes], axis=1), np.zeros(200, int), np.array([[640, 512]]), object_px=64)
    assert [level.scale for level in pyramid.levels] == [2.1]
    assert pyramid.train_ranges_px().tolist() == [[0, math.inf]]


def test_an_edge_lies_where_few_objects_are_of_every_class() -> None:
    people, houses, dogs = np.geomspace(8, 20, 3000), np.geomspace(31, 300, 3000), np.geomspace(22, 28, 30)
    image_wh = np.array([[4000, 3000]])

    def edge(sizes: NDArray, classes: NDArray) -> float:
        object_wh, image = np.stack([sizes, sizes], axis=1), np.zeros(len(sizes), int)
        pyramid = derive_pyramid(object_wh, image, image_wh, object_px=64, object_class=classes)
        _check(pyramid, image_wh, 4.0)
        low, high = pyramid.levels[1].train_range_px[0], pyramid.levels[0].train_range_px[1]
        assert high is not None
        return math.sqrt(low * high)

    assert 23 < edge(np.concatenate([people, houses]), np.repeat([0, 1], 3000)) < 27, "the gap; the middle is at 47"
    few = edge(np.concatenate([people, houses, dogs]), np.repeat([0, 1, 2], [3000, 3000, 30]))
    assert few > 28 * math.sqrt(1.5), "a class of few objects counts as much as the others"


def test_the_finest_level_shrinks_only_what_is_too_large() -> None:
    for size, scale in ((150.0, 1.0), (1000.0, 0.29)):
        pyramid = derive_pyramid(np.full((9, 2), size), np.zeros(9, int), np.array([[4000, 3000]]), object_px=64)
        assert pyramid.levels[0].scale == scale


def test_slivers_do_not_blow_up_the_pyramid() -> None:
    """Objects that no level may learn must not widen the coarse end down to one pixel."""
    cars, slivers = np.full((90, 2), 30.0), np.tile([100.0, 1.0], (10, 1))
    image_wh = np.array([[1500, 1000]])
    plain = derive_pyramid(cars, np.zeros(90, int), image_wh, object_px=64)
    mixed = derive_pyramid(np.concatenate([cars, slivers]), np.zeros(100, int), image_wh, object_px=64)
    assert mixed == plain


def _wider(shared_data: Path) -> AnnotationTable:
    entries = json.loads((shared_data / "annotations_only" / "wider_face_val_boxes.json").read_text())["data"]
    boxes = np.array([box for *_, faces in entries for box in faces], np.float64)
    boxes[:, 2:] += boxes[:, :2]
    return build_table(
        ObjectRows(
            np.repeat(np.arange(len(entries)), [len(faces) for *_, faces in entries]),
            boxes,
            np.zeros(len(boxes), np.int32),
        ),
        source="WIDER FACE",
        root=shared_data,
        file_names=[name for name, *_ in entries],
        image_ids=None,
        sizes_wh=np.array([[width, height] for _, width, height, _ in entries]),
        class_names=["face"],
    )


REAL = {
    "cars": ("aerial_cars_kit_ais", "train"),
    "coco": ("coco_subset", "train"),
    "bccd": ("bccd", None),
    "taco": ("annotations_only/taco_annotations.json", None),
    "uavvaste": ("annotations_only/uavvaste_annotations.json", None),
    "visdrone": ("annotations_only/visdrone_first50_coco.json", None),
    "wider": (None, None),
}


@pytest.mark.parametrize("name", REAL)
def test_auto_levels_of_real_sets(shared_data: Path, name: str) -> None:
    place, split = REAL[name]
    table = _wider(shared_data) if place is None else load_dataset(shared_data / place, split)
    recipe, pyramid = resolve_pyramid(Recipe(), table)
    assert recipe.pyramid.levels == pyramid.levels
    assert resolve_pyramid(recipe, table) == (recipe, pyramid), "a resolved recipe stays as it is"
    _check(pyramid, table.sizes_wh, 4.0)
    boxes = table.boxes_xyxy.astype(np.float64)
    valid = valid_objects(table, ScaledImages.of(table.sizes_wh, pyramid), ChipConfig().size_rule(pyramid.chip_px))
    ours = valid_levels(pyramid, boxes[:, 2:] - boxes[:, :2], table.image_rows_of_objects(), table.sizes_wh)
    np.testing.assert_array_equal(valid, ours & ~table.ignored[:, None])
    counted = (sqrt_area(boxes) >= 2) & ~table.ignored
    assert valid.any(axis=1)[counted].mean() >= 0.99


def test_a_single_level_gets_a_scout_for_autofocus_and_nothing_else_does() -> None:
    one = Pyramid(levels=(Level(scale=2.3),))
    fine, scout = with_scout(one).levels
    assert (fine, scout.scale) == (one.levels[0], 0.77)
    assert scout.train_range_px == (0.0, None)
    assert scout.infer_range_px == (83.1, None), "what is smaller than 64 network px is looked at closer"
    assert with_scout(one, 32.0).levels[1].infer_range_px == (41.6, None)
    whole = Pyramid(levels=(Level(long_px=512),))
    assert with_scout(whole) == whole
    assert with_scout(with_scout(one)) == with_scout(one)
