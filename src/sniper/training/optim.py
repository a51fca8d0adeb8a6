"""Optimiser, schedule and weight average."""

import math

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from sniper.errors import RecipeError
from sniper.training.config import TrainConfig


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, object]]:
    """Groups with and without weight decay, for each share of the learning rate (``rate_factor``).

    Weights have two or more dimensions; scales and biases have one.

    Raises:
        RecipeError: a name in ``rate_factors`` is that of no parameter.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    unused = set(config.rate_factors)
    for name, parameter in model.named_parameters():
        starts = [start for start in config.rate_factors if f"{name}.".startswith(f"{start.rstrip('.')}.")]
        unused.difference_update(starts)
        if not parameter.requires_grad:
            continue
        is_scale = name.rpartition(".")[2] == "weight"
        decays = parameter.ndim >= 2 or (is_scale and config.decay == "weights and norms")
        factor = config.rate_factors[max(starts, key=len)] if starts else 1.0
        groups.setdefault((factor, decays), []).append(parameter)
    if unused:
        raise RecipeError(
            f"train.rate_factors: no parameter of the detector begins with {min(unused)}; "
            f"they are named like {next(name for name, _ in model.named_parameters())}"
        )
    # In this order, so that a model without factors has its groups where they always were.
    order = sorted(groups, key=lambda kind: (kind[0] != 1, kind[0], not kind[1]))
    return [
        {"params": groups[kind], "weight_decay": config.weight_decay if kind[1] else 0.0, "rate_factor": kind[0]}
        for kind in order
    ]


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The configured optimiser over the parameters that need gradients."""
    groups = parameter_groups(model, config)
    for group in groups:
        group["remembers_steps"] = config.momentum_of == "steps"
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.momentum, 0.999))


def with_rate_for(config: TrainConfig, chips: int) -> TrainConfig:
    """The settings of a run with ``chips`` a step: where ``rate_batch`` is another number, the rate is scaled.

    In proportion for SGD (arXiv 1706.02677), by the square root for AdamW, whose steps do not shrink with the noise of
    the gradient (arXiv 2205.10287). So methods with different batches can be compared, and a larger batch needs no
    search.
    """
    if config.rate_batch is None or config.rate_batch == chips:
        return config
    factor = chips / config.rate_batch
    rate = config.learning_rate * (factor if config.optimizer == "sgd" else math.sqrt(factor))
    return config.model_copy(update={"learning_rate": rate, "rate_batch": chips})


def learning_rate(config: TrainConfig, progress: float, step: int) -> float:
    """The learning rate of a step: a pure function of the share of the run done and the steps done.

    ``progress`` is in [0, 1]. Warm-up multiplies the schedule and ends after ``warmup_steps`` or after the share
    ``warmup_max_share`` of the run, whichever comes first.
    """
    warm = 1.0 if config.warmup_steps == 0 else step / config.warmup_steps
    warm = max(warm, progress / config.warmup_max_share if config.warmup_max_share > 0 else 1.0)
    rise = config.warmup_start + (1 - config.warmup_start) * min(1.0, warm)
    if config.schedule == "cosine":
        fall = 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, progress))))
    else:
        fall = config.step_factor ** sum(progress >= at for at in config.step_at)
    return config.learning_rate * rise * fall


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group its share of the learning rate.

    PyTorch's momentum ``m = 0.9 m + g`` is multiplied by the rate of the day; MXNet's, of steps, is not. They are the
    same where ``m`` is multiplied by the old rate over the new whenever the rate changes.
    """
    for group in optimizer.param_groups:
        new = rate * group.get("rate_factor", 1.0)
        if group.get("remembers_steps") and group["lr"] != new and new > 0:
            states = (optimizer.state.get(parameter, {}) for parameter in group["params"])
            memory = [state["momentum_buffer"] for state in states if state.get("momentum_buffer") is not None]
            if memory:
                torch._foreach_mul_(memory, group["lr"] / new)
        group["lr"] = new


def build_average(model: nn.Module, config: TrainConfig) -> AveragedModel | None:
    """The running average of weights and buffers (BatchNorm statistics among them), or None when not wanted."""
    return None if config.ema is None else AveragedModel(model, use_buffers=True)


@torch.no_grad()
def update_average(average: AveragedModel, model: nn.Module, decay: float, updates: int) -> None:
    """One step of the average. The decay rises from 0.1, so that short runs are not tied to their first weights.

    What ``AveragedModel.update_parameters`` does, but for a copy of its counter to the device, which the host would
    wait for. Counters of the model are taken over as they are.
    """
    risen = min(decay, (1 + updates) / (10 + updates))
    own = [*average.module.parameters(), *average.module.buffers()]
    new = [*model.parameters(), *model.buffers()]
    first = bool(average.n_averaged == 0)  # which lies on the CPU
    pairs = [(one, other) for one, other in zip(own, new, strict=True) if one.is_floating_point()]
    torch._foreach_lerp_([one for one, _ in pairs], [other for _, other in pairs], 1.0 if first else 1 - risen)
    for one, other in zip(own, new, strict=True):
        if not one.is_floating_point():
            one.copy_(other)
    average.n_averaged += 1
