"""What a finished run must have follows from its state: a kill in any window of the end costs nothing."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from trained_run import Trained

from devices import bit_for_bit
from sniper.pipeline.train import train
from sniper.training.checkpoint import load_weights, save_weights

FILES = "index.html", "predictions.json", "pr_curves.png", "metrics.json"


@pytest.fixture
def finished(trained: Trained, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(trained.run.folder, tmp_path / "train" / "mine"))


def _numbers(folder: Path) -> dict:
    return {k: v for k, v in json.loads((folder / "metrics.json").read_text()).items() if k != "seconds"}


def _assert_whole(folder: Path, trained: Trained) -> None:
    theirs = trained.run.folder
    assert {path.name for path in folder.iterdir()} == {path.name for path in theirs.iterdir()}
    for name in ("last.safetensors", "best.safetensors", "predictions.json", "pr_curves.png", "recipe.yaml"):
        assert (folder / name).read_bytes() == (theirs / name).read_bytes(), name
    assert _numbers(folder) == _numbers(theirs)


@bit_for_bit
@pytest.mark.parametrize("lost", [FILES, FILES[1:], FILES[2:], ("curves.png", "best.safetensors")])
def test_a_run_killed_while_it_finished_is_finished_on_resume(
    finished: Path, trained: Trained, lost: tuple[str, ...]
) -> None:
    """The state is the final one; what is written after it is not there, or of an earlier step."""
    weights, meta = load_weights(finished / "last.safetensors")
    older = {name: torch.zeros_like(value) for name, value in weights.items()}
    save_weights(finished / "last.safetensors", older, meta.model_copy(update={"step": 2, "metrics": {}}))
    for name in lost:
        (finished / name).unlink()
    done = train(resume=finished)
    assert done.result.finished
    assert done.result.step == 4
    _assert_whole(finished, trained)


@bit_for_bit
def test_results_of_an_earlier_step_are_made_again(finished: Path, trained: Trained) -> None:
    numbers = json.loads((finished / "metrics.json").read_text())
    (finished / "metrics.json").write_text(json.dumps(numbers | {"step": 2, "AP": 0.5}))
    (finished / "predictions.json").write_text("[]")
    done = train(resume=finished)
    assert done.evaluation is not None
    _assert_whole(finished, trained)


@bit_for_bit
def test_a_damaged_checkpoint_is_written_again(finished: Path, trained: Trained) -> None:
    for name in ("last.safetensors", "best.safetensors"):
        (finished / name).write_bytes((finished / name).read_bytes()[:-7])
    train(resume=finished)
    _assert_whole(finished, trained)


@bit_for_bit
def test_finishing_again_changes_nothing(finished: Path, trained: Trained) -> None:
    kept = ("last.safetensors", "best.safetensors", "state.pt", *FILES)
    for name in kept:
        os.utime(finished / name, (1, 1))
    done = train(resume=finished)
    assert done.result.finished
    assert {name: (finished / name).stat().st_mtime for name in kept} == dict.fromkeys(kept, 1), "nothing is made again"
    _assert_whole(finished, trained)


def test_a_run_killed_before_its_previews_draws_them(trained: Trained, tmp_path: Path) -> None:
    folder = tmp_path / "train" / "mine"
    folder.mkdir(parents=True)
    shutil.copy(trained.run.folder / "recipe.yaml", folder)
    train(resume=folder, overrides=["train.steps=1"])
    names = {path.name for path in (trained.run.folder / "previews").iterdir()}
    assert {path.name for path in (folder / "previews").iterdir()} == names
