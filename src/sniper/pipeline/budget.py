"""What a training takes, from a calibration: time, memory, epochs; and a projection for GPUs that are not here."""

from typing import Any, NamedTuple

from sniper.training.calibration import Calibration
from sniper.training.config import TrainConfig

# A step of a GPU (H100 and H200, bf16) takes as long as its arithmetic at this rate, and no less than this: the
# processor needs that long to launch the kernels of a two-stage detector. Compared with what was measured in
# ``docs/method.md``, "Chips, tiles or whole images".
GPU_FLOPS = 80e12
GPU_STEP_S = 0.06
MEASURED = "measured"
GPU_ROOM = 0.9  # share of a GPU's memory that training can have


class Gpus(NamedTuple):
    """GPUs to project for."""

    number: int
    memory_gb: float | None  # of each


class Length(NamedTuple):
    """How long a training is."""

    steps_an_epoch: int
    epochs: float
    minutes: float


class Budget(NamedTuple):
    """What a training takes on one kind of machine."""

    where: str
    basis: str  # ``MEASURED``, or what it is projected from
    chips_a_step: int  # of all devices
    step_s: float
    memory_mb: float  # of each device
    length: Length
    largest_batch: int | None = None  # chips of a batch that fit into a GPU's memory, if that is known

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**self._asdict(), "length": self.length._asdict()}


def here(calibration: Calibration, chips: int, config: TrainConfig, minutes: float | None) -> Budget:
    """Training as calibrated, on one device of this machine, with ``chips`` chips an epoch."""
    return Budget(
        f"here, {calibration.device}",
        MEASURED,
        calibration.batch_chips * config.accumulate,
        calibration.step_s,
        memory_mb=calibration.peak_mb,
        length=_length(chips, calibration.batch_chips * config.accumulate, calibration.step_s, config, minutes),
    )


def projected(calibration: Calibration, chips: int, config: TrainConfig, minutes: float | None, gpus: Gpus) -> Budget:
    """Training on several GPUs, none of which need be here.

    On a machine with a GPU they are taken to be like it. Elsewhere a step is the arithmetic of the network at
    ``GPU_FLOPS``, and ``GPU_STEP_S`` at least. Memory is what was measured here, of this process on a CPU. The
    exchange of gradients and waiting for chips are left out. Where a batch
    does not fit into the memory, one that does is taken.
    """
    batch, largest = calibration.batch_chips, None
    if gpus.memory_gb is not None:
        room = GPU_ROOM * gpus.memory_gb * 1024 - calibration.fixed_mb
        largest = max(int(room / calibration.chip_mb), 0) if calibration.chip_mb else batch
        batch = max(min(batch, largest), 1)
    if calibration.device != "cpu":
        basis, step_s = "GPUs like the one here", calibration.step_s * batch / calibration.batch_chips
    else:
        basis = (
            f"GPUs on which a step takes as long as its arithmetic at {GPU_FLOPS / 1e12:.0f} TFLOP/s, and "
            f"{GPU_STEP_S:g} s at least, as one H100 was measured in bf16"
        )
        step_s = config.accumulate * max(GPU_STEP_S, batch * calibration.flops_a_chip / GPU_FLOPS)
    chips_a_step = gpus.number * batch * config.accumulate
    return Budget(
        "1 GPU" if gpus.number == 1 else f"{gpus.number} GPUs",
        f"a projection to {basis}; memory as here; gradient exchange and waiting for chips left out",
        chips_a_step,
        step_s,
        memory_mb=calibration.fixed_mb + batch * calibration.chip_mb,
        length=_length(chips, chips_a_step, step_s, config, minutes),
        largest_batch=largest,
    )


def _length(chips: int, chips_a_step: int, step_s: float, config: TrainConfig, minutes: float | None) -> Length:
    """What ``minutes`` buy, or else how long the recipe's training is."""
    steps = max(chips // chips_a_step, 1)
    epoch_minutes = steps * step_s / 60
    given = minutes if minutes is not None else config.minutes
    if given is not None:
        return Length(steps, given / epoch_minutes, given)
    epochs = config.epochs if config.epochs is not None else (config.steps or 0) / steps
    return Length(steps, epochs, epochs * epoch_minutes)
