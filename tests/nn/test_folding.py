"""Folding norms into convolutions: the same results, and nothing left behind."""

import pytest
import torch
import torchvision
from torch import nn

from sniper.nn.folding import folded


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
def test_same_results_and_every_tensor_is_the_one_it_was(name: str) -> None:
    model = used(getattr(torchvision.models, name)(weights=None)).double().eval()
    pixels = torch.rand(2, 3, 64, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    before = {key: (id(value), value.detach().clone()) for key, value in model.state_dict(keep_vars=True).items()}
    with torch.no_grad():
        plain = model(pixels)
        with folded(model):
            left = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
            quick = model(pixels)
    assert left == (0 if name == "mobilenet_v2" else 1), "a residual network's first norm stands alone"
    torch.testing.assert_close(quick, plain, rtol=1e-9, atol=1e-9)
    after = model.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(id(after[key]) == number and torch.equal(after[key], value) for key, (number, value) in before.items())


def test_norms_in_training_or_behind_something_else_stay() -> None:
    first, second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
    model = nn.Sequential(first, nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4), second, nn.BatchNorm2d(4))
    model.eval()
    model[1].train()
    with folded(model):
        assert [type(module).__name__ for module in model] == [
            "Conv2d", "BatchNorm2d", "ReLU", "BatchNorm2d", "Conv2d", "Identity",
        ]  # fmt: skip
    with pytest.raises(KeyError), folded(model):
        raise KeyError
    assert isinstance(model[5], nn.BatchNorm2d)
    second.register_forward_hook(lambda module, args, output: None)
    with folded(model):
        assert isinstance(model[5], nn.BatchNorm2d), "a hook wants what lies between"
