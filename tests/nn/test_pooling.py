"""Regions cut on the CPU are those of torchvision's RoIAlign, with their gradients."""

import pytest
import torch
from torchvision.ops import roi_align as torchvision_roi_align

from sniper.nn.pooling import roi_align


@pytest.mark.parametrize("shape", [(2, 5, 20, 31), (1, 3, 1, 1), (3, 4, 1, 9)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_same_as_torchvision(shape, layout):
    torch.manual_seed(0)
    features = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    corner = torch.rand(60, 2, dtype=torch.float64) * 600 - 100
    boxes = torch.cat((corner, corner + torch.rand(60, 2, dtype=torch.float64) * 300), dim=1)
    boxes[0] = 0
    boxes[1] = torch.tensor([-500.0, -500, -400, -400])
    boxes[2] = torch.tensor([0, 0, shape[3] * 16.0, shape[2] * 16.0])
    image = torch.randint(0, shape[0], (60,))
    regions = torch.cat((image.double().unsqueeze(1), boxes), dim=1)
    expected = torchvision_roi_align(features, regions, 7, 1 / 16, sampling_ratio=2, aligned=True)
    found = roi_align(features, image, boxes, stride=16, cells=7)
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    gradients = [torch.autograd.grad((cut * weight).sum(), features)[0] for cut in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_no_regions():
    features = torch.randn(1, 4, 8, 8, requires_grad=True)
    cut = roi_align(features, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), stride=16, cells=7)
    assert cut.shape == (0, 4, 7, 7)
    cut.sum().backward()
    assert (features.grad == 0).all()
