"""The original's proposal operators against its recorded numbers."""

import numpy as np
import pytest
import torch

from devices import DEVICE
from recorded import GOLDEN, delta_rounding, rounding
from sniper.detectors.original.config import OriginalProposalConfig
from sniper.detectors.original.proposals import original_region_targets, propose_original
from sniper.nn.anchors import Anchors
from sniper.nn.box_deltas import REGION_WEIGHTS
from sniper.nn.config import AnchorConfig
from sniper.nn.rpn import RegionMaps
from sniper.nn.suppress import keep_greedily

INFERENCE = GOLDEN.cases("ops/multi_proposal.npz")
TRAINING = GOLDEN.cases("ops/multi_proposal_target.npz")
INCLUSIVE = (0.0, 0.0, 1.0, 1.0)  # half-open minus inclusive corners
UNITS = 8  # in the last place of the largest corner


def network_output(data, stride):
    """Maps and inclusive anchors as our network gives them; double logits keep the order of single probabilities."""
    deltas = torch.from_numpy(data["bbox_pred"]).to(DEVICE)
    images, channels, rows, columns = deltas.shape
    probability = (
        torch.from_numpy(data["cls_prob"]).to(DEVICE).double().view(images, 2, channels // 4, rows, columns)[:, 1]
    )
    maps = RegionMaps(
        torch.logit(probability).permute(0, 2, 3, 1).reshape(images, -1),
        deltas.permute(0, 2, 3, 1).reshape(images, -1, 4),
    )
    config = AnchorConfig(
        scales=tuple(map(float, data["scales"])), ratios=tuple(map(float, data["ratios"])), rounding="half_up"
    )
    anchors = Anchors(stride, config)((rows, columns)) - torch.tensor(INCLUSIVE)
    return maps, anchors.to(DEVICE), (rows, columns)


def proposals(data, **config):
    stride = int(data["params"][0])
    maps, anchors, map_hw = network_output(data, stride)
    info = torch.from_numpy(data["im_info"]).to(DEVICE)
    wanted = OriginalProposalConfig(**config)
    found = propose_original(maps, anchors, info[:, :2], info[:, 2], map_hw, stride, wanted)
    return type(found)(*(part.cpu() for part in found))


@pytest.mark.parametrize("case", INFERENCE)
def test_proposals_of_mxnet(golden, case):
    data = golden.case("ops/multi_proposal.npz", case)
    _, before, keep, iou, min_count = data["params"].tolist()
    found = proposals(data, semantics="mxnet", before_nms=before, keep=keep, nms_iou=iou, min_px=min_count)
    rois = data["upstream_rois"].reshape(*found.scores.shape, 5)
    assert found.present.all()
    np.testing.assert_allclose(found.boxes, rois[..., 1:], rtol=0, atol=rounding(UNITS, rois))
    np.testing.assert_allclose(found.scores, data["upstream_scores"].reshape(found.scores.shape), rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", INFERENCE)
def test_proposals_of_the_original(golden, case):
    data = golden.case("ops/multi_proposal.npz", case)
    found = proposals(data, keep=int(data["params"][2]))
    rois = data["fork_cpu_rois"].reshape(*found.scores.shape, 5)
    scores = data["fork_cpu_scores"].reshape(found.scores.shape)
    assert found.present.sum(dim=1).tolist() == data["fork_cpu_n_valid"].tolist()
    present = found.present.numpy()
    np.testing.assert_allclose(found.boxes.numpy()[present], rois[present][:, 1:], rtol=0, atol=rounding(UNITS, rois))
    np.testing.assert_allclose(found.scores.numpy()[present], scores[present], rtol=0, atol=1e-6)


def targets(data):
    stride, keep = data["params"].tolist()
    maps, anchors, _ = network_output(data, stride)
    content = torch.from_numpy(data["im_info"])[:, :2].to(DEVICE)
    truth = torch.from_numpy(data["gt_boxes"]).to(DEVICE)
    labels = torch.where(truth[..., 4] < 0, -1, truth[..., 4] - 1).long()
    limits = torch.from_numpy(data["valid_ranges"]).to(DEVICE)
    found = original_region_targets(maps, anchors, content, truth[..., :4], labels, limits, keep=keep)
    return type(found)(*(part.cpu() for part in found))


@pytest.mark.parametrize("case", TRAINING)
def test_what_the_second_stage_learns(golden, case):
    data = golden.case("ops/multi_proposal_target.npz", case)
    found = targets(data)
    assert found.found.tolist() == data["out_n_valid"].tolist()
    rois = data["out_rois"].reshape(*found.labels.shape, 5)
    np.testing.assert_allclose(found.boxes, rois[..., 1:], rtol=0, atol=rounding(UNITS, rois))
    np.testing.assert_array_equal(found.labels, data["out_labels"].reshape(found.labels.shape))
    weights = (found.labels > 0).unsqueeze(-1).expand(-1, -1, 4)
    np.testing.assert_array_equal(weights, data["out_bbox_weights"].reshape(found.target_deltas.shape))
    expected = data["out_bbox_targets"].reshape(-1, 4)
    held = found.labels.flatten().numpy() > 0
    objects = np.take_along_axis(data["gt_boxes"][..., :4], found.objects.clamp(min=0)[..., None].numpy(), axis=1)
    boxes, truth = found.boxes.reshape(-1, 4).numpy()[held] + INCLUSIVE, objects.reshape(-1, 4)[held] + INCLUSIVE
    limits = delta_rounding(UNITS, boxes, truth, expected[held], np.repeat(REGION_WEIGHTS, 2))
    ours = found.target_deltas.reshape(-1, 4).numpy()
    np.testing.assert_array_less(np.abs(ours - expected)[held], limits)
    np.testing.assert_array_equal(ours[~held & (expected == 0).all(axis=1)], 0)


def flat_maps(images, anchors, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return RegionMaps(
        torch.randn(images, anchors, generator=generator), torch.randn(images, anchors, 4, generator=generator) * 0.2
    )


@pytest.fixture
def grid():
    config = AnchorConfig(scales=(1, 2, 4), ratios=(0.5, 1, 2), rounding="half_up")
    return Anchors(16, config)((6, 8)) - torch.tensor(INCLUSIVE)


CONTENT = torch.tensor([[96, 128], [70, 90]])


@pytest.mark.parametrize("plus_one_areas", [True, False])
@pytest.mark.parametrize("keep", [1, 20, 500])
def test_suppression_is_that_of_its_definition(grid, plus_one_areas, keep):
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(3, len(grid), generator=generator).argsort(dim=1)
    boxes, candidates = grid[order].to(DEVICE), torch.tensor([len(grid), 17, 0], device=DEVICE)
    kept, counts = keep_greedily(boxes, candidates, keep, 0.4, plus_one_sides=True, plus_one_areas=plus_one_areas)
    assert kept.device == counts.device == boxes.device
    assert counts[2] == 0
    assert 0 < counts[1] <= min(17, keep)
    for image in range(3):
        alone = by_definition(boxes[image, : candidates[image]].cpu().numpy(), 0.4, float(plus_one_areas))[:keep]
        assert kept[image, : counts[image]].tolist() == alone
        assert not kept[image, counts[image] :].any()


def by_definition(boxes, iou, extra):
    """Best first: a box stays unless one that stays covers too much of it."""
    stay = []
    for index, (x1, y1, x2, y2) in enumerate(boxes):
        near = boxes[stay]
        sides = np.minimum((x2, y2), near[:, 2:]) - np.maximum((x1, y1), near[:, :2]) + 1
        shared = np.maximum(sides, 0).prod(axis=1)
        areas = (near[:, 2:] - near[:, :2] + extra).prod(axis=1) + (x2 - x1 + extra) * (y2 - y1 + extra)
        if not (shared / (areas - shared) > np.float32(iou)).any():
            stay.append(index)
    return stay


@pytest.mark.parametrize("semantics", ["sniper", "mxnet"])
def test_batch_is_its_images(grid, semantics):
    maps, scale = flat_maps(2, len(grid)), torch.tensor([1.0, 2.0])
    config = OriginalProposalConfig(semantics=semantics, keep=50)
    both = propose_original(maps, grid, CONTENT, scale, (6, 8), 16, config)
    for i in range(2):
        one = slice(i, i + 1)
        alone = propose_original(
            RegionMaps(maps.objectness[one], maps.deltas[one]), grid, CONTENT[one], scale[one], (6, 8), 16, config
        )
        for ours, single in zip(both, alone, strict=True):
            assert torch.equal(ours[one], single)
        inside = both.boxes[i][both.present[i] & (both.scores[i] >= 0)]
        assert (inside >= 0).all()
        assert (inside <= CONTENT[i].flip(0).repeat(2) - 1).all()


def test_nothing_to_propose():
    anchors = torch.tensor([[0.0, 0, 1, 1]])
    maps = RegionMaps(torch.zeros(1, 1), torch.zeros(1, 1, 4))
    scene = (maps, anchors, torch.tensor([[1, 1]]), torch.ones(1), (1, 1), 16)
    assert not propose_original(*scene, OriginalProposalConfig(keep=4)).present.any()
    repeated = propose_original(*scene, OriginalProposalConfig(semantics="mxnet", keep=4))
    assert repeated.present.all()
    assert (repeated.scores == -1).all()  # the only cell is not wholly inside the picture


@pytest.mark.parametrize("variant", ["box", "mask"])
@pytest.mark.parametrize("objects", [0, 1, 5])
def test_objects_fill_the_end(grid, variant, objects):
    boxes = torch.tensor([[4.0, 4, 33, 43]]).repeat(2, objects, 1) + torch.arange(objects).view(1, -1, 1) * 6
    labels = torch.arange(objects).repeat(2, 1)
    if objects:
        labels[1, -1] = -1  # one less in the second chip
    limits = torch.tensor([[0.0, 128.0], [1000.0, 2000.0]])
    found = original_region_targets(
        flat_maps(2, len(grid)), grid, CONTENT, boxes, labels, limits, keep=30, variant=variant
    )
    assert found.found[0] > 0
    assert found.found[1] == 0  # nothing is that large: all dummies, and no object in range
    rows = range(30 - objects, 30) if variant == "box" else range(29, 29 - objects, -1)
    for index, row in enumerate(rows):
        assert torch.equal(found.boxes[0, row], boxes[0, index])
        assert found.labels[0, row] == index + 1
        assert found.objects[0, row] == index
        torch.testing.assert_close(found.target_deltas[0, row, 2:], torch.zeros(2))
        torch.testing.assert_close(found.target_deltas[0, row, :2], torch.tensor([5 / 30, 5 / 40]))  # half a pixel off
    dummy = torch.arange(30) + (len(grid) if variant == "box" else 0)
    assert torch.equal(found.boxes[1, :, 0], (dummy % 100).float())
    assert torch.equal(found.objects >= 0, found.labels > 0)
