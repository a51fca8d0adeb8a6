"""What tells the weights of one detector from those of another."""

import hashlib

import torch
from torch import nn


def weights_digest(detector: nn.Module) -> str:
    """SHA-256, as hexadecimal, over the class of a detector and the names and values of its weights."""
    digest = hashlib.sha256(type(detector).__qualname__.encode())
    for name, value in sorted(detector.state_dict().items()):
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
