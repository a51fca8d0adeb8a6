"""Time, epochs and memory from a calibration."""

import pytest

from sniper.pipeline.budget import GPU_FLOPS, GPU_STEP_S, Gpus, here, projected
from sniper.training.calibration import Calibration
from sniper.training.config import TrainConfig

MEASURED = Calibration(
    device="cpu",
    batch_chips=8,
    step_s=2.0,
    waiting_share=0.1,
    measured_chips=8,
    measured_steps=5,
    fixed_mb=1000,
    chip_mb=200,
    flops_a_chip=54e9,
)


def test_epochs_take_minutes_and_minutes_buy_epochs() -> None:
    own = here(MEASURED, 250, TrainConfig(epochs=6), None)
    assert own.length == (31, 6, pytest.approx(31 * 2 * 6 / 60))
    assert own.memory_mb == 1000 + 8 * 200
    assert here(MEASURED, 250, TrainConfig(epochs=6), 62).length == (31, pytest.approx(60), 62)
    assert here(MEASURED, 250, TrainConfig(minutes=62), None).length == (31, pytest.approx(60), 62)
    assert here(MEASURED, 250, TrainConfig(steps=62), None).length.epochs == 2
    assert here(MEASURED, 5, TrainConfig(epochs=1), None).length.steps_an_epoch == 1, "fewer chips than a batch"


def test_accumulated_batches_are_one_step() -> None:
    assert here(MEASURED, 320, TrainConfig(accumulate=4), None).chips_a_step == 32
    assert here(MEASURED, 320, TrainConfig(accumulate=4), None).length.steps_an_epoch == 10


def test_more_gpus_make_fewer_steps() -> None:
    eight = projected(MEASURED, 640, TrainConfig(), None, Gpus(8, 80))
    assert eight.length.steps_an_epoch == 10
    assert eight.step_s == GPU_STEP_S, "launching kernels takes longer than the arithmetic of a small network"
    assert eight.largest_batch == int((0.9 * 80 * 1024 - 1000) / 200)
    heavy = projected(MEASURED._replace(flops_a_chip=4e12), 640, TrainConfig(), None, Gpus(8, 80))
    assert heavy.step_s == pytest.approx(8 * 4e12 / GPU_FLOPS)


def test_a_batch_that_does_not_fit_is_made_smaller() -> None:
    small = projected(MEASURED, 640, TrainConfig(), None, Gpus(2, 2))
    assert (small.largest_batch, small.chips_a_step) == (4, 8)
    assert projected(MEASURED, 640, TrainConfig(), None, Gpus(1, 1)).largest_batch == 0


def test_a_machine_with_a_gpu_is_projected_from_itself() -> None:
    ours = projected(MEASURED._replace(device="cuda"), 640, TrainConfig(), None, Gpus(4, None))
    assert (ours.step_s, ours.largest_batch) == (2.0, None)
    assert "like the one here" in ours.basis
