"""Commands in this process, through the real entry point, and what they leave behind."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rectangle_set import TINY
from sniper import cli


class Said(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


Command = Callable[..., Said]


class Trained(NamedTuple):
    """A run made by the command line, and its datasets."""

    folder: Path
    data: Path
    val: Path


def tiny_settings() -> list[str]:
    """Arguments that make a training small."""
    return [argument for setting in TINY for argument in ("--set", setting)]


def run_command(*arguments: object) -> int:
    """The exit code of ``sniper`` with these arguments."""
    before, sys.argv = sys.argv, ["sniper", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        sys.argv = before
    return 0


def assert_one_sentence(said: Said, *parts: str) -> None:
    """Refused: exit code 2, and one line that has every one of ``parts``, patterns."""
    assert said.code == 2, said
    *before, last = said.err.splitlines()
    assert last.startswith("error: "), said.err
    assert all(line.startswith(("warning: ", "step ", "training on ", "learning rate ")) for line in before), said.err
    assert "Traceback" not in said.err + said.out
    for part in parts:
        assert re.search(part, last), (part, last)
