"""Batches as detectors of other libraries take them."""

import math

import pytest
import torch
import torchvision
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.anchor_utils import AnchorGenerator

from sniper.structures import Batch, Images, ObjectState


def _batch() -> Batch:
    """Two chips: a valid and an ignored object of class 0, and one that is padding; then class 0 and class 2."""
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return Batch(
        pixels, torch.tensor([[64, 64]] * 2), torch.ones(2),
        boxes=torch.tensor(
            [[[8.0, 8, 40, 40], [0, 0, 9, 9], [0, 0, 0, 0]], [[30, 20, 60, 60], [1, 1, 9, 9], [2, 2, 8, 8]]]
        ),
        labels=torch.tensor([[0, 0, -1], [0, 2, 2]]),
        state=torch.tensor([[ObjectState.VALID, ObjectState.IGNORED, ObjectState.EMPTY], [ObjectState.VALID] * 3]),
        range_px=torch.tensor([[0.0, math.inf]] * 2), chip_index=torch.arange(2),
    )  # fmt: skip


def test_targets_hold_the_valid_objects_with_labels_from_one() -> None:
    batch = _batch()
    first, second = batch.targets()
    assert first["boxes"].tolist() == [[8, 8, 40, 40]]
    assert first["labels"].tolist() == [1]
    assert second["labels"].tolist() == [1, 3, 3]
    assert [one["labels"].tolist() for one in batch.targets(first_label=0)] == [[0], [0, 2, 2]]
    assert batch.labels.tolist() == [[0, 0, -1], [0, 2, 2]], "the batch stays as it is"


def test_a_step_of_faster_rcnn_teaches_class_0_as_its_class_1() -> None:
    """Its class 0 is background: an object under that label teaches that nothing is there."""
    torch.manual_seed(0)
    backbone = torchvision.models.mobilenet_v3_small(weights=None).features[:4]
    backbone.out_channels = 24
    net = torchvision.models.detection.FasterRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(sizes=((32,),), aspect_ratios=((1.0,),)),
        box_roi_pool=torchvision.ops.MultiScaleRoIAlign(["0"], output_size=3, sampling_ratio=2),
        box_head=torchvision.models.detection.faster_rcnn.TwoMLPHead(24 * 9, 16),
        box_predictor=torchvision.models.detection.faster_rcnn.FastRCNNPredictor(16, 2),
    )
    net.transform.resize = lambda image, target: (image, target)
    net.roi_heads.fg_bg_sampler = BalancedPositiveNegativeSampler(1, 1.0)  # background trains only without an object
    batch = _batch()
    batch.state[1, 1:] = ObjectState.IGNORED  # one class, one object a chip
    bias = net.roi_heads.box_predictor.cls_score.bias
    before = bias.detach().clone()
    losses = net(list(batch.pixels), batch.targets())
    losses["loss_classifier"].backward()
    torch.optim.SGD([bias], lr=1.0).step()
    change = bias.detach() - before
    assert change[1] > 0.1
    assert change[0] < -0.1


@pytest.mark.parametrize("floating", [True, False])
def test_normalised_pixels_are_the_same_in_nhwc_order(floating: bool) -> None:
    pixels = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    shown = pixels / 255 if floating else pixels
    mean, std = torch.rand(3, 1, 1), torch.rand(3, 1, 1) + 0.1
    valid = torch.tensor([[5, 7], [3, 4]])
    expected = Images(shown, valid, torch.ones(2)).normalised(mean, std)
    nhwc = Images(shown.contiguous(memory_format=torch.channels_last), valid, torch.ones(2)).normalised(mean, std)
    assert torch.equal(nhwc, expected)
    assert nhwc.is_contiguous(memory_format=torch.channels_last)
    assert not nhwc[1, :, 3:].any()
    assert not nhwc[1, :, :, 4:].any()
    assert nhwc[0, :, 4:, 6:].all()
