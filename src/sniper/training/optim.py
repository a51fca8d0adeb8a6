"""Optimiser, schedule and weight average."""

import math

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sniper.training.config import TrainConfig


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, object]]:
    """Two groups, with and without weight decay. Weights have two or more dimensions; scales and biases have one."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_scale = name.rpartition(".")[2] == "weight"
        decays = parameter.ndim >= 2 or (is_scale and config.decay == "weights and norms")
        (decayed if decays else free).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The configured optimiser over the parameters that need gradients."""
    groups = parameter_groups(model, config)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.momentum, 0.999))


def learning_rate(config: TrainConfig, progress: float, step: int) -> float:
    """The learning rate of a step: a pure function of the share of the run done and the steps done.

    ``progress`` is in [0, 1]. Warm-up multiplies the schedule and ends after ``warmup_steps`` or after the share
    ``warmup_at_most`` of the run, whichever comes first.
    """
    warm = 1.0 if config.warmup_steps == 0 else step / config.warmup_steps
    warm = max(warm, progress / config.warmup_at_most if config.warmup_at_most > 0 else 1.0)
    rise = config.warmup_start + (1 - config.warmup_start) * min(1.0, warm)
    if config.schedule == "cosine":
        fall = 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, progress))))
    else:
        fall = config.step_factor ** sum(progress >= at for at in config.step_at)
    return config.learning_rate * rise * fall


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group the same learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def build_average(model: nn.Module, config: TrainConfig) -> AveragedModel | None:
    """The running average of weights and buffers (BatchNorm statistics among them), or None when not wanted."""
    return None if config.ema is None else AveragedModel(model, use_buffers=True)


def update_average(average: AveragedModel, model: nn.Module, decay: float, updates: int) -> None:
    """One step of the average. The decay rises from 0.1, so that short runs are not tied to their first weights."""
    risen = min(decay, (1 + updates) / (10 + updates))
    average.multi_avg_fn = get_ema_multi_avg_fn(risen)  # type: ignore[no-untyped-call]
    average.update_parameters(model)
