"""One trained run that the tests of this folder look at, and the command line in this process."""

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest
from trained_run import Trained

from rectangle_set import TINY, make_set
from sniper import cli
from sniper.pipeline.train import train


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Four steps of a tiny detector on six images, evaluated on three."""
    folder = tmp_path_factory.mktemp("trained")
    train_json, val_json = make_set(folder / "train"), make_set(folder / "val", images=3, seed=1)
    overrides = [*TINY, f"data.train={train_json}", f"data.evaluate={val_json}"]
    return Trained(train("mobilenetv2", overrides=overrides, root=folder / "runs"), train_json, val_json)


class Done(NamedTuple):
    """What became of a command."""

    code: int
    lines: list[str]  # on standard error
    out: str  # on standard output


@pytest.fixture
def sniper(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """``sniper ...`` through the real entry point, in this process: a new one takes ten seconds to import torch."""

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["sniper", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, errors = capsys.readouterr()
        return Done(int(ended.value.code or 0), errors.strip().splitlines(), out)

    return run
