"""Folding norms into convolutions: the same results with fewer norms."""

import pytest
import torch
import torchvision
from torch import nn

from sniper.nn.folding import fold_norms


def used(model: nn.Module) -> nn.Module:
    """Statistics, factors and offsets that are not the initial ones."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low in ((module.running_mean, -0.2), (module.running_var, 0.5), (module.bias, -0.2)):
                assert values is not None
                values.data.copy_(torch.rand(values.shape, generator=generator) + low)
            module.weight.data.copy_(torch.rand(module.weight.shape, generator=generator) + 0.5)
    return model


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "resnet50"])
def test_the_results_are_the_same(name: str) -> None:
    model = used(getattr(torchvision.models, name)(weights=None)).double().eval()
    pixels = torch.rand(2, 3, 64, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain = model(pixels)
        fold_norms(model)
        quick = model(pixels)
    left = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert left == (0 if name == "mobilenet_v2" else 1), "a residual network's first norm stands alone"
    torch.testing.assert_close(quick, plain, rtol=1e-9, atol=1e-9)


def test_norms_in_training_or_behind_something_else_stay() -> None:
    def model() -> nn.Sequential:
        layers = (nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
        return nn.Sequential(*layers, nn.BatchNorm2d(4)).eval()

    one = model()
    one[1].train()
    fold_norms(one)
    assert [type(module).__name__ for module in one] == [
        "Conv2d", "BatchNorm2d", "ReLU", "BatchNorm2d", "Conv2d", "Identity",
    ]  # fmt: skip
    hooked = model()
    hooked[4].register_forward_hook(lambda module, args, output: None)
    fold_norms(hooked)
    assert isinstance(hooked[5], nn.BatchNorm2d), "a hook wants what lies between"
