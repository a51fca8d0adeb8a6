"""Coarse to fine: where it looks, what it keeps, and that it is plain multi-scale inference where nothing is saved."""

import logging
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rectangles import RectangleFinder, draw, run

from sniper.detectors.protocol import FocusDetector, Outputs
from sniper.detectors.sniper.config import SniperConfig
from sniper.detectors.sniper.network import Sniper, build_sniper
from sniper.inference.autofocus import CoarseToFine
from sniper.inference.config import AutoFocusConfig, InferenceConfig, MergeConfig
from sniper.inference.images import ImageDetections, ImageInput
from sniper.nn.config import AnchorConfig
from sniper.pyramid import Level, Pyramid
from sniper.structures import Detections, Images

STRIDE = 16
HARD = MergeConfig(method="hard", iou_threshold=0.3)
PYRAMID = Pyramid(
    levels=(
        Level(scale=2.0, infer_range_px=(0.0, 30.0)),
        Level(scale=1.0, infer_range_px=(15.0, 80.0)),
        Level(scale=0.5, infer_range_px=(40.0, None)),
    )
)


class FocusingFinder(RectangleFinder):
    """Focus is the share of a cell that is coloured: as many objects as there are, whatever their size."""

    @property
    def focus_stride(self) -> int | None:
        return STRIDE

    def outputs(self, images: Images, *, focus: bool = False, **others: bool) -> Outputs:
        coloured = images.pixels.amax(dim=1, keepdim=True)
        for one, (height, width) in zip(coloured, images.valid_hw.tolist(), strict=True):
            one[:, height:], one[:, :, width:] = 0, 0
        found = self.detect(images)
        return Outputs(found, focus=torch.nn.functional.avg_pool2d(coloured, STRIDE)[:, 0] if focus else None)


def _detect(
    pictures: list[NDArray[np.uint8]], finder: torch.nn.Module, focus: dict | None, pyramid: Pyramid = PYRAMID, **more
) -> list[ImageDetections]:
    config = InferenceConfig.model_validate({"merge": HARD, "focus": focus} | more)
    with torch.inference_mode():
        return run(finder, [ImageInput(k, p) for k, p in enumerate(pictures)], pyramid, config)


def _assert_equal(one: ImageDetections, other: ImageDetections) -> None:
    for column in ("boxes_xyxy", "scores", "labels", "levels"):
        np.testing.assert_array_equal(getattr(one, column), getattr(other, column))


def _scene(seed: int, size_wh: tuple[int, int] = (700, 500), objects: int = 6) -> NDArray[np.uint8]:
    """Small rectangles in one corner of a large picture, none of which touch."""
    random = np.random.default_rng(seed)
    cells = random.permutation(np.stack(np.meshgrid(np.arange(4), np.arange(3)), axis=-1).reshape(-1, 2))[:objects]
    corners = cells * 40 + random.integers(2, 14, cells.shape)
    boxes = np.concatenate([corners, corners + random.integers(5, 22, cells.shape)], axis=1)
    return draw(size_wh, boxes, random.integers(0, 2, len(boxes)))


@pytest.fixture(scope="module")
def tiny() -> Sniper:
    torch.manual_seed(0)
    config = SniperConfig(
        backbone="timm/test_resnet", weights=None, channels=16, rpn_channels=16, head_channels=8, head_width=16,
        anchors=AnchorConfig(scales=(1, 2, 4)), focus=True, focus_channels=8, score_threshold=0.0,
        max_detections=10,
    )  # fmt: skip
    return build_sniper(config, 3).eval()


@given(seed=st.integers(0, 1000), window=st.sampled_from([128, 1536]), many=st.booleans())
@settings(max_examples=4, deadline=None)
def test_threshold_zero_is_plain_inference_bit_for_bit(tiny: Sniper, seed: int, window: int, many: bool) -> None:
    random = np.random.default_rng(seed)
    shapes = random.integers(20, 140, (2 if many else 1, 2))
    pictures = [random.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    plain = _detect(pictures, tiny, None, window_px=window)
    zero = _detect(pictures, tiny, {"threshold": 0}, window_px=window)
    # A threshold so small that only the maps themselves say so; single padded inputs, as sums differ in larger batches.
    single = _detect(pictures, tiny, None, window_px=window, batch_pixels=1)
    nearly = _detect(pictures, tiny, {"threshold": 1e-30}, window_px=window, batch_pixels=1)
    for one, other in zip(plain + single, zero + nearly, strict=True):
        assert len(one.scores) > 0
        _assert_equal(one, other)
        assert one.pixels_processed == other.pixels_processed == one.pixels_full == other.pixels_full


@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_small_objects_are_found_with_fewer_pixels(seed: int) -> None:
    picture = _scene(seed)
    # The least object colours two of the 256 pixels of a coarse cell, and a cell must say so for it to be looked at.
    (plain,) = _detect([picture], RectangleFinder(), None)
    (focused,) = _detect([picture], FocusingFinder(), {"threshold": 0.003})
    assert focused.pixels_processed < 0.5 * plain.pixels_processed
    assert focused.pixels_full == plain.pixels_full == plain.pixels_processed
    assert len(focused.scores) == len(plain.scores) == 6
    order = [np.lexsort(one.boxes_xyxy.round().T) for one in (plain, focused)]
    np.testing.assert_allclose(focused.boxes_xyxy[order[1]], plain.boxes_xyxy[order[0]], atol=0.2)


@pytest.mark.parametrize("focus", [{}, {"pixel_budget": 0.4}, {"threshold": [0.02, 0.3], "dilation": 1}])
def test_a_batch_gives_what_single_images_give(focus: dict) -> None:
    sizes = [(700, 500), (300, 420), (1, 1), (700, 500), (64, 30)]
    pictures = [
        _scene(k, size) if min(size) > 200 else np.zeros((size[1], size[0], 3), np.uint8)
        for k, size in enumerate(sizes)
    ]
    alone, together = FocusingFinder(), FocusingFinder()
    singles = [one for picture in pictures for one in _detect([picture], alone, focus)]
    for one, other in zip(singles, _detect(pictures, together, focus), strict=True):
        _assert_equal(one, other)
        assert one.pixels_processed == other.pixels_processed
    assert len(together.traces) < len(alone.traces), "chips of several images share batches"


def test_an_empty_image_costs_its_coarsest_level_alone() -> None:
    (none,) = _detect([np.zeros((500, 700, 3), np.uint8)], FocusingFinder(), {})
    assert (len(none.scores), none.pixels_processed) == (0, 384 * 256)


@given(seed=st.integers(0, 1000), budget=st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.8]))
@settings(max_examples=6, deadline=None)
def test_the_budget_holds_and_more_of_it_finds_no_less_of_the_densest_region(seed: int, budget: float) -> None:
    random = np.random.default_rng(seed)
    boxes = np.stack([*random.integers(0, [640, 440], (40, 2)).T], axis=1)
    picture = draw((700, 500), np.concatenate([boxes, boxes + 12], axis=1), np.zeros(40, int))
    focus = {"threshold": 0.01, "min_chip_px": 64}
    (free,) = _detect([picture], FocusingFinder(), focus)
    (bound,) = _detect([picture], FocusingFinder(), focus | {"pixel_budget": budget})
    (again,) = _detect([picture], FocusingFinder(), focus | {"pixel_budget": budget})
    _assert_equal(bound, again)
    assert bound.pixels_processed <= max(budget * bound.pixels_full, 384 * 256)
    assert bound.pixels_processed <= free.pixels_processed
    if free.pixels_processed <= budget * free.pixels_full * 0.5:
        _assert_equal(bound, free)


def test_the_budget_goes_to_the_densest_region() -> None:
    crowd = np.array([[10 + 24 * k, 10 + 24 * j] for k in range(4) for j in range(4)])
    lonely = np.array([[600, 400]])
    corners = np.concatenate([crowd, lonely])
    picture = draw((700, 500), np.concatenate([corners, corners + 12], axis=1), np.zeros(17, int))
    pyramid = Pyramid(levels=(PYRAMID.levels[0], Level(scale=0.5, infer_range_px=(40.0, None))))
    focus = {"threshold": 0.01, "min_chip_px": 128}
    (free,) = _detect([picture], FocusingFinder(), focus, pyramid)
    (bound,) = _detect([picture], FocusingFinder(), focus | {"pixel_budget": 0.11}, pyramid)
    assert (len(free.scores), len(bound.scores)) == (17, 16)
    assert bound.boxes_xyxy.max() < 150


def test_what_a_chip_cuts_is_dropped() -> None:
    """A long object of which only one end has focus: the chip shows a part of it, which is no detection."""

    class OneEnd(FocusingFinder):
        def outputs(self, images: Images, **wanted: bool) -> Outputs:
            given = super().outputs(images, **wanted)
            if given.focus is not None:
                given.focus[:, :, 3:] = 0
            return given

    picture = draw((800, 200), np.array([[20, 20, 700, 40]]), np.array([0]))
    pyramid = Pyramid(levels=(Level(scale=1.0), Level(scale=0.5)))
    (one,) = _detect([picture], OneEnd(), {}, pyramid)
    np.testing.assert_array_equal(one.levels, [1])
    np.testing.assert_allclose(one.boxes_xyxy, [[20, 20, 700, 40]], atol=0.3)


def test_chips_take_their_canvas_instead_of_padding_it() -> None:
    plan = CoarseToFine([(700, 500)], PYRAMID, AutoFocusConfig(), stride=STRIDE, window_px=1536, overlap=0.2)
    rounds = plan.rounds()
    probability = np.zeros((1, 16, 24), np.float32)
    probability[0, 5, 5] = 1
    plan.add(next(rounds), probability)
    (look,) = next(rounds)
    assert look.window.valid_wh == look.window.padded_wh == (128, 128)
    assert look.chip_xyxy == (*look.window.origin_xy, *(side + 128 for side in look.window.origin_xy))
    assert look.margin_px == 0.5 * STRIDE / 0.5
    assert not list(rounds.__next__()), "nothing was added, so that nothing is finer"


@given(seed=st.integers(0, 2**20), way=st.sampled_from(["cheapest", "joined"]))
@settings(max_examples=60, deadline=None)
def test_chips_never_cost_more_than_the_whole_level(seed: int, way: str) -> None:
    random = np.random.default_rng(seed)
    size = tuple(random.integers(20, 1200, 2).tolist())
    config = AutoFocusConfig.model_validate(
        {"chips": way, "threshold": 0.5, "min_chip_px": int(random.integers(1, 300))}
    )
    window_px = int(random.choice([128, 256, 1536]))
    plan = CoarseToFine([size], PYRAMID, config, stride=STRIDE, window_px=window_px, overlap=0.2)
    density = random.uniform(0, 0.3)
    for number, looks in enumerate(plan.rounds()):
        pixels = sum(look.window.padded_pixels for look in looks)
        assert pixels <= plan.full_pixels[0, plan.coarsest - number]
        for look in looks:
            shape = [math.ceil(side / STRIDE) for side in look.window.padded_wh[::-1]]
            plan.add([look], (random.random((1, *shape)) < density).astype(np.float32))


def test_an_object_in_two_chips_of_a_level_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of small objects that meet are looked at in chips that overlap; soft-NMS alone keeps both of a pair."""
    corners = np.array([[20 + 17 * k, 240] for k in range(38)] + [[20 + 17 * 19, 20 + 17 * k] for k in range(13)])
    picture = draw((700, 500), np.concatenate([corners, corners + 12], axis=1), np.zeros(len(corners), int))
    soft = {"merge": MergeConfig(), "window_px": 2048}

    def small(one: ImageDetections) -> int:
        return int((one.levels == 0).sum())

    (plain,) = _detect([picture], RectangleFinder(), None, **soft)
    (focused,) = _detect([picture], FocusingFinder(), {"threshold": 0.003}, **soft)
    assert small(focused) == small(plain) == len(corners)
    monkeypatch.setattr("sniper.inference.detect._JITTER_PX", math.inf)
    (doubled,) = _detect([picture], FocusingFinder(), {"threshold": 0.003}, **soft)
    assert small(doubled) > len(corners)


def test_windows_of_a_level_share_one_map() -> None:
    """Windows begin between cells: what one of them marks must not be lost."""
    plan = CoarseToFine([(300, 60)], PYRAMID, AutoFocusConfig(), stride=STRIDE, window_px=100, overlap=0.2)
    looks = next(plan.rounds())
    assert len(looks) == 2
    for look in looks:
        width = math.ceil(look.window.valid_wh[0] / STRIDE)
        one = np.zeros((1, 8, 8), np.float32)
        one[0, 0, width - 1] = 1
        plan.add([look], one)
    marked = np.flatnonzero(plan.maps[0][0])
    origins = [look.window.origin_xy[0] for look in looks]
    assert origins == [0, 50]
    assert set(marked) == {6, 9}


@pytest.mark.parametrize("proposes", [True, False])
def test_without_a_branch_small_proposals_or_detections_take_its_place(
    proposes: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Proposing(RectangleFinder):
        def propose(self, images: Images) -> list[Detections]:
            return [Detections(one.boxes, one.scores, torch.zeros_like(one.labels)) for one in self.detect(images)]

        def outputs(self, images: Images, *, proposals: bool = False, **others: bool) -> Outputs:
            return Outputs(self.detect(images), self.propose(images) if proposals else None)

    picture = _scene(3)
    with caplog.at_level(logging.WARNING, "sniper"):
        (one,) = _detect([picture], Proposing() if proposes else RectangleFinder(), {"threshold": 0.5})
    assert [record.getMessage() for record in caplog.records] == [
        f"{'Proposing' if proposes else 'RectangleFinder'} has no focus branch: "
        f"its small {'proposals' if proposes else 'detections'} say where finer levels are run, "
        "everywhere in an image that has none; small objects away from them are missed"
    ]
    assert 0 < len(one.scores) <= 6
    assert one.pixels_processed < 0.5 * one.pixels_full


@pytest.mark.parametrize("budget", [None, 0.5])
def test_without_a_branch_an_image_without_small_regions_is_run_everywhere(budget: float | None) -> None:
    """What is too small for the coarsest level leaves no region there, and plain inference finds it."""
    corners = np.array([[300, 200], [340, 220]])
    picture = draw((700, 500), np.concatenate([corners, corners + 8], axis=1), np.zeros(2, int))
    pyramid = Pyramid(levels=(Level(scale=1.0, infer_range_px=(0, 40)), Level(scale=0.25, infer_range_px=(40, None))))
    (plain,) = _detect([picture], RectangleFinder(), None, pyramid)
    (focused,) = _detect([picture], RectangleFinder(), {"threshold": 0.5, "pixel_budget": budget}, pyramid)
    assert len(plain.scores) == 2
    if budget is None:
        _assert_equal(focused, plain)
    else:
        assert 0.25 * focused.pixels_full < focused.pixels_processed <= budget * focused.pixels_full


def test_the_reference_detector_learns_where_to_look(tiny: Sniper) -> None:
    assert isinstance(tiny, FocusDetector)
    assert tiny.focus_stride == 16
    images = Images(torch.rand(2, 3, 128, 192), torch.tensor([[128, 192], [100, 90]]), torch.ones(2))
    found, _, focus, _ = tiny.outputs(images, focus=True)
    assert (len(found), focus.shape) == (2, (2, 8, 12))
    assert ((focus > 0) & (focus < 1)).all()
    for one, plain in zip(found, tiny.detect(images), strict=True):
        assert torch.equal(one.boxes, plain.boxes)
