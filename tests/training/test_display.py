"""A bar on a terminal, lines elsewhere, nothing in other processes."""

import io
import logging

import pytest
from rich.console import Console

from sniper.training.progress import ProgressBar

ROW = {"step": 30, "epoch": 0.5, "loss": 1.25, "loss/box": 0.25, "chips_per_s": 12.0, "images_per_s": 3.0}


def show(*, terminal: bool, enabled: bool = True) -> str:
    out = io.StringIO()
    with ProgressBar(
        enabled=enabled, done=0.1, console=Console(file=out, force_terminal=terminal, width=200)
    ) as display:
        display.show(0.25, ROW)
    return out.getvalue()


def test_a_terminal_gets_a_bar() -> None:
    text = show(terminal=True)
    for part in ("25%", "step 30/120", "loss 1.25", "box 0.25", "12.0 chips/s", "3.0 images/s", "left"):
        assert part in text


def test_a_file_gets_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sniper")
    assert show(terminal=False) == ""
    assert caplog.messages[0].startswith(
        "step 30/120, epoch 0.50, loss 1.25, box 0.25, 12.0 chips/s, 3.0 images/s, 0:0"
    )


def test_other_processes_are_silent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sniper")
    assert show(terminal=True, enabled=False) == ""
    assert not caplog.messages
