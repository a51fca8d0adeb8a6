"""The metrics.csv of a run, read for charts."""

import csv
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sniper.errors import DataError


def smoothed(values: NDArray[np.float64], share: float = 0.06) -> NDArray[np.float64]:
    """Mean over a centred window of a share of the points; the ends use what there is."""
    half = int(len(values) * share / 2)
    if half < 1:
        return values
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    return np.asarray((sums[high] - sums[low]) / (high - low))


def read_metrics(path: Path | str) -> dict[str, NDArray[np.float64]]:
    """The columns of a run's metrics.csv; empty cells are NaN.

    Raises:
        DataError: the file is missing, has no ``step`` column, or a cell is not a number.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; give the metrics.csv of a run") from error
    complete = text[: text.rfind("\n") + 1]  # a running or killed training may leave an unfinished last line
    rows = list(csv.DictReader(complete.splitlines()))
    if rows and "step" not in rows[0]:
        raise DataError(
            f"{path}: expected a column named step, found {', '.join(map(str, rows[0]))}; give a metrics.csv"
        )
    columns: dict[str, list[float]] = {name: [] for name in (rows[0] if rows else ())}
    for line, row in enumerate(rows, start=2):
        for name, values in columns.items():
            cell = row[name]
            try:
                values.append(float(cell) if cell else math.nan)
            except ValueError as error:
                raise DataError(f"{path}, line {line}: {name} is {cell!r}, expected a number; mend the line") from error
    return {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}


def known_points(metrics: dict[str, NDArray[np.float64]], name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values of a column where it has one; nothing for a column that is not there."""
    if name not in metrics:
        return np.zeros(0), np.zeros(0)
    known = np.isfinite(metrics[name])
    return metrics["step"][known], metrics[name][known]
