"""The folder of a run, and the metrics log kept in it: log.txt, metrics.csv, TensorBoard events."""

import csv
import logging
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePath
from types import TracebackType
from typing import IO, Any, Self

from sniper.errors import CheckpointError, RecipeError, StorageError
from sniper.files import replacing, write_text
from sniper.training.run_lock import RunLock

logger = logging.getLogger("sniper")


class RunFolder:
    """``runs/<verb>/<name>/`` and the names of what lies in it. Makes no file by itself except through its methods."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.recipe = self.path / "recipe.yaml"
        self.log = self.path / "log.txt"
        self.metrics = self.path / "metrics.csv"
        self.tensorboard = self.path / "tensorboard"
        self.trace = self.path / "trace.json"
        self.state = self.path / "state.pt"
        self.last = self.path / "last.safetensors"
        self.last_ema = self.path / "last-ema.safetensors"
        self.best = self.path / "best.safetensors"

    @classmethod
    def create(
        cls,
        verb: str,
        name: str | None = None,
        *,
        root: Path | str = "runs",
        recipe: str | None = None,
        lock: RunLock | None = None,
    ) -> Self:
        """Make a new folder; without ``name`` the first free of ``<verb>``, ``<verb>2``, ``<verb>3``, ...

        A named folder in which a run began and saved nothing is made anew. Call it in the main process only
        (``devices.on_main``).

        Args:
            verb: folder in ``root``.
            name: folder in that.
            root: folder of the runs.
            recipe: the resolved recipe as YAML text.
            lock: takes the new folder and keeps it.

        Raises:
            RecipeError: ``name`` is none for a folder inside.
            StorageError: the named folder holds something else, is in use, or nothing can be written there.
        """
        require_name(name, f"{root}/{verb}")
        parent = Path(root) / verb
        with ExitStack() as held:
            try:
                parent.mkdir(parents=True, exist_ok=True)
                path = parent / name if name is not None else _first_free(parent, verb)
                path.mkdir(parents=True, exist_ok=True)
                (lock or held.enter_context(RunLock())).take(path)
                if not _clear(path):
                    raise StorageError(
                        f"{path} exists and is not empty; choose another name, or go on with --resume {path}"
                    )
            except (OSError, ValueError) as error:  # ValueError: there is a NUL in the name
                reason = error.strerror if isinstance(error, OSError) else None
                raise StorageError(
                    f"cannot make a run folder in {parent}: {reason or error}; choose another folder"
                ) from error
            run = cls(path)
            if recipe is not None:
                write_text(run.recipe, recipe)
            return run

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """An existing run, for resuming.

        Raises:
            CheckpointError: there is no recipe.yaml in ``path``.
        """
        run = cls(path)
        if not run.recipe.is_file():
            raise CheckpointError(
                f"{path} is not a run folder (no recipe.yaml in it); pass a folder such as runs/train/train"
            )
        return run

    def drop_leftovers(self) -> None:
        """Remove half-written files that a killed process left."""
        for partial in self.path.glob(".*.part"):
            partial.unlink(missing_ok=True)

    def read_metrics(self) -> list[dict[str, float]]:
        """Rows of metrics.csv in order, empty cells left out; an unfinished last line is dropped."""
        return _read_rows(self.metrics) if self.metrics.is_file() else []


def require_name(name: str | None, parent: Path | str) -> None:
    """Let only names of folders inside ``parent`` pass; None is numbered.

    Raises:
        RecipeError: it is empty, leads elsewhere or has characters that no name should have.
    """
    if name is None:
        return
    path = PurePath(name)
    if not path.parts or path.anchor or ".." in path.parts or not name.isprintable():
        raise RecipeError(f"--name {name!r} is no name for a run folder; expected one inside {parent}, such as cars")


# What a run may have before it has saved anything.
_BEGUN = frozenset({"recipe.yaml", "log.txt", "metrics.csv", "previews", "tensorboard", "trace.json"})


def _clear(path: Path) -> bool:
    """Empty a folder in which a run began and saved nothing; whether it is empty now."""
    inside = list(path.iterdir())
    proposals = {one for one in inside if one.match("proposals*.safetensors")}
    parts = {one for one in inside if one.match(".*.part")}
    if any(one.name not in _BEGUN and one not in proposals | parts for one in inside):
        return False
    if len(parts) < len(inside) and not (path / "recipe.yaml").is_file():
        return False  # somebody else's
    if len(parts) < len(inside):
        logger.warning("%s: an earlier start saved nothing and is replaced", path)
    for one in inside:
        shutil.rmtree(one) if one.is_dir() else one.unlink()
    return True


def _first_free(parent: Path, verb: str) -> Path:
    number = 1
    while True:
        path = parent / (verb if number == 1 else f"{verb}{number}")
        try:
            path.mkdir()
            return path
        except FileExistsError:
            number += 1


def _read_rows(path: Path) -> list[dict[str, float]]:
    text = path.read_text(encoding="utf-8")
    complete = text[: text.rfind("\n") + 1]
    return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(complete.splitlines())]


class _QuietFile(logging.FileHandler):
    """A full disk must not print a trace for every log line; saving the checkpoint says it once."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        pass

    def close(self) -> None:
        with suppress(OSError):  # of lines that found no room
            super().close()


class MetricsLog:
    """Rows and log lines of a run while it trains. With ``enabled=False`` (other processes) it does nothing.

    ``resumed_step`` continues an earlier log: rows after that step are dropped first, so that none comes twice;
    with ``evaluation_owed`` also the evaluation of that step, which will be made again.
    """

    def __init__(
        self,
        run: RunFolder,
        *,
        enabled: bool,
        resumed_step: int | None,
        tensorboard: bool,
        evaluation_owed: bool = False,
    ) -> None:
        self._run = run
        self._enabled = enabled
        self._resumed_step = resumed_step
        self._evaluation_owed = evaluation_owed
        self._wants_events = tensorboard
        self._columns: list[str] = []
        self._file: IO[str] | None = None
        self._events: Any = None
        self._handler: logging.Handler | None = None
        self._former_level = logging.NOTSET

    def __enter__(self) -> Self:
        if not self._enabled:
            return self
        try:
            self._run.path.mkdir(parents=True, exist_ok=True)
            self._run.drop_leftovers()
            self._handler = _QuietFile(self._run.log, encoding="utf-8")
        except OSError as error:
            raise self._full(error) from error
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._former_level = logger.level
        if not logger.isEnabledFor(logging.INFO):
            logger.setLevel(logging.INFO)
        logger.addHandler(self._handler)
        self._start_metrics()
        if self._wants_events:
            from torch.utils.tensorboard import SummaryWriter  # slow to import, not always wanted

            purge = None if self._resumed_step is None else self._resumed_step + 1
            self._events = SummaryWriter(str(self._run.tensorboard), purge_step=purge)  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and self._handler is not None:
            logger.error("stopped: %s", error)
        if self._file is not None:
            with suppress(OSError):  # of a row that found no room: ``write`` told of it
                self._file.close()
        with self._events_end_when_full():
            if self._events is not None:
                self._events.close()
        if self._handler is not None:
            logger.removeHandler(self._handler)
            logger.setLevel(self._former_level)
            self._handler.close()

    def write(self, row: Mapping[str, float]) -> None:
        """Add a row to metrics.csv (new columns are added to the right) and its values to TensorBoard.

        Raises:
            StorageError: the disk is full.
        """
        if not self._enabled:
            return
        if any(name not in self._columns for name in row):
            self._rewrite([*self._read(), dict(row)])
        else:
            self._append(row)
        with self._events_end_when_full():
            for name, value in row.items() if self._events is not None else ():
                if name not in ("step", "epoch", "minutes") and not math.isnan(value):
                    self._events.add_scalar(name, value, int(row["step"]))

    @contextmanager
    def _events_end_when_full(self) -> Iterator[None]:
        """TensorBoard writes in a thread of its own, whose error comes with a later call; metrics.csv has it all."""
        try:
            yield
        except OSError as error:
            logger.warning("%s: TensorBoard events end here: %s", self._run.tensorboard, error.strerror or error)
            self._events = None

    def _read(self) -> list[dict[str, float]]:
        return self._run.read_metrics()

    def _start_metrics(self) -> None:
        self._rewrite([] if self._resumed_step is None else [row for row in self._read() if self._stays(row)])

    def _stays(self, row: Mapping[str, float]) -> bool:
        """Whether a row of the log is of what the resumed state has behind it."""
        assert self._resumed_step is not None
        again = self._evaluation_owed and any(name.startswith("eval/") for name in row)
        return row["step"] < self._resumed_step + (not again)

    def _rewrite(self, rows: list[dict[str, float]]) -> None:
        columns = dict.fromkeys(name for row in rows for name in row)
        self._columns = list(dict.fromkeys([*self._columns, *columns]))
        if self._file is not None:
            self._file.close()
        with replacing(self._run.metrics) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            if self._columns:
                writer = csv.DictWriter(file, self._columns, lineterminator="\n")
                writer.writeheader()
                writer.writerows([_cells(row) for row in rows])
        self._file = self._run.metrics.open("a", encoding="utf-8", newline="")

    def _append(self, row: Mapping[str, float]) -> None:
        assert self._file is not None
        try:
            csv.DictWriter(self._file, self._columns, lineterminator="\n").writerow(_cells(row))
            self._file.flush()
        except OSError as error:
            raise self._full(error) from error

    def _full(self, error: OSError) -> StorageError:
        return StorageError(
            f"cannot write in {self._run.path}: {error.strerror or error}; free space or choose another folder"
        )


def _cells(row: Mapping[str, float]) -> dict[str, str]:
    """Numbers as text, short and exact enough to plot."""
    return {name: str(int(value)) if name == "step" else f"{value:.8g}" for name, value in row.items()}
