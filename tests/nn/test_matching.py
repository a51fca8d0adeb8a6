"""Anchor labels: the original's where we keep its rules, ours where it is corrected, and the meaning of "ignored"."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recorded import delta_rounding
from sniper import boxes as reference
from sniper.nn import box_deltas, matching
from sniper.nn.anchors import Anchors
from sniper.nn.config import AnchorConfig, AnchorMatchConfig
from sniper.nn.matching import match_anchors
from sniper.structures import ObjectState

CHIP = 512


def match(anchors, boxes, state, valid_hw=(CHIP, CHIP), padded_hw=(CHIP, CHIP), **settings_):
    boxes = torch.as_tensor(boxes, dtype=torch.float32).view(1, -1, 4)
    state = torch.as_tensor(state, dtype=torch.int64).view(1, -1)
    found = match_anchors(anchors, boxes, state, torch.tensor([valid_hw]), padded_hw, AnchorMatchConfig(**settings_))
    return found.labels[0], found.objects[0]


def grid(stride=16, scales=(2, 4, 8)):
    return Anchors(stride, AnchorConfig(scales=scales))((CHIP // stride, CHIP // stride))


# --- the original's labels -------------------------------------------------------------------------------------------

ANCHOR_SCALES = {16: (2, 4, 7, 10, 13, 16, 24), 32: (1, 2, 4, 8, 12)}


def original_objects(case):
    """Objects of a recorded case as the original sees them: rounded, clipped, inclusive, none under 10 px."""

    def into_chip(boxes):
        # In float32 at every step: ties of the final rounding depend on it.
        origin = np.tile(case["crop"][:2], 2).astype(np.float32)
        return np.clip(np.round((boxes - origin) * np.float32(case["scale"])), 0, CHIP - 1)

    objects = into_chip(case["boxes"][case["gtids"]])
    objects = objects[((objects[:, 2:] - objects[:, :2] + 1) >= 10).all(axis=1)]
    learned = into_chip(case["boxes"][case["nids"]])
    valid = (objects[:, None] == learned[None]).all(axis=2).any(axis=1)
    half_open = objects + np.array([0, 0, 1, 1])
    return half_open, np.where(valid, int(ObjectState.VALID), int(ObjectState.IGNORED))


def test_labels_and_targets_are_the_original_ones(golden):
    recorded = golden.load("chips/anchor_worker.npz")
    names = golden.cases("chips/anchor_worker.npz")
    for name in names:
        case = golden.case("chips/anchor_worker.npz", name)
        stride = int(recorded["config_" + name.split("_")[1]][0])
        anchors = Anchors(stride, AnchorConfig(scales=ANCHOR_SCALES[stride], rounding="half_even"))
        boxes = anchors((CHIP // stride, CHIP // stride))
        objects, state = original_objects(case)
        assert len(objects) == (case["all_gt_boxes"][:, 4] > 0).sum(), name
        # The original knows no padding and lets the chips of the coarsest level be all picture.
        labels, matched = match(boxes, objects, state)

        cells, per_cell = CHIP // stride, anchors.per_cell
        ours = labels.view(cells, cells, per_cell).permute(2, 0, 1).reshape(-1).numpy()
        np.testing.assert_array_equal(ours, case["all_labels"][0], err_msg=name)

        if len(objects) == 0:
            continue
        target_deltas = box_deltas.encode(boxes, torch.from_numpy(objects).float()[matched])
        channel, row, column = case["all_pids"]
        ours = target_deltas.view(cells, cells, per_cell * 4).permute(2, 0, 1)[channel, row, column]
        expected, anchor = case["all_bbox_targets"], (row * cells + column) * per_cell + channel // 4
        limits = delta_rounding(4, boxes[anchor].numpy(), objects[matched[anchor]], expected[:, None])
        errors = np.abs(ours.numpy() - expected)
        np.testing.assert_array_less(errors, limits[np.arange(len(expected)), channel % 4], err_msg=name)


# --- our rules, written out for one anchor at a time -----------------------------------------------------------------


def labels_by_hand(anchors, boxes, state, valid_hw, config):
    anchors, boxes = anchors.double().numpy(), np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    state = np.asarray(state)
    usable = (anchors[:, :2] >= -config.border_px).all(1) & (anchors[:, 2:] <= CHIP + config.border_px).all(1)
    usable &= (anchors[:, 0] < valid_hw[1]) & (anchors[:, 1] < valid_hw[0]) & (anchors[:, 2:] > 0).all(1)
    iou = reference.iou(anchors, boxes)
    visible = reference.area(np.clip(anchors, 0, (valid_hw[1], valid_hw[0]) * 2))
    inside = reference.intersection(anchors, boxes) / np.maximum(visible, 1e-9)[:, None]
    valid = iou[:, state == ObjectState.VALID] * usable[:, None]
    labels = np.where((valid < config.negative_iou).all(1), 0, -1)
    for column in valid.T:
        if column.max(initial=0) > 0:
            labels[np.isclose(column, column.max(), rtol=1e-6, atol=0)] = 1
    labels[(valid >= config.positive_iou).any(1)] = 1
    labels[(iou[:, state == ObjectState.IGNORED] > config.ignore_iou).any(1)] = -1
    labels[(inside[:, state == ObjectState.CROWD] > config.crowd_share).any(1)] = -1
    return np.where(usable, labels, -1)


# Whole coordinates: overlaps are then exact fractions, and no rounding decides a threshold.
box = st.tuples(st.integers(0, 480), st.integers(0, 480), st.integers(1, 300), st.integers(1, 300)).map(
    lambda b: (b[0], b[1], min(b[0] + b[2], CHIP), min(b[1] + b[3], CHIP))
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(box, st.sampled_from(list(ObjectState))), max_size=6), st.integers(1, CHIP))
def test_same_as_by_hand(objects, content_width):
    boxes = [(min(x1, content_width), y1, min(x2, content_width), y2) for (x1, y1, x2, y2), _ in objects]
    state = [int(s) for _, s in objects]
    anchors = Anchors(16, AnchorConfig(scales=(2, 4, 8), rounding="half_even"))((32, 32))
    labels, _ = match(anchors, boxes, state, valid_hw=(CHIP, content_width))
    expected = labels_by_hand(anchors, boxes, state, (CHIP, content_width), AnchorMatchConfig())
    np.testing.assert_array_equal(labels.numpy(), expected)


def test_parts_give_the_same_labels(monkeypatch):
    anchors = grid()
    torch.manual_seed(0)
    corner = torch.rand(3, 20, 2) * 400
    boxes = torch.cat((corner, corner + 5 + torch.rand(3, 20, 2) * 100), dim=2)
    state = torch.randint(-1, 3, (3, 20))
    content = torch.tensor([[512, 512], [300, 512], [40, 7]])
    whole = match_anchors(anchors, boxes, state, content, (CHIP, CHIP), AnchorMatchConfig())
    monkeypatch.setattr(matching, "MAX_PAIRS", (6000, 6000))
    parts = match_anchors(anchors, boxes, state, content, (CHIP, CHIP), AnchorMatchConfig())
    assert torch.equal(whole.labels, parts.labels)
    assert torch.equal(whole.objects, parts.objects)


def test_batch_equals_single():
    anchors = grid()
    torch.manual_seed(1)
    corner = torch.rand(4, 6, 2) * 400
    boxes = torch.cat((corner, corner + 20 + torch.rand(4, 6, 2) * 80), dim=2)
    state = torch.randint(-1, 3, (4, 6))
    content = torch.tensor([[512, 512], [100, 90], [1, 1], [512, 300]])
    together = match_anchors(anchors, boxes, state, content, (CHIP, CHIP), AnchorMatchConfig())
    for i in range(4):
        alone = match_anchors(
            anchors, boxes[i : i + 1], state[i : i + 1], content[i : i + 1], (CHIP, CHIP), AnchorMatchConfig()
        )
        assert torch.equal(together.labels[i], alone.labels[0])


@pytest.mark.parametrize("slots", [0, 2])
def test_no_objects_is_all_background_within_the_border(slots):
    anchors = grid()
    labels, _ = match(anchors, torch.zeros(slots, 4), [-1] * slots)
    near = (anchors[:, :2] >= -32).all(1) & (anchors[:, 2:] <= CHIP + 32).all(1)
    assert torch.equal(labels == 0, near)
    assert torch.equal(labels == -1, ~near)


def test_no_anchor_fits_the_canvas():
    labels, _ = match(torch.tensor([[-90.0, -90, 100, 100]]), [[0, 0, 9, 9]], [ObjectState.VALID], (10, 10), (10, 10))
    assert labels.tolist() == [-1]


def test_padding_has_no_label():
    anchors = grid()
    labels, _ = match(anchors, torch.zeros(0, 4), [], valid_hw=(100, 200))
    over_padding = (anchors[:, 0] >= 200) | (anchors[:, 1] >= 100)
    assert over_padding.any()
    assert (labels[over_padding] == -1).all()
    assert (labels[~over_padding & (anchors[:, :2] >= 0).all(1)] == 0).any()


def test_object_that_no_anchor_touches_makes_none_positive():
    """The original would make every anchor positive that does not touch it."""
    few = torch.tensor([[0.0, 0, 32, 32], [64, 64, 96, 96]])
    labels, _ = match(few, [[300, 300, 320, 320]], [ObjectState.VALID])
    assert labels.tolist() == [0, 0]


def test_best_anchor_of_a_tiny_object_is_positive():
    anchors = grid()
    labels, objects = match(anchors, [[100, 100, 103, 103]], [ObjectState.VALID])
    assert (labels == 1).any()
    assert (objects[labels == 1] == 0).all()


def test_ignored_overrides_positive():
    anchor = torch.tensor([[100.0, 100, 200, 200]])
    assert match(anchor, [[100, 100, 200, 200]], [ObjectState.VALID])[0].tolist() == [1]
    both = [[100, 100, 200, 200], [100, 100, 200, 150]]
    assert match(anchor, both, [ObjectState.VALID, ObjectState.IGNORED])[0].tolist() == [-1]


def test_inside_a_crowd_there_is_no_background():
    anchors = torch.tensor([[100.0, 100, 120, 120], [190, 100, 210, 120], [191, 100, 211, 120], [300, 300, 320, 320]])
    labels, _ = match(anchors, [[0, 0, 200, 200]], [ObjectState.CROWD])
    assert labels.tolist() == [-1, 0, 0, 0]  # exactly half inside is not more than half
    labels, _ = match(anchors - torch.tensor([1.0, 0, 1, 0]), [[0, 0, 200, 200]], [ObjectState.CROWD])
    assert labels.tolist() == [-1, -1, 0, 0]
