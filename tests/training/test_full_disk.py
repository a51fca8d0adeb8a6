"""A disk that fills up while a run trains, on a small file system of its own."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
import torch
from tiny import RandomEpoch, RandomSource, TinyDetector, mean_score

from facts import facts
from sniper.errors import StorageError
from sniper.structures import Batch
from sniper.training.checkpoint import load_weights
from sniper.training.loop import TrainConfig, train
from sniper.training.reserve import DiskReserve
from sniper.training.run import MetricsLog, RunFolder

DISK = 2 * 2**20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two MB."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("making a small file system needs root")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


class FillingUp(RandomSource):
    """Somebody else takes all that is free of a disk while one batch is fetched."""

    def __init__(self, folder: Path, at: int) -> None:
        super().__init__(grows=False)
        self.folder, self.at = folder, at

    def epoch(self, epoch: int, first_batch: int, rank: int, world_size: int) -> "FillingEpoch":
        return FillingEpoch(self, super().epoch(epoch, first_batch, rank, world_size), first_batch)


class FillingEpoch:
    def __init__(self, source: FillingUp, inner: RandomEpoch, first: int) -> None:
        self.source, self.inner, self.first = source, inner, first
        self.num_batches, self.decodes = inner.num_batches, 0

    def __iter__(self) -> Iterator[Batch]:
        for index, batch in enumerate(self.inner, self.first):
            if index == self.source.at:
                fill(self.source.folder)
            yield batch


def fill(folder: Path) -> None:
    """Write until there is no room for one more byte."""
    with (folder / "others").open("ab", buffering=0) as file:
        for size in (65536, 1):
            with pytest.raises(OSError, match="No space left"):
                _write_on(file, size)


def _write_on(file: IO[bytes], size: int) -> None:
    while True:
        file.write(bytes(size))


def _write_rows(log: MetricsLog, count: int, row: dict[str, float]) -> None:
    for step in range(2, count):
        log.write({"step": step, **row})


def run_on(disk: Path, source: RandomSource, **settings: object) -> Path:
    torch.manual_seed(1)
    config = TrainConfig.model_validate({"steps": 6, "warmup_steps": 1, "log_every": 100, **settings})
    run = RunFolder(disk / "run")
    train(TinyDetector(), source, config, run, evaluate=mean_score)
    return run.path


def test_a_disk_that_fills_up_costs_no_weights(disk: Path) -> None:
    said = facts("cannot write", "No space left", "saved at step 6", f"--resume {disk / 'run'}")
    with pytest.raises(StorageError, match=said) as caught:
        run_on(disk, FillingUp(disk, at=5), tensorboard=False)
    assert "\n" not in str(caught.value)
    assert load_weights(disk / "run" / "last.safetensors").meta.step == 6
    assert torch.load(disk / "run" / "state.pt", weights_only=True)["position"]["step"] == 6
    (disk / "others").unlink()
    torch.manual_seed(1)
    config = TrainConfig(steps=6, warmup_steps=1, log_every=100, tensorboard=False)
    again = train(TinyDetector(), RandomSource(grows=False), config, RunFolder(disk / "run"), resume=True)
    assert (again.finished, again.step) == (True, 6)


def test_every_checkpoint_of_a_full_disk_is_saved(disk: Path) -> None:
    """Checkpoints and rows of the log alternate; the disk is full long before the end."""
    with pytest.raises(StorageError, match="saved at step 4"):
        run_on(disk, FillingUp(disk, at=1), tensorboard=False, log_every=4, checkpoint_every_steps=1, steps=7)
    assert load_weights(disk / "run" / "last.safetensors").meta.step == 4


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's own thread
def test_events_for_tensorboard_end_with_the_disk_and_the_log_goes_on(
    disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    row = {f"loss/{k}": 0.123456789 for k in range(40)}
    with MetricsLog(RunFolder(disk / "run"), enabled=True, resumed_step=None, tensorboard=True) as log:
        log.write({"step": 1, **row})
        fill(disk)
        # An event takes more room than its cell of the table: it finds none first.
        with pytest.raises(StorageError, match=facts("cannot write", "No space left")):
            _write_rows(log, 50, row)
    assert "TensorBoard events end here: No space left" in caplog.text


def test_too_small_a_disk_is_refused_before_the_first_step(disk: Path) -> None:
    (disk / "others").write_bytes(bytes(DISK - 100_000))
    with pytest.raises(StorageError, match=facts("the checkpoints of this run need about", "MB", "free space")):
        run_on(disk, FillingUp(disk, at=0), tensorboard=False)
    assert not (disk / "run" / "state.pt").exists()


def test_what_is_held_is_gone_from_the_disk_until_it_is_released(disk: Path) -> None:
    def free() -> int:
        stats = os.statvfs(disk)
        return stats.f_bavail * stats.f_frsize

    before = free()
    with DiskReserve(disk) as reserve:
        assert reserve.hold(2**20)
        assert before - free() == 2**20
        assert not list(disk.iterdir()), "it has no name"
        assert not reserve.hold(DISK + 4096)
        assert free() == before, "what does not fit holds nothing"
        assert reserve.hold(2**19)
        reserve.release()
        assert free() == before
        assert reserve.hold(2**19)
    assert free() == before


def test_a_limit_on_the_size_of_one_file_is_no_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*_: int) -> None:
        raise OSError(errno.EFBIG, "File too large")

    monkeypatch.setattr(os, "posix_fallocate", too_large)
    with DiskReserve(tmp_path) as reserve:
        assert reserve.hold(100)
