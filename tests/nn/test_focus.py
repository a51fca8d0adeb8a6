"""Focus labels against the recorded ones, and their loss and recall by definition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from sniper.nn.config import FocusConfig
from sniper.nn.focus import focus_labels, focus_logits, focus_loss
from sniper.nn.focus_recall import FocusRecall
from sniper.structures import ObjectState

CHIP, STRIDE = 512, 16
ORIGINAL = FocusConfig(overlap="last", loss="mean")


def recall_by_sorting(logits: torch.Tensor, labels: torch.Tensor, fraction: float) -> float:
    """Share of the focus cells (labels 1) among the best ``fraction`` of all cells; equal scores in order."""
    focus = (labels == 1).flatten()
    best = logits.flatten().sort(descending=True, stable=True).indices[: int(fraction * focus.numel())]
    return (focus[best].sum() / focus.sum()).item()


def labels_of(boxes, state=None, map_hw=(32, 32), config=ORIGINAL, **more):
    boxes = torch.as_tensor(boxes, dtype=torch.float32).view(1, -1, 4)
    state = torch.zeros(boxes.shape[:2], dtype=torch.int64) if state is None else torch.as_tensor([state])
    return focus_labels(boxes, state, STRIDE, map_hw, config, **more)[0]


def test_labels_are_the_original_ones(golden):
    """Its boxes are rounded and clipped; those beside the chip collapse to its border, as the loader prevents."""
    names = golden.cases("chips/anchor_worker.npz", ".*autofocus")
    kinds = set()
    for name in names:
        case = golden.case("chips/anchor_worker.npz", name)
        origin = np.tile(case["crop"][:2], 2).astype(np.float32)
        boxes = np.round((case["boxes"][case["gtids"]] - origin) * np.float32(case["scale"]))
        found = labels_of(np.clip(boxes, 0, CHIP - 1))
        np.testing.assert_array_equal(found.flatten(), case["all_focus_mask"], err_msg=name)
        kinds.update(found.unique().tolist())
    assert kinds == {-1, 0, 1}


def test_sizes_and_cells():
    found = labels_of([100.0, 100, 150, 140])
    assert torch.equal(torch.where(found == 1)[1].unique(), torch.arange(6, 11))
    assert torch.equal(torch.where(found == 1)[0].unique(), torch.arange(6, 10))
    for side, label in ((5, -1), (6, 1), (63, 1), (64, -1), (89, -1), (90, 0)):
        assert labels_of([100.0, 100, 100 + side, 100 + side])[7, 7] == label
    assert labels_of([500.0, 500, 540, 540])[31, 31] == 1
    assert not labels_of([600.0, 600, 640, 640]).any()


def test_crowds_empty_slots_and_padding():
    box = [32.0, 32, 60, 60]
    assert (labels_of(box, [int(ObjectState.IGNORED)]) == 1).any()
    assert not labels_of(box, [int(ObjectState.EMPTY)]).any()
    assert set(labels_of([0.0, 0, 300, 300], [int(ObjectState.CROWD)]).unique().tolist()) == {-1, 0}
    assert not labels_of(torch.zeros(0, 4)).any()
    shown = labels_of(box, valid_hw=torch.tensor([[100, 512]]))
    assert shown[6].tolist() == [0] * 32
    assert (shown[7:] == -1).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), objects=st.integers(0, 8), overlap=st.sampled_from(["small", "last"]))
def test_every_cell_is_that_of_its_objects(seed, objects, overlap):
    random = np.random.default_rng(seed)
    corner, side = random.uniform(-20, 200, (objects, 2)), random.uniform(1, 120, (objects, 2))
    boxes = np.concatenate((corner, corner + side), axis=1).astype(np.float32)
    state = random.integers(-1, 3, objects)
    expected = np.zeros((8, 12), np.int8)
    for box, kind in zip(boxes, state, strict=True):
        size = np.sqrt((box[2] - box[0]) * (box[3] - box[1]))
        if kind == -1 or (size >= 90 and kind != 2):
            continue
        x1, y1 = (max(int(np.floor(v / STRIDE)), 0) for v in box[:2])
        x2, y2 = (max(int(np.ceil(v / STRIDE)) + 1, 0) for v in box[2:])
        place, value = expected[y1:y2, x1:x2], 1 if kind != 2 and 5 < size < 64 else -1
        place[(place != 1) if overlap == "small" else slice(None)] = value
    config = FocusConfig(overlap=overlap)
    found = labels_of(boxes, state.tolist(), (8, 12), config)
    np.testing.assert_array_equal(found, expected)


def test_losses_by_definition():
    torch.manual_seed(0)
    pair, labels = torch.randn(2, 2, 3, 4, requires_grad=True), torch.randint(-1, 2, (2, 3, 4)).to(torch.int8)
    plain = functional.cross_entropy(pair, labels.long(), ignore_index=-1)
    torch.testing.assert_close(focus_loss(pair, labels, "mean"), plain)
    one = (pair[:, 1:] - pair[:, :1]).detach()
    torch.testing.assert_close(focus_loss(one, labels, "mean"), plain.detach())
    entropy = functional.cross_entropy(pair, labels.long().clamp(min=0), reduction="none")
    balanced = (entropy[labels == 1].mean() + entropy[labels == 0].mean()) / 2
    torch.testing.assert_close(focus_loss(pair, labels, "balanced"), balanced)
    for form in ("mean", "balanced"):
        nothing = focus_loss(pair, torch.full_like(labels, -1), form)
        nothing.backward()
        assert nothing == 0
        assert pair.grad is not None


# --- while it trains -------------------------------------------------------------------------------------------------


def share_of(recall, logits, labels, valid_hw=None):
    valid_hw = torch.tensor([[STRIDE * side for side in labels.shape[1:]]]) if valid_hw is None else valid_hw
    recall.add(logits, labels, valid_hw.expand(len(labels), 2), STRIDE)


@pytest.mark.parametrize("channels", [1, 2])
def test_counted_in_bins_the_recall_is_the_sorted_one(channels):
    random = torch.Generator().manual_seed(0)
    recall = FocusRecall(0.1)
    maps, marks = [], []
    for _ in range(5):
        labels = torch.randint(-1, 2, (2, 16, 24), generator=random).to(torch.int8)
        logits = torch.randn(2, channels, 16, 24, generator=random) * 3
        logits[:, -1] += 2 * (labels == 1)
        share_of(recall, logits, labels)
        maps.append(focus_logits(logits))
        marks.append(labels)
    found, total = recall.take().tolist()
    labels = torch.cat(marks)
    assert total == (labels == 1).sum()
    assert found / total == pytest.approx(recall_by_sorting(torch.cat(maps), labels, 0.1), abs=0.005)
    assert recall.take().tolist() == [0, 0], "each interval is its own"


def test_the_recall_of_a_known_map():
    logits, labels = torch.full((1, 1, 2, 5), -3.0), torch.zeros(1, 2, 5, dtype=torch.int8)
    labels[0, 0, :2] = 1
    logits[0, 0, 0, 0], logits[0, 0, 1, 4] = 5.0, 4.0
    for fraction, found in ((0.1, 1), (0.2, 1), (0.6, 1.5), (1.0, 2)):  # eight cells are as good as each other
        recall = FocusRecall(fraction)
        share_of(recall, logits, labels)
        assert recall.take().tolist() == pytest.approx([found, 2])
    recall = FocusRecall(0.2)
    share_of(recall, logits, labels, valid_hw=torch.tensor([[STRIDE, 5 * STRIDE]]))
    assert recall.take().tolist() == [1, 2], "padding is no cell, so that one of five is a fifth"
    broken = torch.full_like(logits, float("nan"))
    broken[0, 0, 0] = torch.tensor([float("inf"), 1e30, 0, float("-inf"), -1e30])
    share_of(recall, broken, labels)
    assert recall.take().tolist() == pytest.approx([2, 2])
    assert recall.name == "focus_recall_at_20"
