"""Negative chips: the rule, its thresholds, and what it must never do to an object."""

import dataclasses
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import COCO, SMALL, Scene, scenes, table_of
from windows import assign, covered_share, enough_left

from facts import facts
from sniper.boxes import iou
from sniper.chips.config import ChipConfig
from sniper.chips.epoch import mine
from sniper.chips.negative import NegativeConfig, Proposals, false_positives
from sniper.chips.positive import BLOCK_IMAGES, valid_objects
from sniper.chips.table import ChipKind, ChipTable
from sniper.data.table import AnnotationTable
from sniper.loader.image_chips import objects_in_chip
from sniper.structures import ObjectState
from sniper.validity import ScaledImages
from voc_cases import voc_table

CONFIG = ChipConfig()
LOOSE = NegativeConfig(min_proposals=2, min_proposals_finest=3)


def proposals_of(*images: list[tuple[float, ...]], scores: list[float] | None = None) -> Proposals:
    boxes = np.asarray([box for image in images for box in image], np.float32).reshape(-1, 4)
    offsets = np.concatenate(([0], np.cumsum([len(image) for image in images]))).astype(np.int64)
    return Proposals(offsets, boxes, np.ones(len(boxes), np.float32) if scores is None else np.float32(scores))


def clustered(table: AnnotationTable, seed: int, count: int = 60) -> Proposals:
    """Random boxes of all sizes in a few heaps, some beyond the image as results of other tools are."""
    rng = np.random.default_rng(seed)
    images = []
    for wh in table.sizes_wh:
        centres = rng.uniform(0, wh, (3, 2))[rng.integers(3, size=count)] + rng.normal(0, 6, (count, 2))
        half = rng.lognormal(2, 0.8, (count, 2)) / 2
        images.append(np.concatenate([centres - half, centres + half], axis=1).tolist())
    return proposals_of(*images, scores=rng.random(count * len(table)).tolist())


def same(a: ChipTable, b: ChipTable) -> bool:
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(ChipTable))


def valid_boxes(table: AnnotationTable, boxes: np.ndarray, image: int, chip_px: int) -> np.ndarray:
    """(N, L) by the rule for objects: proposals as the objects of a table of one image."""
    one = table_of(Scene(tuple(table.sizes_wh[image].tolist()), boxes.tolist()))
    pyramid = SMALL if chip_px == SMALL.chip_px else COCO
    return valid_objects(one, ScaledImages.of(one.sizes_wh, pyramid), CONFIG.size_rule(chip_px))


@given(
    drawn=st.lists(scenes(), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
    covered=st.sampled_from(["contained", "overlap"]),
    per_image=st.integers(0, 4),
    per_positive=st.sampled_from([0.0, 0.5, 2.0]),
    sampling=st.sampled_from(["uniform", "score"]),
)
@settings(max_examples=100, deadline=None)
def test_each_negative_chip_is_crowded_with_uncovered_proposals_and_hides_no_object(
    drawn: list[Scene], seed: int, covered: str, per_image: int, per_positive: float, sampling: str
) -> None:
    table = table_of(*drawn)
    proposals = clustered(table, seed)
    changes = {"covered": covered, "per_image": per_image, "per_positive": per_positive, "sampling": sampling}
    config = LOOSE.model_copy(update=changes)
    chips = mine(table, SMALL, CONFIG, seed=seed, epoch=0, proposals=proposals, negatives=config)
    without = mine(table, SMALL, CONFIG, seed=seed, epoch=0)
    negative = chips.kind == ChipKind.NEGATIVE
    positives = np.bincount(without.image_index[without.kind == ChipKind.POSITIVE], minlength=len(table))
    max_count = per_image + np.floor(per_positive * positives)
    assert (np.bincount(chips.image_index[negative], minlength=len(table)) <= max_count).all()
    assert np.array_equal(chips.origin_xy[~negative], without.origin_xy), "the other chips stay as they are"
    valid = valid_objects(table, ScaledImages.of(table.sizes_wh, SMALL), CONFIG.size_rule(64))
    for k in np.flatnonzero(negative):
        image, level, scale = int(chips.image_index[k]), int(chips.level[k]), float(chips.scale[k])
        window = np.concatenate([chips.origin_xy[k], chips.origin_xy[k] + 64])
        own = slice(*proposals.offsets[image : image + 2])
        boxes = np.clip(proposals.boxes_xyxy[own].astype(np.float64), 0, np.tile(table.sizes_wh[image], 2))
        fits = valid_boxes(table, boxes, image, 64)[:, level] & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        scaled_wh = boxes * scale
        inside = (scaled_wh[:, :2] >= window[:2] - 1e-4).all(axis=1) & (scaled_wh[:, 2:] <= window[2:] + 1e-4).all(
            axis=1
        )
        mates = (chips.image_index == image) & (chips.level == level) & (chips.kind == ChipKind.POSITIVE)
        shown = np.concatenate([chips.origin_xy[mates], chips.origin_xy[mates] + 64], axis=1)
        if covered == "contained":
            left = covered_share(scaled_wh, shown).max(axis=1, initial=0) < 0.5 + 1e-6
        else:
            best = assign(scaled_wh, shown)
            low = SMALL.train_ranges_px()[2, 0] if level == 2 else 0.0
            left = ~enough_left(best.part_wh / scale, min_part_px=1 + 1e-6, range_px=(low + 1e-6, np.inf))
        assert (fits & inside & left).sum() >= (3 if level == 0 else 2)

        listed = chips.object_rows[chips.object_offsets[k] : chips.object_offsets[k + 1]]
        rows = np.arange(*table.offsets[[image, image + 1]])
        box = table.boxes_xyxy[rows].astype(np.float64) * scale
        whole = (box[:, :2] >= window[:2] - 1e-5).all(axis=1) & (box[:, 2:] <= window[2:] + 1e-5).all(axis=1)
        assert listed.tolist() == rows[whole & valid[rows, level]].tolist()
        # The loader shows everything else of an object as ignored, so that none is background.
        objects = objects_in_chip(table, chips, int(k))
        assert (objects.state != ObjectState.EMPTY).all()
        shown_px = np.minimum(box[:, 2:], window[2:]) - np.maximum(box[:, :2], window[:2])
        assert len(objects.state) >= (shown_px.min(axis=1, initial=np.inf) >= 1 + 1e-4).sum()


def test_the_thresholds_are_inclusive_and_the_finest_level_has_its_own() -> None:
    table = table_of(Scene((640, 480)))
    for size, level, min_proposals in ((20, 0, 26), (100, 1, 11), (400, 2, 11)):
        for count, expected in ((min_proposals - 1, 0), (min_proposals, 1)):
            proposals = proposals_of([(10, 10, 10 + size, 10 + size)] * count)
            chips = mine(table, COCO, ChipConfig(background_per_image=0), seed=0, epoch=0, proposals=proposals)
            assert (chips.kind == ChipKind.NEGATIVE).sum() == expected, f"{count} of {size} px"
            assert chips.level.tolist() == [level] * expected


def test_contained_and_overlap_differ_in_boxes_that_a_positive_chip_just_touches() -> None:
    table = table_of(Scene((2000, 500), [(10, 10, 60, 60)]))
    first = mine(table, COCO, CONFIG, seed=3, epoch=0)
    edge = float((first.origin_xy[0, 0] + 512) / first.scale[0])  # the one fine chip's right side, original px
    proposals = proposals_of([(edge - 4, 20, edge + 26, 50)] * 30)
    kinds = {}
    for covered in ("contained", "overlap"):
        config = NegativeConfig(covered=covered)
        chips = mine(table, COCO, CONFIG, seed=3, epoch=0, proposals=proposals, negatives=config)
        kinds[covered] = (chips.kind == ChipKind.NEGATIVE).sum()
    assert kinds == {"contained": 1, "overlap": 0}


def test_the_choice_changes_with_the_epoch_and_follows_scores_when_asked() -> None:
    table = table_of(Scene((3000, 2000)))
    heaps = [(200 + 800 * i, 300 + 800 * j) for i in range(3) for j in range(2)]
    boxes = [(x + d, y, x + d + 30, y + 30) for x, y in heaps for d in range(30)]
    scores = [0.9 if n < 30 else 0.01 for n in range(len(boxes))]
    proposals = proposals_of(boxes, scores=scores)
    seen: dict[str, list[int]] = {"uniform": [], "score": []}
    for sampling, heap in seen.items():
        config = NegativeConfig(sampling=sampling, per_image=1)
        for epoch in range(40):
            chips = mine(table, COCO, CONFIG, seed=0, epoch=epoch, proposals=proposals, negatives=config)
            k = int(np.flatnonzero(chips.kind == ChipKind.NEGATIVE)[0])
            low = chips.origin_xy[k] / chips.scale[k]
            inside = [i for i, (x, y) in enumerate(heaps) if low[0] <= x < low[0] + 171 and low[1] <= y < low[1] + 171]
            heap += inside
    assert set(seen["uniform"]) == set(range(6))
    assert seen["score"].count(0) > 30 > seen["uniform"].count(0)


def test_all_images_together_give_at_most_a_share_of_the_positive_chips() -> None:
    table = table_of(*[Scene((150, 120), [(10, 10, 40, 40)])] * 10, *[Scene((150, 120))] * 40)
    # The last image's false positives are the worst.
    heaps = [[(90 + d, 70, 110 + d, 90) for d in range(4)] for _ in range(50)]
    proposals = proposals_of(*heaps, scores=[0.02] * 4 * 49 + [0.9] * 4)
    config = ChipConfig(background_per_image=0)

    def drawn(max_count: float | None, epoch: int, sampling: str = "uniform") -> ChipTable:
        few = NegativeConfig(
            min_proposals=2, min_proposals_finest=2, per_image=1, max_per_positive=max_count, sampling=sampling
        )
        return mine(table, SMALL, config, seed=0, epoch=epoch, proposals=proposals, negatives=few)

    every = drawn(None, 0)
    positives = int((every.kind == ChipKind.POSITIVE).sum())
    assert (every.kind == ChipKind.NEGATIVE).sum() == 50 > 0.5 * positives
    some = drawn(0.5, 0)
    hard = np.flatnonzero(some.kind == ChipKind.NEGATIVE)
    assert len(hard) == round(0.5 * positives)
    places = {(int(every.image_index[k]), *every.origin_xy[k].tolist()) for k in range(len(every))}
    assert {(int(some.image_index[k]), *some.origin_xy[k].tolist()) for k in hard} <= places
    assert same(some, drawn(0.5, 0))
    assert same(every, drawn(100.0, 0))
    assert not (drawn(0.0, 0).kind == ChipKind.NEGATIVE).any()
    seen = {sampling: [0] * 50 for sampling in ("uniform", "score")}
    for sampling, counts in seen.items():
        for epoch in range(40):
            chips = drawn(0.5, epoch, sampling)
            for image in chips.image_index[chips.kind == ChipKind.NEGATIVE]:
                counts[image] += 1
    assert min(seen["uniform"]) > 0
    assert seen["score"][-1] == 40 > seen["uniform"][-1]


def test_any_number_of_threads_gives_the_same_chips(monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of(*[Scene((150, 120), [(10, 10, 40, 40)])] * (BLOCK_IMAGES + 20))
    one = clustered(table_of(Scene((150, 120))), 5)
    offsets = np.arange(len(table) + 1) * 60
    proposals = Proposals(offsets, np.tile(one.boxes_xyxy, (len(table), 1)), np.tile(one.scores, len(table)))
    made, fewer = [], []
    for threads in (1, 3):
        monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", threads)
        made.append(mine(table, SMALL, CONFIG, seed=1, epoch=2, proposals=proposals, negatives=LOOSE))
        few = LOOSE.model_copy(update={"max_per_positive": 0.3})
        fewer.append(mine(table, SMALL, CONFIG, seed=1, epoch=2, proposals=proposals, negatives=few))
    assert same(*made)
    assert same(*fewer)
    assert (made[0].kind == ChipKind.NEGATIVE).sum() > len(table)
    alone = mine(
        table.select([7]), SMALL, CONFIG, seed=1, epoch=2, proposals=one, negatives=LOOSE
    )  # an image among others gives what it gives alone
    here = made[0].image_index == 7
    assert np.array_equal(alone.origin_xy, made[0].origin_xy[here])


def test_false_positives_are_good_enough_among_the_best_and_on_no_object() -> None:
    table = table_of(
        Scene((200, 200), [(10, 10, 50, 50), (100, 100, 180, 180)], [False, True]), Scene((200, 200)), Scene((9, 9))
    )
    proposals = proposals_of(
        [(10, 10, 50, 48), (10, 10, 50, 25), (110, 110, 120, 120), (60, 60, 90, 90), (0, 150, 30, 180)],
        [(0, 0, 9, 9), (1, 1, 9, 9), (2, 2, 9, 9)],
        [],
        scores=[0.9, 0.8, 0.7, 0.2, 0.05, 0.5, 0.5, 0.5],
    )
    assert false_positives(table, proposals, NegativeConfig(found_iou=None)) is proposals
    left = false_positives(table, proposals, NegativeConfig())
    assert left.offsets.tolist() == [0, 3, 6, 6]
    assert left.scores.tolist() == pytest.approx([0.8, 0.2, 0.05, 0.5, 0.5, 0.5])
    assert (iou(left.boxes_xyxy[:3], table.boxes_xyxy[:1]) < 0.5).all()
    best = false_positives(table, proposals, NegativeConfig(max_proposals=2, found_iou=None))
    assert best.offsets.tolist() == [0, 2, 4, 4], "of equal scores, the first"
    assert best.boxes_xyxy[2:, 0].tolist() == [0, 1]
    assert false_positives(table, proposals, NegativeConfig(min_score=0.1, found_iou=None)).offsets.tolist() == [
        0,
        4,
        7,
        7,
    ]
    assert false_positives(table, proposals, NegativeConfig(empty_images=False)).offsets.tolist() == [0, 3, 3, 3]
    with pytest.raises(ValueError, match=facts("proposals", 3, "images", 1)):
        false_positives(table.select([0]), proposals, NegativeConfig())


def test_no_proposals_and_bad_numbers_are_harmless() -> None:
    table = table_of(Scene((640, 480), [(10, 10, 60, 60)]), Scene((640, 480)))
    nothing = proposals_of([], [])
    assert same(
        mine(table, COCO, CONFIG, seed=0, epoch=0, proposals=nothing), mine(table, COCO, CONFIG, seed=0, epoch=0)
    )
    nan = float("nan")
    bad = proposals_of([], [(nan, 0, 30, 30), (5, 5, 5, 5), (30, 30, 10, 10), (700, 500, 800, 600)] * 30)
    chips = mine(table, COCO, CONFIG, seed=0, epoch=0, proposals=bad)
    assert not (chips.kind == ChipKind.NEGATIVE).any()


def test_a_proposal_in_a_difficult_object_is_a_false_positive_unless_it_finds_it(tmp_path: Path) -> None:
    table = voc_table(tmp_path / "voc", ((100, 100, 180, 180), "difficult"))
    proposals = proposals_of([(110, 110, 137, 137), (100, 100, 180, 176)])
    left = false_positives(table, proposals, NegativeConfig())
    assert left.boxes_xyxy.tolist() == [[110, 110, 137, 137]]
