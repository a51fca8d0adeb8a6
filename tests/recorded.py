"""Numbers recorded from the original code: where they are, and which cases a file holds.

The folder that ``SNIPER_GOLDEN`` names, else the whole recording beside the project, else the part that ships here.
Tests take the cases from the file: another recording, or a part of one, may hold others.
"""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

SHIPPED = Path(__file__).resolve().parent / "golden"
WHOLE = SHIPPED.parents[2] / "shared" / "golden"


class Golden(NamedTuple):
    """A folder of recorded numbers."""

    folder: Path

    def file(self, name: str) -> Path:
        """A file by its name inside the folder; the test is skipped where the recording lacks it."""
        path = self.folder / name
        if not path.is_file():
            pytest.skip(f"{name} is not in the recording at {self.folder}; SNIPER_GOLDEN names a whole one")
        return path

    def load(self, name: str) -> dict[str, NDArray[Any]]:
        """All arrays of a file."""
        with np.load(self.file(name), allow_pickle=False) as arrays:
            return dict(arrays)

    def case(self, name: str, case: str) -> dict[str, NDArray[Any]]:
        """The arrays of one case of a file, by the rest of their names."""
        with np.load(self.file(name), allow_pickle=False) as arrays:
            own = {key.split("/", 1)[1]: arrays[key] for key in arrays.files if key.startswith(case + "/")}
        if not own:
            pytest.skip(f"{name} of the recording at {self.folder} has no case {case}")
        return own

    def cases(self, name: str, pattern: str = ".*") -> list[str]:
        """Names of the cases of a file that match ``pattern`` as a whole, in order; none without the file."""
        path = self.folder / name
        if not path.is_file():
            return []
        with np.load(path, allow_pickle=False) as arrays:
            found = {key.split("/", 1)[0] for key in arrays.files if "/" in key}
        return sorted(case for case in found if re.fullmatch(pattern, case))


def rounding(units: float, *values: NDArray[Any]) -> float:
    """A tolerance: so many units in the last place, single precision, of the largest of all values."""
    largest = max(float(np.abs(array).max(initial=0)) for array in values)
    return units * float(np.finfo(np.float32).eps) * largest


def delta_rounding(
    units: float, anchors: NDArray[Any], boxes: NDArray[Any], deltas: NDArray[Any], weights: tuple[float, ...] = (1.0,)
) -> NDArray[np.float64]:
    """(N, 4) tolerances of box deltas computed in single precision from (N, 4) xyxy boxes.

    Corners are rounded, so that the error of a delta grows with the coordinates and falls with the sides.
    """
    corners = np.abs(np.concatenate([anchors, boxes], axis=1)).max(axis=1, keepdims=True).astype(np.float64)
    by_anchor, by_box = (corners / np.maximum(b[:, 2:] - b[:, :2], 1e-3) for b in (anchors, boxes))
    errors = np.concatenate([by_anchor, by_anchor + by_box], axis=1) * np.asarray(weights)
    return units * float(np.finfo(np.float32).eps) * (errors + np.abs(deltas))


def _found() -> Golden:
    named = os.environ.get("SNIPER_GOLDEN")
    if named is None:
        return Golden(WHOLE if WHOLE.is_dir() else SHIPPED)
    if not Path(named).is_dir():
        raise pytest.UsageError(f"SNIPER_GOLDEN={named}: expected a folder of recorded numbers; unset it for the part")
    return Golden(Path(named))


GOLDEN = _found()
