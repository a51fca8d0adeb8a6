"""Convolutions that apply their activation: the same results in one pass."""

import pytest
import torch
import torchvision
from torch import nn

from sniper.nn.folding import fold_norms
from sniper.nn.fused_activation import ConvActivation, fuse_activations

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch is built without oneDNN")


def fused(network: nn.Module) -> int:
    """How many convolutions apply their activation."""
    return sum(isinstance(module, ConvActivation) for module in network.modules())


@torch.no_grad()
def test_the_results_are_the_same_behind_folded_norms() -> None:
    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v2(weights=None).eval()
    pixels = torch.rand(2, 3, 64, 96)
    fold_norms(network)
    plain = network(pixels)
    fuse_activations(network)
    assert fused(network) == 35, "the first, the last and two of each block, less the one that the first block lacks"
    torch.testing.assert_close(network(pixels), plain, rtol=1e-4, atol=1e-5)
    nhwc = network(pixels.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(nhwc, plain, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.LeakyReLU(0.1)])
def test_relu_and_an_empty_batch(activation: nn.Module) -> None:
    conv = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False)
    network = nn.Sequential(conv, nn.Identity(), activation).eval()
    pixels = torch.randn(2, 3, 9, 7)
    plain = network(pixels)
    fuse_activations(network)
    assert fused(network) == 1
    assert network[0].weight is conv.weight, "and it is a convolution still, for code that asks its weights"
    torch.testing.assert_close(network(pixels), plain)
    assert network(pixels[:0]).shape == (0, 4, 5, 4)


def test_what_somebody_looks_at_or_runs_otherwise_stays() -> None:
    class Backwards(nn.Sequential):
        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            return self[0](self[1](maps))

    def layers() -> list[nn.Module]:
        return [nn.Conv2d(3, 3, 1), nn.ReLU()]

    hooked = nn.Sequential(*layers())
    hooked[0].register_forward_hook(lambda module, args, output: None)
    network = nn.ModuleList(
        [
            hooked,
            Backwards(*layers()),
            nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()),
            nn.Sequential(nn.Conv2d(3, 3, 1), nn.GELU()),
            nn.Sequential(*layers()).double(),
            nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"), nn.ReLU()),
        ]
    )
    fuse_activations(network)
    assert fused(network) == 0
