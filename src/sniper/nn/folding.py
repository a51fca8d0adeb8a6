"""Batch norm folded into the convolution before it, for a network that only runs and no longer trains.

A norm with stored statistics is a factor and an offset for each channel, which the convolution can apply by itself. On
a CPU the norms of a MobileNet take a third of the time of a forward pass.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck


class _Pair(NamedTuple):
    """A convolution and the norm that its result goes through, and nothing else."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d
    owner: nn.Module
    name: str  # of the norm in its owner


def fold_norms(network: nn.Module) -> None:
    """Let convolutions do the work of the norms behind them, in place and for good: for a private copy of a network.

    Only norms in evaluation mode, right behind a convolution in an ``nn.Sequential`` or in torchvision's residual
    blocks. Results differ by rounding alone. Not to be trained afterwards, nor saved.
    """
    for pair in [pair for pair in _pairs(network) if _foldable(pair)]:
        _fold(pair)


def _pairs(module: nn.Module) -> Iterator[_Pair]:
    for owner in module.modules():
        children = dict(owner.named_children())
        if isinstance(owner, nn.Sequential):
            for (_, conv), (name, norm) in pairwise(children.items()):
                if isinstance(conv, nn.Conv2d) and type(norm) is nn.BatchNorm2d:
                    yield _Pair(conv, norm, owner, name)
        elif isinstance(owner, BasicBlock | Bottleneck):
            for number in "123":
                first, second = children.get(f"conv{number}"), children.get(f"bn{number}")
                if isinstance(first, nn.Conv2d) and type(second) is nn.BatchNorm2d:
                    yield _Pair(first, second, owner, f"bn{number}")


def _foldable(pair: _Pair) -> bool:
    hooked = pair.conv._forward_hooks or pair.norm._forward_hooks  # somebody wants what lies between
    stored = not pair.norm.training and pair.norm.running_var is not None
    return stored and not hooked and pair.conv._compiled_call_impl is None


@torch.no_grad()
def _fold(pair: _Pair) -> None:
    conv, norm = pair.conv, pair.norm
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    factor = (variance + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight)
    offset = (0 if norm.bias is None else norm.bias) - mean * factor
    if conv.bias is not None:
        offset = offset + conv.bias * factor
    conv.weight = _still(conv.weight * factor.view(-1, 1, 1, 1))
    conv.bias = _still(offset)
    pair.owner._modules[pair.name] = nn.Identity()


def _still(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values, requires_grad=False)
