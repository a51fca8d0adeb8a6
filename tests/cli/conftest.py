"""The command line in this process, and a run that it has trained."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Command, Said, Trained, run_command, tiny_settings

from rectangle_set import make_set


@pytest.fixture
def sniper(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Command]:
    """``sniper ...`` in this process and in an empty folder, through the real entry point."""
    root, logger = logging.getLogger(), logging.getLogger("sniper")
    before = root.handlers[:], root.level, logger.level
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments: object) -> Said:
        capsys.readouterr()
        return Said(run_command(*arguments), *capsys.readouterr())

    yield run
    root.handlers[:], level = before[0], before[1]
    root.setLevel(level)
    logger.setLevel(before[2])


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Trained by the command line, in folders whose names YAML would read as something else."""
    root = tmp_path_factory.mktemp("cli")
    data, val = make_set(root / "2024: a #1"), make_set(root / "val", images=3, seed=1)
    arguments = [
        "train",
        "mobilenetv2",
        *tiny_settings(),
        "--set",
        "train.steps=2",
        "--name",
        "one",
        "--root",
        str(root),
    ]
    assert run_command(*arguments, "--data", data, "--val", val) == 0
    return Trained(root / "train" / "one", data, val)
