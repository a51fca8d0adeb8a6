"""Schedules as functions of progress and step, parameter groups, the weight average, settings."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny import TinyDetector

from sniper.training.config import TrainConfig
from sniper.training.optim import (
    build_average,
    build_optimizer,
    learning_rate,
    parameter_groups,
    update_average,
    with_rate_for,
)
from sniper.training.position import Position


def test_one_length() -> None:
    assert TrainConfig().epochs == 7
    assert TrainConfig(steps=3).epochs is None
    assert TrainConfig(**TrainConfig(minutes=2).model_dump()).minutes == 2
    with pytest.raises(ValidationError, match="got epochs and minutes"):
        TrainConfig(epochs=2, minutes=1)
    with pytest.raises(ValidationError, match="shares of the run"):
        TrainConfig(step_at=(5.33,))


def test_warm_up_and_drops_as_the_original() -> None:
    config = TrainConfig(
        epochs=7, step_at=(5.33 / 7,), warmup_steps=1000, warmup_max_share=1.0, warmup_start=0.0005 / 0.015
    )
    assert learning_rate(config, 0.0, 0) == pytest.approx(0.0005)
    assert learning_rate(config, 0.01, 500) == pytest.approx(0.5 * (0.0005 + 0.015))
    assert learning_rate(config, 0.02, 1000) == pytest.approx(0.015)
    assert learning_rate(config, 5.32 / 7, 90_000) == pytest.approx(0.015)
    assert learning_rate(config, 5.34 / 7, 91_000) == pytest.approx(0.0015)


def test_short_runs_warm_up_in_a_share_of_the_run() -> None:
    config = TrainConfig(steps=100, warmup_start=0)
    assert learning_rate(config, 0.05, 5) == pytest.approx(0.5 * config.learning_rate)
    assert learning_rate(config, 0.1, 10) == pytest.approx(config.learning_rate)
    assert learning_rate(TrainConfig(steps=9, warmup_steps=0), 0.0, 0) == config.learning_rate


@settings(max_examples=50, deadline=None)
@given(
    progress=st.floats(0, 1),
    step=st.integers(0, 10**6),
    schedule=st.sampled_from(["steps", "cosine"]),
    warmup=st.integers(0, 2000),
)
def test_the_rate_stays_between_zero_and_its_peak(progress: float, step: int, schedule: str, warmup: int) -> None:
    config = TrainConfig(schedule=schedule, warmup_steps=warmup)
    assert 0 <= learning_rate(config, progress, step) <= config.learning_rate * (1 + 1e-12)


def test_cosine_ends_at_zero() -> None:
    config = TrainConfig(schedule="cosine", warmup_steps=0)
    assert learning_rate(config, 0.5, 9) == pytest.approx(config.learning_rate / 2)
    assert learning_rate(config, 1.0, 9) == pytest.approx(0, abs=1e-12)


def test_biases_and_norms_do_not_decay() -> None:
    detector = TinyDetector()
    detector.head.bias.requires_grad_(False)
    names = {id(p): name for name, p in detector.named_parameters()}
    decayed, free = ([names[id(p)] for p in group["params"]] for group in parameter_groups(detector, TrainConfig()))
    assert decayed == ["body.0.weight", "body.4.weight", "head.weight"]
    assert free == ["body.0.bias", "body.1.weight", "body.1.bias", "body.4.bias"]
    scales = parameter_groups(detector, TrainConfig(decay="weights and norms"))[0]["params"]
    assert "body.1.weight" in [names[id(p)] for p in scales]


def test_optimisers() -> None:
    sgd = build_optimizer(TinyDetector(), TrainConfig(momentum=0.8))
    assert isinstance(sgd, torch.optim.SGD)
    assert [(g["momentum"], g["weight_decay"]) for g in sgd.param_groups] == [(0.8, 1e-4), (0.8, 0.0)]
    assert isinstance(build_optimizer(TinyDetector(), TrainConfig(optimizer="adamw")), torch.optim.AdamW)


def test_average_follows_weights_and_statistics() -> None:
    detector = TinyDetector()
    assert build_average(detector, TrainConfig()) is None
    average = build_average(detector, TrainConfig(ema=0.9))
    assert average is not None
    value = None
    for update in range(200):
        with torch.no_grad():
            detector.head.bias.fill_(float(update % 3))
            detector.body[1].running_mean.fill_(float(update % 3))
        update_average(average, detector, 0.9, update)
        decay = min(0.9, (1 + update) / (10 + update))
        value = float(update % 3) if value is None else decay * value + (1 - decay) * (update % 3)
    assert average.module.head.bias.tolist() == pytest.approx([value] * 5, abs=1e-5)
    assert average.module.body[1].running_mean.tolist() == pytest.approx([value] * 16, abs=1e-5)


def test_position_counts_epochs_of_different_length() -> None:
    config = TrainConfig(epochs=2, evaluate_every=0.5)
    at, due = Position(), []
    while not at.finished(config):
        epoch, total = at.epoch, 4 + 2 * at.epoch
        before, at = at, at.after_step(epoch, at.batch + 1, total, 8, 0.0)
        due += [at.epochs] if at.evaluation_due(before, config) else []
    assert (at.step, at.epoch, at.batch, at.chips) == (10, 2, 0, 80)
    assert due == [0.5, 1.0, 1.5, 2.0]
    assert math.isclose(Position(epoch=1, batch=3, num_batches=6).share(config), 0.75)


@pytest.mark.parametrize(
    ("optimizer", "chips", "rate"), [("sgd", 64, 0.04), ("sgd", 4, 0.0025), ("adamw", 64, 0.02), ("adamw", 4, 0.005)]
)
def test_the_rate_follows_the_chips_of_a_step_where_it_says_for_how_many_it_is(optimizer, chips, rate) -> None:
    config = TrainConfig(learning_rate=0.01, rate_batch=16, optimizer=optimizer)
    scaled = with_rate_for(config, chips)
    assert (scaled.learning_rate, scaled.rate_batch) == (pytest.approx(rate), chips)
    assert with_rate_for(scaled, chips) is scaled, "a resumed run has the rate that it had"
    assert with_rate_for(scaled, 16).learning_rate == pytest.approx(0.01)
    assert with_rate_for(config.model_copy(update={"rate_batch": None}), chips).learning_rate == 0.01
