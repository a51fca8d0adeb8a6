"""Greedy suppression: torchvision's answer, and the same from the kernel of a GPU as from that of the CPU."""

import pytest
import torch
from torchvision.ops import nms

from devices import DEVICE
from sniper.nn.suppress import keep_greedily


def boxes_of(images, count, *, crowded):
    torch.manual_seed(count)
    corner = torch.rand(images, count, 2) * (40 if crowded else 400)
    return torch.cat((corner, corner + 5 + torch.rand(images, count, 2) * 100), dim=2)


@pytest.fixture
def device_kernel():
    """The kernel of a GPU; on the CPU it runs in Triton's interpreter."""
    return pytest.importorskip("sniper.nn.suppress_triton").keep_on_device


@pytest.mark.parametrize("crowded", [False, True])
def test_as_torchvision(crowded):
    boxes = boxes_of(3, 500, crowded=crowded)
    candidates = torch.tensor([500, 300, 0])
    kept, counts = keep_greedily(boxes, candidates, 500, 0.5)
    for own, number, index, count in zip(boxes, candidates, kept, counts, strict=True):
        expected = nms(own[:number], torch.arange(int(number), 0, -1).float(), 0.5)
        assert index[:count].tolist() == expected.tolist()
        assert not index[count:].any()


@pytest.mark.parametrize(("keep", "plus_one"), [(40, False), (300, False), (20, True)])
def test_the_kernel_of_a_gpu_keeps_the_same(device_kernel, keep, plus_one):
    """Block after block, with fewer candidates than a block, more kept than a block, and an early end."""
    boxes = torch.cat((boxes_of(2, 200, crowded=False), boxes_of(2, 200, crowded=True))).round()
    candidates = torch.tensor([200, 130, 200, 7])
    ours = keep_greedily(boxes, candidates, keep, 0.6, plus_one_sides=plus_one, plus_one_areas=plus_one)
    device = device_kernel(boxes.to(DEVICE), candidates.to(DEVICE), keep, 0.6, float(plus_one), float(plus_one))
    assert torch.equal(ours[1], device[1].cpu())
    assert torch.equal(ours[0], device[0].cpu())
    if keep == 300:
        assert int(device[1].max()) > 64


def test_nothing_to_keep(device_kernel):
    for keep in (
        keep_greedily,
        lambda *given: device_kernel(*(one.to(DEVICE) if torch.is_tensor(one) else one for one in given), 0.0, 0.0),
    ):
        kept, counts = keep(torch.zeros(2, 0, 4), torch.zeros(2, dtype=torch.int64), 0, 0.5)
        assert kept.shape == (2, 0)
        assert counts.tolist() == [0, 0]
