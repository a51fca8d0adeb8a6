"""Run folders are numbered, never overwritten, and their journal is continued without doubles."""

import math
import multiprocessing
from pathlib import Path

import pytest

from facts import facts
from sniper.errors import CheckpointError, RecipeError, StorageError
from sniper.training.run import MetricsLog, RunFolder
from sniper.training.run_lock import RunLock


def test_folders_are_numbered(tmp_path: Path) -> None:
    made = [RunFolder.create("train", root=tmp_path, recipe="a: 1\n").path for _ in range(3)]
    assert [p.relative_to(tmp_path).as_posix() for p in made] == ["train/train", "train/train2", "train/train3"]
    assert RunFolder.open(made[0]).recipe.read_text() == "a: 1\n"


def test_named_folders_are_never_overwritten(tmp_path: Path) -> None:
    run = RunFolder.create("train", "cars", root=tmp_path, recipe="a: 1\n")
    run.last.touch()
    with pytest.raises(StorageError, match=facts("cars", "not empty", "--resume")):
        RunFolder.create("train", "cars", root=tmp_path)
    assert run.recipe.read_text() == "a: 1\n"


@pytest.mark.parametrize("name", ["", ".", "..", "../..", "a/../../b", "/tmp/elsewhere", "a\0b", "a\x1b[31m"])
def test_names_that_leave_the_root_or_are_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecipeError, match=facts("--name", "run folder", "inside", "train")):
        RunFolder.create("train", name, root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    nested = RunFolder.create("train", "cars/first", root=tmp_path / "runs", recipe="a: 1\n")
    assert nested.path == tmp_path / "runs" / "train" / "cars" / "first"


def test_a_start_that_saved_nothing_does_not_block_its_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = RunFolder.create("train", "cars", root=tmp_path, recipe="a: 1\n")
    (run.path / "previews").mkdir()
    for file in ("log.txt", "metrics.csv", "previews/0-chips.jpg", ".state.pt.x.part", "proposals.safetensors"):
        (run.path / file).touch()
    again = RunFolder.create("train", "cars", root=tmp_path, recipe="a: 2\n")
    assert again.path == run.path
    assert [path.name for path in again.path.iterdir()] == ["recipe.yaml"]
    assert again.recipe.read_text() == "a: 2\n"
    assert "saved nothing and is replaced" in caplog.text
    for kept in ("state.pt", "notes.txt"):
        (run.path / kept).touch()
        with pytest.raises(StorageError, match="not empty"):
            RunFolder.create("train", "cars", root=tmp_path, recipe="a: 3\n")
        (run.path / kept).unlink()
    run.recipe.unlink()
    (run.path / "log.txt").touch()  # no run at all
    with pytest.raises(StorageError, match="not empty"):
        RunFolder.create("train", "cars", root=tmp_path)


def test_a_folder_has_one_training_at_a_time(tmp_path: Path) -> None:
    with RunLock() as first, RunLock() as second:
        run = RunFolder.create("train", "cars", root=tmp_path, recipe="a: 1\n", lock=first)
        with pytest.raises(StorageError, match=facts("cars is in use by another training", "wait")):
            second.take(run.path)
        with pytest.raises(StorageError, match="in use"):
            RunFolder.create("train", "cars", root=tmp_path, recipe="a: 2\n", lock=second)
    with RunLock() as third:
        third.take(run.path)
    assert run.recipe.read_text() == "a: 1\n"


def test_a_forked_worker_does_not_keep_the_lock(tmp_path: Path) -> None:
    """A loader's worker notices only after seconds that its training was killed."""
    begun, end = multiprocessing.get_context("fork").Event(), multiprocessing.get_context("fork").Event()

    def work() -> None:
        begun.set()
        end.wait(60)

    lock = RunLock()
    lock.take(tmp_path)
    worker = multiprocessing.get_context("fork").Process(target=work)
    worker.start()
    begun.wait(60)
    lock.__exit__(None, None, None)
    with RunLock() as next_one:
        next_one.take(tmp_path)
    end.set()
    worker.join()


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
