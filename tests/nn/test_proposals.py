"""Proposals: clipped, in range, suppressed per image, padded."""

import torch
from torchvision.ops import box_iou

from sniper.nn.config import ProposalConfig
from sniper.nn.proposals import propose
from sniper.nn.rpn import RegionMaps


def maps_of(scores):
    scores = torch.as_tensor(scores, dtype=torch.float32)
    return RegionMaps(scores, torch.zeros(*scores.shape, 4))


ANCHORS = torch.tensor([[0.0, 0, 50, 50], [2, 2, 52, 52], [60, 60, 160, 160], [-40, -40, 10, 10], [90, 90, 91, 91]])
CONTENT = torch.tensor([[100, 120]])


def test_clips_suppresses_and_drops_the_tiny():
    found = propose(maps_of([[3, 2, 1, 0, 9]]), ANCHORS, CONTENT, ProposalConfig(), before_nms=100)
    assert found.boxes[0].tolist() == [[0, 0, 50, 50], [60, 60, 120, 100], [0, 0, 10, 10], [0] * 4, [0] * 4]
    assert found.present[0].tolist() == [True, True, True, False, False]
    torch.testing.assert_close(found.scores[0, :3], torch.tensor([3.0, 1, 0]).sigmoid())


def test_range_applies_before_suppression():
    """The better box is out of range: it must not take the one in range with it."""
    range_px = torch.tensor([[0.0, 50.0]])
    inside = torch.tensor([[0.0, 0, 50, 50], [1, 1, 50, 50]])
    found = propose(maps_of([[3, 2]]), inside, CONTENT, ProposalConfig(), before_nms=10, range_px=range_px)
    assert found.boxes[0][found.present[0]].tolist() == [[1, 1, 50, 50]]


def test_images_do_not_suppress_each_other_and_batch_equals_single():
    torch.manual_seed(0)
    corner = torch.rand(300, 2) * 400
    anchors = torch.cat((corner, corner + 5 + torch.rand(300, 2) * 100), dim=1)
    scores = torch.randn(3, 300)
    content = torch.tensor([[512, 512], [200, 300], [1, 1]])
    config = ProposalConfig(keep=40)
    together = propose(maps_of(scores), anchors, content, config, before_nms=200)
    assert together.present.sum(dim=1).tolist()[0] == 40
    assert together.present.sum(dim=1).tolist()[2] == 0
    for i in range(3):
        alone = propose(maps_of(scores[i : i + 1]), anchors, content[i : i + 1], config, before_nms=200)
        kept = together.boxes[i][together.present[i]]
        assert torch.equal(kept, alone.boxes[0][alone.present[0]])
        assert (box_iou(kept, kept).fill_diagonal_(0) <= 0.7).all()
        assert (together.scores[i][together.present[i]].diff() <= 0).all()


def test_nothing_left():
    found = propose(maps_of([[1.0] * 5] * 2), ANCHORS, torch.tensor([[1, 1], [1, 1]]), ProposalConfig(), before_nms=5)
    assert found.boxes.shape == (2, 5, 4)
    assert not found.present.any()
    assert not found.scores.any()
