"""The library's losses by name, so that their sum is the loss that the library would minimise."""

import re
from typing import Any

from torch import Tensor

_LAYER = re.compile(r"_(aux_|dn_)?\d+$|_enc$")  # what the library appends: decoder layer, denoising group, first stage


def named_losses(losses: dict[str, Tensor], config: Any) -> dict[str, Tensor]:
    """``loss_ce`` or ``loss_vfl``, ``loss_bbox``, ``loss_giou``, ...: each summed over layers, with its weight.

    Args:
        losses: the library's ``loss_dict``. RT-DETR's and what comes from it are weighted already, others are not.
        config: the library's, with the weights.
    """
    summed: dict[str, Tensor] = {}
    for name, value in losses.items():
        kind = _LAYER.sub("", name)
        if kind == "cardinality_error":  # a number for the log, without a gradient
            continue
        weighted = value * _weight(kind, config)
        summed[kind] = summed[kind] + weighted if kind in summed else weighted
    return summed


def _weight(kind: str, config: Any) -> float:
    if hasattr(config, "weight_loss_bbox"):
        return 1.0
    if kind == "loss_ce":
        return float(getattr(config, "class_loss_coefficient", 1.0))
    return float(getattr(config, f"{kind.removeprefix('loss_')}_loss_coefficient"))
