"""Keeping the stride of a convolutional network from growing beyond a limit, by dilation."""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sniper.errors import RecipeError


class Reductions(NamedTuple):
    """Input px per cell in a network."""

    inputs: dict[str, int]  # at the input of every convolution and pooling layer, by name
    children: dict[str, tuple[int, int]]  # behind every direct child: px per cell, channels


def reductions(body: nn.Module) -> Reductions:
    """Measure ``body``, which takes (B, 3, H, W), by a dry run; its statistics stay as they are."""
    side = 128
    found = Reductions({}, {})

    def at_input(name: str, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        found.inputs[name] = side // arguments[0].shape[-1]

    def behind(name: str, module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        found.children[name] = (side // output.shape[-1], output.shape[1])

    layers = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
    hooks = [
        m.register_forward_pre_hook(partial(at_input, n)) for n, m in body.named_modules() if isinstance(m, layers)
    ]
    hooks += [child.register_forward_hook(partial(behind, name)) for name, child in body.named_children()]
    training = body.training
    with torch.no_grad():
        body.eval()(torch.zeros(1, 3, side, side))
    body.train(training)
    for hook in hooks:
        hook.remove()
    return found


def hold_stride(body: nn.Module, stride: int) -> None:
    """Let no layer go beyond ``stride``; filters behind a removed stride see as far as before, by dilation.

    Raises:
        RecipeError: a pooling layer stands beyond the stride.
    """
    before = reductions(body).inputs
    for name, module in body.named_modules():
        if name not in before:
            continue
        if not isinstance(module, nn.Conv2d):
            if before[name] >= stride:
                raise RecipeError(f"the pooling layer {name} cannot keep stride {stride}; try dilation='upsample'")
            continue
        kernel, step = module.kernel_size[0], module.stride[0]
        if before[name] * step <= stride or (kernel == 1 and step == 1):
            continue
        dilation = module.dilation[0] * max(1, before[name] // stride)
        step = max(1, stride // before[name])
        module.stride, module.dilation = (step, step), (dilation, dilation)
        padding = kernel // 2 * dilation
        module.padding = (padding, padding) if kernel % 2 else "same"
