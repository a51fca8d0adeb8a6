"""Initial weights of the layers that no pretrained network provides."""

from torch import nn


def initialise(layer: nn.Conv2d | nn.Linear, *, std: float) -> None:
    """Normal weights and zero biases."""
    nn.init.normal_(layer.weight, std=std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
