"""A run is saved before it is evaluated, and an evaluation that failed or was killed is made when it goes on."""

from pathlib import Path

import pytest
from tiny import mean_score
from tiny_runs import QUICK, assert_same, start, state_of
from torch import nn

from sniper.errors import DataError
from sniper.training.checkpoint import load_weights
from sniper.training.loop import Evaluated, TrainConfig
from sniper.training.run import RunFolder


class FailsAt:
    """An evaluation that meets an unreadable image the n-th time."""

    def __init__(self, call: int) -> None:
        self.left = call

    def __call__(self, detector: nn.Module) -> Evaluated:
        self.left -= 1
        if self.left == 0:
            raise DataError("b.jpg is cut off")
        return mean_score(detector)


@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_failed_evaluation_costs_no_training(tmp_path: Path, call: int, ema: float | None) -> None:
    config = TrainConfig(**QUICK, epochs=2, evaluate_every=1, ema=ema)
    whole, expected = start(tmp_path / "one", config, evaluate=mean_score)
    with pytest.raises(DataError, match="cut off"):
        start(tmp_path / "two", config, evaluate=FailsAt(call))
    kept = state_of(tmp_path / "two")["position"]
    assert kept["step"] == (7 if call == 1 else 15)
    assert kept["evaluation_owed"]
    assert load_weights(tmp_path / "two" / "last.safetensors").meta.step == kept["step"]
    pieces, result = start(tmp_path / "two", config, evaluate=mean_score, resume=True)
    assert result.finished
    assert (result.metrics, result.best, result.best_step) == (expected.metrics, expected.best, expected.best_step)
    assert_same(dict(whole.state_dict()), dict(pieces.state_dict()))
    evaluated = [
        [(row["step"], row["eval/AP"]) for row in RunFolder(tmp_path / part).read_metrics() if "eval/AP" in row]
        for part in ("one", "two")
    ]
    assert evaluated[0] == evaluated[1]
    best = [load_weights(tmp_path / part / "best.safetensors") for part in ("one", "two")]
    assert_same(best[0].weights, best[1].weights)
    assert best[0].meta == best[1].meta


def test_an_evaluation_killed_before_it_was_saved_is_in_the_log_once(tmp_path: Path) -> None:
    config = TrainConfig(**QUICK, epochs=1)
    run = RunFolder(tmp_path)
    before: list[bytes] = []

    def evaluate(detector: nn.Module) -> Evaluated:
        before.append(run.state.read_bytes())
        return mean_score(detector)

    start(tmp_path, config, evaluate=evaluate)
    rows = run.read_metrics()
    run.state.write_bytes(before[0])  # as a kill leaves it after the row of the evaluation is written
    start(tmp_path, config, evaluate=evaluate, resume=True)
    assert len(before) == 2
    assert run.read_metrics() == rows
