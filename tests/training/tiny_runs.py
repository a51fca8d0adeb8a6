"""Runs of the tiny detector, what they leave, and sources that stop them."""

import signal
from collections.abc import Iterator
from pathlib import Path

import torch
from tiny import RandomEpoch, RandomSource, TinyDetector

from sniper.structures import Batch
from sniper.training.loop import TrainConfig, TrainResult, train
from sniper.training.run import RunFolder

QUICK = {"warmup_steps": 3, "log_every": 2, "tensorboard": False, "learning_rate": 0.05}


def start(
    folder: Path, config: TrainConfig, source: object = None, **given: object
) -> tuple[TinyDetector, TrainResult]:
    torch.manual_seed(1)
    detector = TinyDetector()
    result = train(detector, source or RandomSource(), config, RunFolder(folder), **given)
    return detector, result


def state_of(folder: Path) -> dict:
    return torch.load(folder / "state.pt", weights_only=True)


def assert_same(a: object, b: object, where: str = "") -> None:
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{index}]")
    else:
        assert a == b, where


class Stopping(RandomSource):
    """Sends this process a signal while one batch is being fetched."""

    def __init__(self, at: tuple[int, int], number: signal.Signals) -> None:
        super().__init__()
        self.at, self.number = at, number

    def epoch(self, epoch: int, first_batch: int, rank: int, world_size: int) -> "StoppingEpoch":
        return StoppingEpoch(self, super().epoch(epoch, first_batch, rank, world_size), epoch, first_batch)


class StoppingEpoch:
    def __init__(self, source: Stopping, inner: RandomEpoch, epoch: int, first: int) -> None:
        self.source, self.inner, self.number, self.first = source, inner, epoch, first
        self.num_batches = inner.num_batches

    def __iter__(self) -> Iterator[Batch]:
        for index, batch in enumerate(self.inner, self.first):
            if (self.number, index) == self.source.at:
                signal.raise_signal(self.source.number)
            yield batch
