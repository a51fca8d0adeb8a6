"""Interruption, and resuming bit for bit."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import RandomSource, mean_score
from tiny_runs import QUICK, Stopping, StoppingEpoch, assert_same, start, state_of

from facts import facts
from sniper.errors import CheckpointError
from sniper.structures import Batch
from sniper.training.checkpoint import load_weights
from sniper.training.loop import TrainConfig, TrainResult
from sniper.training.run import RunFolder

SETTINGS = {
    "sgd, drops, average, two batches a step": {"optimizer": "sgd", "ema": 0.9, "accumulate": 2, "clip_norm": 1.0},
    "adamw, cosine": {"optimizer": "adamw", "schedule": "cosine", "learning_rate": 0.003},
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_two_pieces_equal_one(tmp_path: Path, name: str, number: signal.Signals) -> None:
    config = TrainConfig(**{**QUICK, **SETTINGS[name]}, epochs=3, evaluate_every=1)
    start(tmp_path / "one", config, evaluate=mean_score)
    _, first = start(tmp_path / "two", config, Stopping((1, 4), number), evaluate=mean_score)
    assert not first.finished
    assert 1 < first.epochs < 2
    assert first.epochs % 1 != 0, "must stop in the middle of an epoch"
    _, second = start(tmp_path / "two", config, evaluate=mean_score, resume=True)
    assert second.finished

    one, two = state_of(tmp_path / "one"), state_of(tmp_path / "two")
    for state in (one, two):
        for clock in ("minutes", "saved_minutes"):
            state["position"].pop(clock)
    assert_same(one, two)
    for weights in ("last", "best", *(["last-ema"] if config.ema else [])):
        a, b = (load_weights(tmp_path / part / f"{weights}.safetensors") for part in ("one", "two"))
        assert_same(a.weights, b.weights, weights)
        assert a.meta == b.meta
    rows = [RunFolder(tmp_path / part).read_metrics() for part in ("one", "two")]
    evaluations = [[(r["step"], r["eval/AP"]) for r in part if "eval/AP" in r] for part in rows]
    assert evaluations[0] == evaluations[1]
    assert len(evaluations[0]) == 3
    losses = [{r["step"]: r["loss"] for r in part if "loss" in r} for part in rows]
    stopped_rows = {first.step, *range(first.step, first.step + config.log_every)}
    assert all(losses[1][step] == losses[0][step] for step in losses[0] if step not in stopped_rows)
    assert len([r for r in rows[1] if "loss" in r]) == len(losses[1]), "no step twice"


def test_loader_that_dies_of_the_same_signal_loses_nothing(tmp_path: Path) -> None:
    class Dying(Stopping):
        def epoch(self, epoch: int, first_batch: int, rank: int, world_size: int) -> "DyingEpoch":
            return DyingEpoch(self, RandomSource.epoch(self, epoch, first_batch, rank, world_size), epoch, first_batch)

    class DyingEpoch(StoppingEpoch):
        def __iter__(self) -> Iterator[Batch]:
            for index, batch in enumerate(self.inner, self.first):
                if (self.number, index) == self.source.at:
                    signal.raise_signal(self.source.number)
                    raise RuntimeError("DataLoader worker exited unexpectedly")
                yield batch

    config = TrainConfig(**QUICK, epochs=2)
    whole, _ = start(tmp_path / "one", config)
    _, first = start(tmp_path / "two", config, Dying((0, 5), signal.SIGINT))
    assert (first.step, first.finished) == (5, False)
    pieces, _ = start(tmp_path / "two", config, resume=True)
    assert_same(dict(whole.state_dict()), dict(pieces.state_dict()))


def test_handlers_are_put_back_and_other_threads_train_too(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    done: list[TrainResult] = []
    config = TrainConfig(**QUICK, steps=2)
    thread = threading.Thread(target=lambda: done.append(start(tmp_path, config)[1]))
    thread.start()
    thread.join()
    assert done[0].finished
    start(tmp_path / "main", config)
    assert signal.getsignal(signal.SIGINT) is before


def test_resuming_a_run_without_checkpoint_starts_it(tmp_path: Path) -> None:
    _, result = start(tmp_path, TrainConfig(**QUICK, steps=3), resume=True)
    assert result.step == 3


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    config = TrainConfig(**QUICK, steps=3)
    once, _ = start(tmp_path, config, evaluate=mean_score)
    metrics = (tmp_path / "metrics.csv").read_text()
    again, result = start(tmp_path, config, evaluate=mean_score, resume=True)
    assert result.finished
    assert_same(dict(once.state_dict()), dict(again.state_dict()))
    assert (tmp_path / "metrics.csv").read_text() == metrics


def test_resuming_with_other_settings_warns_or_refuses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    start(tmp_path, TrainConfig(**QUICK, steps=3))
    _, longer = start(tmp_path, TrainConfig(**QUICK, steps=5), resume=True)
    assert longer.step == 5
    assert "1 changed settings, no longer the same run: steps 3 -> 5" in caplog.text
    with pytest.raises(CheckpointError, match=facts("sgd", "adamw")):
        start(tmp_path, TrainConfig(**QUICK, steps=9, optimizer="adamw"), resume=True)
