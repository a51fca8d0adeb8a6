"""What ends a training from outside: signals, another training in the same folder, a start that fails."""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from trained_run import Trained

from facts import facts
from rectangle_set import TINY
from sniper.errors import RecipeError, StorageError
from sniper.pipeline.train import train
from sniper.training.run import RunFolder
from sniper.training.run_lock import RunLock


class _SignalAfter(logging.Handler):
    """A signal to this process when the log has a line."""

    def __init__(self, text: str, number: signal.Signals) -> None:
        super().__init__(logging.INFO)
        self.text, self.number = text, number

    def emit(self, record: logging.LogRecord) -> None:
        if self.text in record.getMessage():
            os.kill(os.getpid(), self.number)


@contextmanager
def _signalled(text: str, number: signal.Signals) -> Iterator[None]:
    handler, logger = _SignalAfter(text, number), logging.getLogger("sniper")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _settings(trained: Trained) -> list[str]:
    return [*TINY, f"data.train={trained.train_json}"]


def _command(settings: list[str]) -> list[str]:
    return ["mobilenetv2", *(word for one in settings for word in ("--set", one))]


@pytest.mark.parametrize(
    ("number", "after", "code"),
    [(signal.SIGINT, "step 1/", 130), (signal.SIGTERM, "step 1/", 143), (signal.SIGTERM, "step 3/", 143)],
)
def test_a_stopped_training_is_saved_and_ends_with_the_signals_code(
    sniper, trained: Trained, tmp_path: Path, number: signal.Signals, after: str, code: int
) -> None:
    """Also where the signal came with the last step: ``train && evaluate`` stops."""
    with _signalled(after, number):
        done = sniper("train", *_command(_settings(trained)), "--root", tmp_path)
    assert done.code == code
    assert RunFolder(tmp_path / "train" / "train").state.is_file()
    assert sniper("train", "--resume", tmp_path / "train" / "train").code == 0


def test_a_stopped_training_of_proposals_ends_with_the_signals_code(sniper, trained: Trained, tmp_path: Path) -> None:
    command = [*_command(_settings(trained)), "--root", tmp_path, "--negatives", "auto"]
    with _signalled("step 1/", signal.SIGTERM):
        done = sniper("train", *command)
    assert done.code == 143
    assert "stopped; the same command goes on with it" in done.lines[-1].replace("was ", "")
    assert not (tmp_path / "train").exists()


def test_two_trainings_of_one_run(trained: Trained, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.run.folder.iterdir()}
    with RunLock() as other:
        other.take(trained.run.folder)
        with pytest.raises(StorageError, match="in use by another training"):
            train(resume=trained.run.folder)
    assert {path: path.stat().st_mtime_ns for path in trained.run.folder.iterdir()} == before


def test_a_failed_start_does_not_block_its_name(trained: Trained, tmp_path: Path) -> None:
    settings = [*_settings(trained), f"data.evaluate={trained.val_json}"]
    with pytest.raises(RecipeError, match="best_metric"):
        train("mobilenetv2", overrides=[*settings, "train.best_metric=F1"], root=tmp_path, name="cars")
    assert (tmp_path / "train" / "cars" / "recipe.yaml").is_file(), "it failed in its folder"
    done = train("mobilenetv2", overrides=[*settings, "train.steps=1"], root=tmp_path, name="cars")
    assert done.result.finished


def test_a_launch_of_several_that_started_one_is_refused(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ``accelerate launch --cpu --num_processes 2`` leaves in the environment of its one process."""
    told: list[str] = []
    settings = [*_settings(trained), "train.steps=1", "train.device=cpu"]
    train("mobilenetv2", overrides=settings, root=tmp_path, log=told.append)
    assert told[-1] == "training on cpu, 1 process, 2 chips a step"
    assert "learning rate 0.00075, from 0.0015 for 8 chips" in told[0], "half, by the square root of a quarter"
    for name, value in (("ACCELERATE_MIXED_PRECISION", "no"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29500")):
        monkeypatch.setenv(name, value)
    with pytest.raises(RecipeError, match=facts("several processes", "started one", "torchrun --nproc_per_node N")):
        train("mobilenetv2", overrides=settings, root=tmp_path)


def test_a_name_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    for name in ("", "../.."):
        with pytest.raises(RecipeError, match="is no name for a run folder"):
            train("mobilenetv2", overrides=["data.train=none"], name=name, root=tmp_path)
