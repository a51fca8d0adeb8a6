"""Runs are listed by what their folders say, without torch, whatever became of them."""

import json
import shutil
from pathlib import Path

import pytest
from trained_run import Trained

from sniper.errors import DataError
from sniper.pipeline.runs import read_run, runs
from sniper.training.run_lock import RunLock


@pytest.fixture
def folder(trained: Trained, tmp_path: Path) -> Path:
    """A copy of the trained run, without its state and weights."""
    leave = shutil.ignore_patterns("*.pt", "*.safetensors", "*.png", "previews")
    return Path(shutil.copytree(trained.run.folder, tmp_path / "runs" / "train" / "one", ignore=leave))


def test_a_finished_run(folder: Path, trained: Trained) -> None:
    (run,) = runs(folder.parents[1])
    assert trained.run.evaluation is not None
    assert (run.path, run.verb, run.state, run.step) == (folder, "train", "finished", 4)
    assert (run.data, run.val) == (str(trained.train_json), str(trained.val_json))
    assert run.network == "timm/test_resnet"
    assert run.score == pytest.approx(trained.run.evaluation.as_dict()["AP"], nan_ok=True)
    assert set(trained.run.evaluation.as_dict()) <= set(run.scores)
    assert run.minutes == pytest.approx(trained.run.result.minutes, abs=0.01)
    assert read_run(folder) == run


def test_states(folder: Path) -> None:
    log = (folder / "log.txt").read_text()
    (folder / "log.txt").write_text(log.replace("finished at step", "stopped at step"))
    assert read_run(folder).state == "stopped"
    with RunLock() as lock:
        lock.take(folder)
        assert read_run(folder).state == "running"
    (folder / "log.txt").write_text(log + log.replace("finished at step 4", "stopped at step 5"))
    assert read_run(folder).state == "stopped", "the last word counts"
    (folder / "log.txt").write_text(log)
    (folder / "state.pt").touch()
    rows = (folder / "metrics.csv").read_text()
    (folder / "metrics.csv").write_text(rows + "9" + rows.splitlines()[-1][1:] + "\n")
    assert read_run(folder).state == "stopped", "it was made longer, went on and was killed"
    (folder / "state.pt").unlink()
    (folder / "log.txt").unlink()
    assert read_run(folder).state == "begun"
    (folder / "state.pt").touch()
    assert read_run(folder).state == "stopped", "killed"


def test_evaluations_and_damaged_runs_are_listed_too(folder: Path) -> None:
    root = folder.parents[1]
    (root / "evaluate" / "evaluate").mkdir(parents=True)
    (root / "evaluate" / "evaluate" / "metrics.json").write_text(json.dumps({"AP": 0.25, "errors": {}, "seconds": 3.0}))
    (folder / "metrics.json").write_text("{cut of")
    (folder / "recipe.yaml").write_text("data: [")
    (folder / "part").mkdir()
    (folder / "part" / "metrics.json").write_text("{}")
    found = {run.path.name: run for run in runs(root)}
    assert set(found) == {"one", "evaluate"}
    assert found["evaluate"].scores == {"AP": 0.25}
    assert found["one"].data is None
    assert found["one"].step == 4
    with pytest.raises(DataError, match="nowhere is not there"):
        runs(root / "nowhere")
    with pytest.raises(DataError, match="is not a run folder"):
        read_run(root)


def test_the_verb_lists_and_shows(sniper, folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = sniper("runs")
    assert done.code == 0, done.lines
    assert "train/one" in done.out
    assert "finished" in done.out
    shown = sniper("runs", "runs/train/one")
    assert "timm/test_resnet" in shown.out
    assert "AP50" in shown.out
    assert "settings: sniper settings --recipe runs/train/one/recipe.yaml" in shown.out
    settings = sniper("settings", "train.steps", "--recipe", "runs/train/one/recipe.yaml")
    assert "train.steps = 4\n" in settings.out
    assert sniper("runs", "--root", "other").lines[-1].startswith("error: other is not there")
