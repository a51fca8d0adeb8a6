"""The runs that lie in a folder: what they learned from, how far they are, and their scores; without torch."""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import yaml

from sniper.errors import DataError
from sniper.renamed import with_present_names
from sniper.settings import read_yaml
from sniper.training.run import RunFolder
from sniper.training.run_lock import is_locked

State = Literal["running", "finished", "stopped", "begun"]
_LAST_LINE = re.compile(r" (finished|stopped) at step (\d+), epoch ([\d.]+), ([\d.]+) minutes")
_COST = ("seconds", "pixels_per_image", "pixel_share", "step")  # numbers of metrics.json that are no scores


class Run(NamedTuple):
    """One run folder."""

    path: Path
    verb: str  # the folder it lies in: train, evaluate
    state: State  # begun: nothing was saved yet, and no process is at it
    changed: datetime  # when its results or its log were last written
    data: str | None = None
    val: str | None = None
    network: str | None = None
    step: int | None = None
    minutes: float | None = None
    metric: str = "AP"  # by which the best weights are chosen
    scores: Mapping[str, float] = MappingProxyType({})  # of the latest evaluation

    @property
    def score(self) -> float | None:
        """The number by which runs are compared; None where nothing was evaluated."""
        return self.scores.get(self.metric)


def runs(root: Path | str = "runs") -> list[Run]:
    """All runs below a folder, those that changed last at the end.

    Raises:
        DataError: the folder is not there.
    """
    if not Path(root).is_dir():
        raise DataError(f"{root} is not there; runs are made by sniper train and sniper evaluate, or give --root")
    folders = sorted({file.parent for name in ("recipe.yaml", "metrics.json") for file in Path(root).rglob(name)})
    found = [_read(folder) for folder in folders if not _is_within(folder, folders)]
    return sorted(found, key=lambda run: run.changed)


def read_run(path: Path | str) -> Run:
    """One run folder.

    Raises:
        DataError: it is none.
    """
    folder = Path(path)
    if not any((folder / name).is_file() for name in ("recipe.yaml", "metrics.json")):
        raise DataError(f"{folder} is not a run folder (no recipe.yaml or metrics.json); 'sniper runs' lists them")
    return _read(folder)


def _is_within(folder: Path, others: list[Path]) -> bool:
    """Whether a folder is a part of another run, such as its extraction of proposals."""
    return any(other in folder.parents for other in others)


def _read(folder: Path) -> Run:
    scores = _scores(folder / "metrics.json")
    files = [folder / name for name in ("metrics.json", "log.txt", "metrics.csv", "recipe.yaml")]
    changed = datetime.fromtimestamp(max(file.stat().st_mtime for file in files if file.is_file()))
    if not (folder / "recipe.yaml").is_file():
        return Run(folder, folder.parent.name, "finished", changed, scores=scores)
    recipe, run = _recipe(folder / "recipe.yaml"), RunFolder(folder)
    data, train, model = (recipe.get(part) or {} for part in ("data", "train", "model"))
    rows = run.read_metrics()
    evaluated = {name.removeprefix("eval/"): value for row in rows for name, value in row.items() if "eval/" in name}
    step, minutes = (rows[-1].get(name) for name in ("step", "minutes")) if rows else (None, None)
    end = _end(run, step or 0)
    return Run(
        folder,
        folder.parent.name,
        "running" if is_locked(folder) else end if end is not None else "stopped" if run.state.is_file() else "begun",
        changed,
        data.get("train"),
        data.get("evaluate"),
        model.get("backbone") or model.get("network") or model.get("name"),
        None if step is None else int(step),
        minutes,
        str(train.get("best_metric", "AP")),
        scores or evaluated,
    )


def _end(run: RunFolder, step: float) -> State | None:
    """What the log says last of the end of the run; nothing where the run went on to ``step`` since."""
    try:
        lines = run.log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    ends = _LAST_LINE.findall(lines)
    if not ends or int(ends[-1][1]) < step:
        return None
    return "finished" if ends[-1][0] == "finished" else "stopped"


def _scores(file: Path) -> dict[str, float]:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    plain = told.items() if isinstance(told, dict) else ()
    return {name: float(value) for name, value in plain if isinstance(value, int | float) and name not in _COST}


def _recipe(file: Path) -> dict[str, Any]:
    """The settings of a run under their present names; what cannot be read is left out of the list, not the run."""
    try:
        given = read_yaml(file.read_text(encoding="utf-8"))
        return dict(with_present_names(given).settings) if isinstance(given, dict) else {}
    except (OSError, ValueError, yaml.YAMLError, DataError):
        return {}
