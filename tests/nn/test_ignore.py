"""Which candidates are neither object nor background: against plain loops, and the numbers of the code before."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper import boxes as reference
from sniper.nn import overlaps
from sniper.nn.ignore import ignored_anchors, ignored_points, ignored_queries, ignored_regions
from sniper.structures import ObjectState

# Whole coordinates: overlaps are then exact fractions, and no rounding decides a threshold.
box = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 30), st.integers(1, 30)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
objects = st.lists(st.tuples(box, st.sampled_from(list(ObjectState))), max_size=6)
candidates = st.lists(st.tuples(box, st.booleans()), min_size=1, max_size=6)
IGNORE_IOU, CROWD_SHARE = 0.3, 0.45


def columns(found):
    boxes = torch.tensor([one for one, _ in found], dtype=torch.float32).view(1, -1, 4)
    return boxes, torch.tensor([int(kind) for _, kind in found]).view(1, -1)


def pairs(one, other):
    """IoU and share of ``one`` inside ``other``, in double precision."""
    iou = reference.iou(np.array([one], np.float64), np.array([other], np.float64))[0, 0]
    shared = reference.intersection(np.array([one], np.float64), np.array([other], np.float64))[0, 0]
    return iou, shared / ((one[2] - one[0]) * (one[3] - one[1]))


@settings(max_examples=60, deadline=None)
@given(objects, candidates)
def test_anchors(found, anchors):
    boxes, state = columns(found)
    fixed = torch.tensor([one for one, _ in anchors], dtype=torch.float32)[None]
    shared = overlaps.intersection(boxes, fixed)
    neither = ignored_anchors(
        overlaps.iou(boxes, fixed), shared, overlaps.area(fixed), state, ignore_iou=IGNORE_IOU, crowd_share=CROWD_SHARE
    )
    for (anchor, _), ours in zip(anchors, neither[0].tolist(), strict=True):
        expected = False
        for other, kind in found:
            iou, share = pairs(anchor, other)
            expected |= kind == ObjectState.IGNORED and iou > IGNORE_IOU
            expected |= kind == ObjectState.CROWD and share > CROWD_SHARE
        assert ours == expected


@settings(max_examples=60, deadline=None)
@given(objects.filter(bool), candidates)
def test_regions_and_queries(found, regions):
    boxes, state = columns(found)
    proposed = torch.tensor([one for one, _ in regions], dtype=torch.float32)[None]
    matched = torch.tensor([[flag for _, flag in regions]])
    iou = overlaps.iou(boxes, proposed)
    best = iou.masked_fill((state != ObjectState.VALID).unsqueeze(-1), -1).amax(dim=1)
    in_regions = ignored_regions(
        iou, overlaps.intersection(boxes, proposed), overlaps.area(proposed), state,
        best_learned=best, positive=matched, ignore_iou=IGNORE_IOU, crowd_share=CROWD_SHARE,
    )[0].tolist()  # fmt: skip
    in_queries = ignored_queries(
        proposed, boxes, state, matched, ignore_iou=IGNORE_IOU, crowd_share=CROWD_SHARE
    )[0].tolist()  # fmt: skip
    for (region, positive), ours, query in zip(regions, in_regions, in_queries, strict=True):
        learned, ignored, in_crowd = -1.0, 0.0, False
        for other, kind in found:
            overlap, share = pairs(region, other)
            learned = max(learned, overlap) if kind == ObjectState.VALID else learned
            ignored = max(ignored, overlap) if kind == ObjectState.IGNORED else ignored
            in_crowd |= kind == ObjectState.CROWD and share > CROWD_SHARE
        if learned != pytest.approx(ignored, abs=1e-6):  # equal overlaps are rounded either way
            assert ours == ((ignored > IGNORE_IOU and ignored > learned) or (in_crowd and not positive))
            assert query == (not positive and ((ignored > IGNORE_IOU and ignored > learned) or in_crowd))


@settings(max_examples=60, deadline=None)
@given(
    objects,
    st.lists(st.tuples(st.integers(0, 70), st.integers(0, 70), st.sampled_from([0, 8, 16])), min_size=1, max_size=8),
)
def test_points(found, points):
    boxes, state = columns(found)
    highs = {0: 8.0, 8: 16.0, 16: math.inf}
    where = torch.tensor([(x + 0.5, y + 0.5) for x, y, _ in points])
    range_px = torch.tensor([(float(low), highs[low]) for _, _, low in points])
    neither = ignored_points(where, boxes, state, range_px)[0].tolist()
    for (x, y, low), ours in zip(points, neither, strict=True):
        expected = False
        for (x1, y1, x2, y2), kind in found:
            sides = (x + 0.5 - x1, y + 0.5 - y1, x2 - x - 0.5, y2 - y - 0.5)
            inside = min(sides) > 0
            expected |= inside and kind == ObjectState.CROWD
            expected |= inside and kind == ObjectState.IGNORED and low < max(sides) <= highs[low]
        assert ours == expected


def test_nothing_is_ignored_where_nothing_is():
    none, state = torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.int64)
    matched = torch.tensor([[True, False, False]] * 2)
    assert not ignored_queries(torch.rand(2, 3, 4), none, state, matched).any()
    assert (
        ignored_points(torch.rand(5, 2), none, state, torch.tensor([[0.0, math.inf]] * 5)).tolist() == [[False] * 5] * 2
    )
    no_anchors = torch.zeros(2, 3, 0)
    left = ignored_anchors(
        no_anchors, no_anchors, torch.zeros(2, 0), torch.zeros(2, 3), ignore_iou=IGNORE_IOU, crowd_share=CROWD_SHARE
    )
    assert left.shape == (2, 0)


def test_batch_equals_single():
    random = torch.Generator().manual_seed(0)
    corner = torch.rand(3, 9, 2, generator=random) * 50
    boxes = torch.cat((corner, corner + 4 + torch.rand(3, 9, 2, generator=random) * 30), dim=2)
    state = torch.randint(-1, 3, (3, 5), generator=random)
    matched = torch.rand(3, 4, generator=random) > 0.7
    together = ignored_queries(boxes[:, 5:], boxes[:, :5], state, matched)
    points, range_px = torch.rand(50, 2, generator=random) * 80, torch.tensor([[4.0, 40.0]] * 50)
    in_points = ignored_points(points, boxes[:, :5], state, range_px)
    assert in_points.any()
    for row in range(3):
        one = slice(row, row + 1)
        assert torch.equal(together[one], ignored_queries(boxes[one, 5:], boxes[one, :5], state[one], matched[one]))
        assert torch.equal(in_points[one], ignored_points(points, boxes[one, :5], state[one], range_px))
