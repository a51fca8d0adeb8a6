"""Mask targets against the original's recorded ones, exactly."""

import numpy as np
import pytest
import torch

from devices import DEVICE
from recorded import GOLDEN
from sniper.detectors.original.mask_regions import mask_regions
from sniper.detectors.original.proposals import OriginalRegionTargets
from sniper.nn.mask_targets import ROW, encode_polygons, mask_targets

CASES = GOLDEN.cases("ops/mask_target.npz")


@pytest.mark.parametrize("case", CASES)
def test_encoded_polygons(golden, case):
    data = golden.case("ops/mask_target.npz", case)
    segments = np.split(data["poly_flat"], data["poly_seg_len"].cumsum()[:-1])
    ends = data["poly_segs_per_object"].cumsum()
    polygons = [segments[end - count : end] for end, count in zip(ends, data["poly_segs_per_object"], strict=True)]
    rows = encode_polygons(polygons, data["categories"].tolist(), tuple(data["crop"][:2]), float(data["scale"]))
    np.testing.assert_array_equal(rows, data["encoded"])


@pytest.mark.parametrize("case", CASES)
def test_masks(golden, case):
    data = golden.case("ops/mask_target.npz", case)
    boxes, objects, rows = (
        torch.from_numpy(part).to(DEVICE) for part in (data["rois"][:, 1:], data["mask_ids"], data["encoded"])
    )
    np.testing.assert_array_equal(mask_targets(rows, boxes, objects).cpu().numpy(), data["masks"])
    alone = torch.cat([mask_targets(rows, boxes[i : i + 1], objects[i : i + 1]) for i in range(len(boxes))])
    np.testing.assert_array_equal(alone.cpu().numpy(), data["masks"])


SQUARE = np.array([10.0, 10, 30, 10, 30, 30, 10, 30])


def test_regions_without_an_object_are_ignored():
    rows = torch.from_numpy(encode_polygons([[SQUARE], []], [3, 4], (0, 0), 1.0))
    boxes = torch.tensor([[10.0, 10, 30, 30], [10, 10, 30, 30], [10, 10, 30, 30], [0, 0, 40, 40]])
    masks = mask_targets(rows, boxes, torch.tensor([0, -1, 1, 0]))
    assert (masks[0] == 1).all()
    assert (masks[1] == -1).all()
    assert (masks[2] == 0).all()  # an object whose polygons were all dropped
    assert masks[3, 7:21, 7:21].all()
    assert masks[3].sum() == 14 * 14
    assert mask_targets(rows, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)).shape == (0, 28, 28)
    assert (mask_targets(torch.zeros(0, ROW), boxes, torch.full((4,), -1)) == -1).all()


def test_overlapping_segments_are_joined():
    rows = torch.from_numpy(encode_polygons([[SQUARE, SQUARE]], [0], (0, 0), 1.0))
    assert (mask_targets(rows, torch.tensor([[10.0, 10, 30, 30]]), torch.tensor([0])) == 1).all()


def test_segments_without_room_are_dropped_with_all_after_them():
    long, short, line = np.arange(400.0), np.arange(100.0), np.arange(4.0)
    rows = encode_polygons([[line, SQUARE, long, short, SQUARE], [], [np.arange(498.0)]], [7, 8, 9], (0, 0), 2.0)
    assert rows.shape == (3, ROW)
    assert rows[0, :4].tolist() == [7, 2, 8, 400]
    assert rows[0, 4:12].tolist() == (SQUARE * 2).tolist()
    assert (rows[0, 412:] == -1).all()
    assert rows[1, :3].tolist() == [8, 0, -1]
    assert rows[2, :3].tolist() == [9, 0, -1]
    assert encode_polygons([], [], (0, 0), 1.0).shape == (0, ROW)


def test_first_come_first_drawn():
    labels = torch.tensor([[0, 1, 0, 2], [3, 4, 5, 0]])
    boxes = torch.arange(32.0).view(2, 4, 4)
    targets = OriginalRegionTargets(boxes, labels, boxes, labels - 1, torch.tensor([4, 4]))
    chosen = mask_regions(targets, max_count=2)
    assert chosen.image.tolist() == [0, 0, 1, 1]  # the first chip's unused places go to the second
    assert chosen.labels.tolist() == [1, 2, 3, 4]
    assert chosen.objects.tolist() == [0, 1, 2, 3]
    assert torch.equal(chosen.boxes, boxes[[0, 0, 1, 1], [1, 3, 0, 1]])
