"""What the verbs show: results on standard output; warnings, errors and progress on standard error.

Rich is loaded when something is shown, so that help is there at once.
"""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from sniper.progress import ProgressLines

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn, TaskID

MANY_WINDOWS = 32  # of images in flight, from which on they have a bar of their own


@cache
def out() -> "Console":
    """Standard output."""
    from rich.console import Console

    return Console()


@cache
def err() -> "Console":
    """Standard error."""
    from rich.console import Console

    return Console(stderr=True)


# Of file and class names from anywhere: what terminals obey, what turns the direction of reading, and bytes that are
# not text.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """Text whose control characters are shown as Python writes them."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode("ascii"), text)


def say(text: str, console: Callable[[], "Console"] = out) -> None:
    """Text as it is, never wrapped, so that paths stay whole."""
    console().print(visible(text), markup=False, highlight=False, soft_wrap=True)


def complain(mark: str, text: str) -> None:
    """One line on standard error; ``mark`` may have markup, ``text`` is shown as it is."""
    from rich.markup import escape

    err().print(f"{mark} {escape(visible(text)).replace(chr(10), chr(92) + 'n')}", highlight=False, soft_wrap=True)


def warn(text: str) -> None:
    """One line on standard error."""
    complain("[yellow]warning:[/]", text)


class LogLines(logging.Handler):
    """Log records as lines on standard error, above a progress bar.

    Errors are for the log file: what ends a command is said by ``main``, once.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record, unless it is an error of ours."""
        if record.levelno >= logging.ERROR and record.name == "sniper":
            return
        if record.levelno >= logging.WARNING:
            warn(record.getMessage())
        else:
            say(record.getMessage(), err)


def bar_of(*columns: "ProgressColumn") -> "Progress":
    """A progress bar on standard error that is gone at the end, with the time that remains; none in a file or pipe."""
    from rich.progress import Progress, TimeRemainingColumn

    return Progress(*columns, TimeRemainingColumn(), console=err(), transient=True, disable=not err().is_terminal)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar of ``total`` things, and the function that is told how many more of them are done."""
    with progress_of_windows(what, total) as (on_progress, _):
        yield on_progress


@contextmanager
def progress_of_windows(what: str, total: int) -> Iterator[tuple[Callable[[int], None], Callable[[int, int], None]]]:
    """As ``progress``, with a second bar for the windows of huge images, and the function told done and planned.

    Where there is no terminal, lines tell of the things (``sniper.progress``).
    """
    if not err().is_terminal:
        yield ProgressLines(what, total, lambda line: say(line, err)).advance, lambda done, planned: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

    with bar_of(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}")
    ) as bar:
        task = bar.add_task(what, total=total or None, rate="")
        windows = bar.add_task("windows", total=None, visible=False, rate="")

        def show_rate(number: "TaskID") -> None:
            speed = bar.tasks[number].speed
            bar.update(number, rate=f"{speed:.1f}/s" if speed else "")

        def on_progress(done: int) -> None:
            bar.advance(task, done)
            show_rate(task)

        def on_window_progress(done: int, planned: int) -> None:
            if done < bar.tasks[windows].completed:  # of other images
                bar.reset(windows)
            bar.update(windows, completed=done, total=planned, visible=MANY_WINDOWS <= planned > done)
            show_rate(windows)

        yield on_progress, on_window_progress


def show_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table with its first column to the left and numbers to the right."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(visible(title)), title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        table.add_column(escape(visible(column)), justify="left" if index == 0 else "right", no_wrap=index == 0)
    for row in rows:
        table.add_row(*(escape(visible(cell)) for cell in row))
    out().print(table)


def show_skipped(skipped: list[tuple[str, str]]) -> None:
    """The files that could not be read, if any, with the reason of each."""
    if skipped:
        say(f"skipped {len(skipped)} files that cannot be read:", err)
    for _, reason in skipped:  # which names the file
        say(f"  {reason}", err)
