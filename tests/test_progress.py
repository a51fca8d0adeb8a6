"""Lines on how far a command is, where there is no terminal."""

import pytest

from sniper import progress
from sniper.cli import display
from sniper.progress import ProgressLines, clock_text


def test_a_line_at_most_every_ten_seconds() -> None:
    now, lines = [0.0], list[str]()
    images = ProgressLines("images", 100, lines.append, clock=lambda: now[0])
    for second in range(1, 101):
        now[0] = float(second)
        images.advance(1)
    assert lines[0] == "images: 10 of 100, 1/s, 1:30 left"
    assert len(lines) == 9, "the end is not told: what follows says it"
    now[0] = 110.0
    ProgressLines("frames", 0, lines.append, clock=lambda: now[0]).advance(7)
    assert len(lines) == 9, "nothing in the first ten seconds"


def test_a_total_that_is_not_known() -> None:
    now, lines = [0.0], list[str]()
    frames = ProgressLines("frames", 0, lines.append, clock=lambda: now[0])
    now[0] = 12.5
    frames.advance(5_000)
    assert lines == ["frames: 5,000, 400/s"]


def test_a_command_without_a_terminal_tells_by_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "INTERVAL_S", 0.0)
    with display.progress("images", 3) as on_progress:
        on_progress(2)
        on_progress(1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("images: 2 of 3, ")


def test_times_as_a_clock_shows_them() -> None:
    assert [clock_text(seconds) for seconds in (0.4, 61, 3909)] == ["0:00", "1:01", "1:05:09"]
