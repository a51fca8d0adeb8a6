"""Run folders are numbered, never overwritten, and their journal is continued without doubles."""

import math
from pathlib import Path

import pytest

from facts import facts
from sniper.errors import CheckpointError, StorageError
from sniper.training.run import MetricsLog, RunFolder


def test_folders_are_numbered(tmp_path: Path) -> None:
    made = [RunFolder.create("train", root=tmp_path, recipe="a: 1\n").path for _ in range(3)]
    assert [p.relative_to(tmp_path).as_posix() for p in made] == ["train/train", "train/train2", "train/train3"]
    assert RunFolder.open(made[0]).recipe.read_text() == "a: 1\n"


def test_named_folders_are_never_overwritten(tmp_path: Path) -> None:
    run = RunFolder.create("train", "cars", root=tmp_path, recipe="a: 1\n")
    with pytest.raises(StorageError, match=facts("cars", "not empty", "--resume")):
        RunFolder.create("train", "cars", root=tmp_path)
    assert run.recipe.read_text() == "a: 1\n"


def test_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a run folder"):
        RunFolder.open(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot make a run folder"):
        RunFolder.create("train", root=tmp_path / "file")


def metrics_log(
    run: RunFolder, resumed_step: int | None = None, *, enabled: bool = True, events: bool = False
) -> MetricsLog:
    return MetricsLog(run, enabled=enabled, resumed_step=resumed_step, tensorboard=events)


def test_resumed_journal_has_no_row_twice(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with metrics_log(run) as book:
        for step in (2, 4, 6):
            book.write({"step": step, "epoch": step / 4, "loss": 1 / step})
        book.write({"step": 6, "epoch": 1.5, "eval/AP": 0.25})
    with run.metrics.open("a") as file:
        file.write("8,2.0,0.1")  # killed in the middle of a line
    (tmp_path / ".state.pt.abc.part").touch()
    with metrics_log(run, resumed_step=4) as book:
        book.write({"step": 6, "epoch": 1.5, "loss": math.nan})
    assert run.metrics.read_text().splitlines()[0] == "step,epoch,loss"
    rows = run.read_metrics()
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert math.isnan(rows[-1]["loss"])
    assert not list(tmp_path.glob(".*.part"))


def test_new_columns_keep_old_rows(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with metrics_log(run) as book:
        book.write({"step": 1, "loss": 0.5})
        book.write({"step": 1, "eval/AP": 0.25})
        book.write({"step": 2, "loss": 0.25})
    assert run.read_metrics() == [{"step": 1, "loss": 0.5}, {"step": 1, "eval/AP": 0.25}, {"step": 2, "loss": 0.25}]


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    with metrics_log(RunFolder(tmp_path / "run"), enabled=False) as book:
        book.write({"step": 1, "loss": 0.5})
    assert not (tmp_path / "run").exists()


def test_tensorboard_events(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = RunFolder(tmp_path)
    with metrics_log(run, events=True) as book:
        book.write({"step": 3, "epoch": 1, "loss": 0.5, "eval/AP": math.nan})
    events = EventAccumulator(str(run.tensorboard))
    events.Reload()
    assert events.Tags()["scalars"] == ["loss"]
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(3, 0.5)]
