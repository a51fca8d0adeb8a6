"""Steps that are timed before a training."""

from collections.abc import Generator

import pytest
import torch
from tiny import TinyDetector, make_batch

from devices import TRAIN_DEVICE
from sniper.structures import Batch
from sniper.training.calibration import MAX_STEPS, calibrate
from sniper.training.config import TrainConfig

CONFIG = TrainConfig(device=TRAIN_DEVICE, accumulate=2)


class Chips:
    """Batches of any size, and which sizes were asked for."""

    def __init__(self, most: int = 1000) -> None:
        self.asked: list[int] = []
        self._most = most

    def batches(self, chips: int) -> Generator[Batch]:
        self.asked.append(chips)
        for number in range(self._most // chips):
            yield make_batch((number,), chips)


def test_full_batches_are_measured_where_there_is_time() -> None:
    torch.manual_seed(0)
    chips = Chips()
    known = calibrate(TinyDetector(), chips.batches, CONFIG, 4, seconds=300)
    assert chips.asked == [1, 1, 4]
    assert (known.batch_chips, known.measured_chips, known.measured_steps) == (4, 4, MAX_STEPS - 1)
    assert 0 < known.waiting_share < 1
    # 3 x 16 x 9 weights at 256 cells and 16 x 16 x 9 + 16 x 5 at 64, forward once; two operations each.
    forward = 2 * (3 * 16 * 9 * 256 + (16 * 16 * 9 + 16 * 5) * 64)
    assert 2 * forward < known.flops_a_chip <= 3 * forward
    assert known.peak_mb >= known.fixed_mb > 0


def test_without_time_one_chip_is_measured_and_the_rest_extrapolated() -> None:
    chips = Chips()
    known = calibrate(TinyDetector(), chips.batches, CONFIG, 64, seconds=0)
    assert chips.asked == [1]
    assert (known.batch_chips, known.measured_chips, known.measured_steps) == (64, 1, 1)


def test_an_epoch_of_fewer_chips_than_a_batch() -> None:
    chips = Chips(most=3)
    known = calibrate(TinyDetector(), chips.batches, CONFIG, 4, seconds=300)
    assert chips.asked == [1, 1, 4]
    assert (known.batch_chips, known.measured_chips) == (4, 1)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_detector_takes_real_steps(optimizer: str) -> None:
    detector = TinyDetector()
    before = detector.head.weight.detach().clone()
    calibrate(detector, Chips().batches, TrainConfig(device=TRAIN_DEVICE, optimizer=optimizer), 2, seconds=0)
    assert not torch.equal(detector.head.weight.detach().cpu(), before)
