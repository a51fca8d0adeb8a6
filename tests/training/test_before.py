"""What comes before an epoch and before the first step: once, and not in the time of training."""

import signal
import time
from pathlib import Path

import pytest
import torch
from tiny import RandomEpoch, RandomSource, mean_score
from tiny_runs import QUICK, Stopping, assert_same, start
from torch import nn

from devices import bit_for_bit
from sniper.errors import DataError, RecipeError
from sniper.training.loop import Evaluated, TrainConfig
from sniper.training.run import RunFolder


class Slow:
    """A preparation of epochs that takes time, as looking for negatives does."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.epochs = seconds, []

    def __call__(self, epoch: int, detector: nn.Module) -> None:
        self.epochs.append(epoch)
        torch.rand(3)  # it may draw random numbers
        time.sleep(self.seconds)


@bit_for_bit
def test_what_comes_before_an_epoch_is_seen_once_an_epoch_and_takes_no_time_of_training(tmp_path: Path) -> None:
    config = TrainConfig(**QUICK, epochs=3)
    before = Slow(0.3)
    began = time.monotonic()
    prepared, result = start(tmp_path / "prepared", config, before_epoch=before)
    assert before.epochs == [0, 1, 2]
    assert time.monotonic() - began - 60 * result.minutes > 3 * before.seconds
    rows = RunFolder(tmp_path / "prepared").read_metrics()
    assert rows[-1]["minutes"] == pytest.approx(result.minutes, abs=1e-6)
    seconds = [60 * (row["minutes"] - at) for row, at in zip(rows, [0, *(r["minutes"] for r in rows)], strict=False)]
    chips = sum(row["chips_per_s"] * each for row, each in zip(rows, seconds, strict=True))
    assert chips == pytest.approx(4 * 24, rel=0.1), "chips/s are those of the seconds of training"
    plain, _ = start(tmp_path / "plain", config)
    assert_same(dict(plain.state_dict()), dict(prepared.state_dict()))

    again = Slow(0.0)
    start(tmp_path / "prepared", config, before_epoch=again, resume=True)
    assert again.epochs == [], "nothing is left to train"
    _, first = start(tmp_path / "two", config, Stopping((1, 4), signal.SIGINT), before_epoch=again)
    assert 1 < first.epochs < 2
    _, second = start(tmp_path / "two", config, before_epoch=again, resume=True)
    assert second.finished
    assert again.epochs == [0, 1, 1, 2], "resuming prepares the epoch in which it goes on"


def test_a_run_of_minutes_spends_them_on_training(tmp_path: Path) -> None:
    before = Slow(0.1)
    began = time.monotonic()
    _, result = start(tmp_path, TrainConfig(**QUICK, minutes=0.005), RandomSource(3, grows=False), before_epoch=before)
    assert result.finished
    assert result.minutes >= 0.005
    assert time.monotonic() - began - 60 * result.minutes > len(before.epochs) * before.seconds


@bit_for_bit
def test_the_evaluation_is_rehearsed_before_the_first_step_of_a_new_run(tmp_path: Path) -> None:
    config = TrainConfig(**QUICK, epochs=2, ema=0.9)
    seen: list[tuple[bool, int]] = []

    def rehearsal(detector: nn.Module) -> Evaluated:
        seen.append((detector.training, len(RunFolder(tmp_path / "run").read_metrics())))
        time.sleep(0.3)
        return mean_score(detector)

    began = time.monotonic()
    detector, result = start(tmp_path / "run", config, evaluate=mean_score, rehearsal=rehearsal)
    assert seen == [(False, 0)]
    assert time.monotonic() - began - 60 * result.minutes > 0.3
    plain, _ = start(tmp_path / "plain", config, evaluate=mean_score)
    assert_same(dict(plain.state_dict()), dict(detector.state_dict()))
    start(tmp_path / "run", config.model_copy(update={"epochs": 3.0}), resume=True, rehearsal=rehearsal)
    assert len(seen) == 1

    def broken(detector: nn.Module) -> Evaluated:
        raise DataError("no such image")

    with pytest.raises(DataError, match="no such image"):
        start(tmp_path / "broken", config, Counted(), evaluate=mean_score, rehearsal=broken)
    other = TrainConfig(**QUICK, epochs=9, best_metric="F1")
    with pytest.raises(RecipeError, match=r"best_metric is 'F1'.*AP, AP50"):
        start(tmp_path / "metric", other, Counted(), evaluate=mean_score, rehearsal=mean_score)
    assert Counted.asked == 0


class Counted(RandomSource):
    asked = 0

    def epoch(self, epoch: int, first_batch: int, rank: int, world_size: int) -> RandomEpoch:
        Counted.asked += 1
        return super().epoch(epoch, first_batch, rank, world_size)
