"""Deformable convolution against the original's recorded numbers."""

from functools import partial

import pytest
import torch
from torch.nn import functional

from devices import DEVICE
from recorded import GOLDEN, rounding
from sniper.detectors.original.deformable import DeformableConv, at_places, deformable_conv

CONVOLUTIONS = GOLDEN.cases("ops/deformable_convolution.npz")
UNITS = 32  # in the last place of the largest value: sums of hundreds of products in another order


def recorded(golden, case):
    data = golden.case("ops/deformable_convolution.npz", case)
    return {key: torch.from_numpy(array).to(DEVICE) for key, array in data.items()}


def torchvision_path(features, offset, weight, bias=None, *, stride=1, padding=0, dilation=1):
    """What a GPU runs, here on the CPU."""
    return at_places(features, offset, weight, bias, stride=stride, padding=padding, dilation=dilation)


@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("conv", [deformable_conv, torchvision_path])
def test_convolution_and_its_gradients(golden, case, conv):
    data = recorded(golden, case)
    _, padding, dilation, stride, groups, has_bias = data["params"].tolist()
    assert data["offset"].shape[1] == groups * 2 * 9
    names = ["data", "offset", "weight"] + ["bias"] * has_bias
    inputs = [data[name].requires_grad_() for name in names]
    out = conv(*inputs, stride=stride, padding=padding, dilation=dilation)
    torch.testing.assert_close(out, data["out"], rtol=0, atol=rounding(UNITS, data["out"].cpu().numpy()))
    found = torch.autograd.grad(out, inputs, data["grad_out"])
    for name, gradient in zip(names[:3], found, strict=False):
        expected = data[f"grad_{name}"]
        torch.testing.assert_close(gradient, expected, rtol=0, atol=rounding(UNITS, expected.cpu().numpy()))
    if has_bias:  # its gradient was not recorded
        torch.testing.assert_close(found[3], data["grad_out"].sum(dim=(0, 2, 3)))


@pytest.mark.parametrize("shape", [(1, 4, 1, 1), (2, 4, 1, 7), (1, 8, 5, 6)])
@pytest.mark.parametrize("reach", [0.3, 30.0])
def test_both_ways_agree(shape, reach):
    generator = torch.Generator().manual_seed(0)
    images, channels, height, width = shape
    features = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    offset = torch.randn(images, 36, height, width, generator=generator, dtype=torch.float64) * reach
    offset = (offset + (offset * 2).round() * (torch.rand(offset.shape, generator=generator) < 0.2)).requires_grad_()
    weight = torch.randn(3, channels, 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    inputs = (features, offset, weight)
    results = [conv(*inputs, padding=1) for conv in (deformable_conv, torchvision_path)]
    torch.testing.assert_close(*results)
    grad_out = torch.randn(results[0].shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(*(torch.autograd.grad(out, inputs, grad_out) for out in results))


def test_gradients_are_those_of_finite_differences():
    generator = torch.Generator().manual_seed(1)
    inputs = [
        torch.rand(shape, generator=generator, dtype=torch.float64) * 0.9 + 0.05
        for shape in ((1, 4, 4, 5), (1, 36, 4, 5), (2, 4, 3, 3), (2,))
    ]
    # Fast: along random directions, in place of each of 876 inputs on its own.
    conv = partial(deformable_conv, padding=1)
    assert torch.autograd.gradcheck(conv, [part.requires_grad_() for part in inputs], fast_mode=True)


def test_samples_far_outside_are_zero():
    offset = torch.full((1, 18, 4, 4), 100.0)
    out = deformable_conv(torch.ones(1, 2, 4, 4), offset, torch.ones(3, 2, 3, 3), torch.tensor([1.0, 2, 3]), padding=1)
    assert (out == torch.tensor([1.0, 2, 3]).view(3, 1, 1)).all()
    for wrong in (torch.nan, torch.inf, -torch.inf):
        for conv in (deformable_conv, torchvision_path):
            assert (conv(torch.ones(1, 2, 4, 4), offset * wrong, torch.ones(3, 2, 3, 3), padding=1) == 0).all()


def test_layer_starts_as_a_dilated_convolution_and_learns_its_offsets():
    layer = DeformableConv(8, 6, dilation=2, groups=4)
    features = torch.randn(2, 8, 9, 11)
    out = layer(features)
    torch.testing.assert_close(out, functional.conv2d(features, layer.weight, padding=2, dilation=2))
    out.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in layer.parameters())


def test_half_precision_is_computed_in_single():
    features, weight = torch.randn(1, 4, 5, 5).bfloat16(), torch.randn(2, 4, 3, 3)
    offset = torch.randn(1, 18, 5, 5)
    out = deformable_conv(features, offset, weight, padding=1)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, deformable_conv(features.float(), offset, weight, padding=1).bfloat16())
