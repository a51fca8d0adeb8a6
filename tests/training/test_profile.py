"""Where the time of a step goes: the trace of some steps, and shares that add up."""

import json
from pathlib import Path

import pytest
import torch
from tiny import RandomSource, TinyDetector

from devices import TRAIN_DEVICE
from sniper.training.config import TrainConfig
from sniper.training.loop import TrainResult, train
from sniper.training.profile import STEPS, WARM_UP, StepShares
from sniper.training.run import RunFolder


def _trained(folder: Path, *, profile: bool, **settings: object) -> TrainResult:
    torch.manual_seed(0)
    config = TrainConfig.model_validate({"steps": 12, "tensorboard": False, "device": TRAIN_DEVICE, **settings})
    return train(TinyDetector(), RandomSource(), config, RunFolder(folder), profile=profile)


def test_a_profiled_run_gives_the_same_weights_and_tells_where_its_time_went(tmp_path: Path) -> None:
    plain, profiled = (_trained(tmp_path / str(wanted), profile=wanted) for wanted in (False, True))
    weights = (result.evaluated.state_dict() for result in (plain, profiled))
    assert all(torch.equal(*pair) for pair in zip(*(state.values() for state in weights), strict=True))
    assert (plain.shares, plain.run.trace.exists()) == (None, False)
    shares = profiled.shares
    assert shares is not None
    assert (shares.steps, shares.forward is None) == (STEPS, False)
    assert sum(shares[2:]) == pytest.approx(1)
    assert min(shares[2:]) >= 0
    assert min(shares.waiting, shares.forward, shares.targets_and_losses, shares.backward, shares.update) > 0
    events = [event["name"] for event in json.loads(profiled.run.trace.read_text())["traceEvents"] if "name" in event]
    own = ["waiting", "losses", "forward: body", "forward: head", "backward", "update"]
    # The profiled steps go beyond the first epoch, whose end is waited for, too.
    assert {name: events.count(name) for name in own} == dict.fromkeys(own, STEPS) | {"waiting": STEPS + 1}
    assert shares.sentence() in profiled.run.log.read_text()


def test_a_step_of_several_batches(tmp_path: Path) -> None:
    result = _trained(tmp_path, profile=True, accumulate=2)
    assert result.shares is not None
    assert sum(result.shares[2:]) == pytest.approx(1)


@pytest.mark.parametrize(("steps", "profiled"), [(WARM_UP - 1, None), (WARM_UP, None), (WARM_UP + 2, 2)])
def test_a_run_that_ends_early(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, steps: int, profiled: int | None
) -> None:
    result = _trained(tmp_path, profile=True, steps=steps)
    assert result.finished
    assert (result.shares and result.shares.steps) == profiled
    assert result.run.trace.exists() == (profiled is not None)
    assert ("nothing is profiled" in caplog.text) == (profiled is None)


def test_compiled_parts_are_not_told_apart() -> None:
    shares = StepShares(5, 0.1, 0.2, None, 0.3, 0.4, 0.05, 0.05)
    assert "waiting for chips 20%, forward, targets and losses 30%, backward 40%" in shares.sentence()
