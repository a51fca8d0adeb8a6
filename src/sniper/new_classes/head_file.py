"""Learned classes as a file: safetensors, with names, trunk, digests and threshold in its header."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from sniper.errors import DataError, StorageError
from sniper.files import replacing
from sniper.new_classes.classifiers import KINDS, Classifier
from sniper.new_classes.examples import Examples
from sniper.new_classes.head import ClassHead, Features, Photo
from sniper.new_classes.held_out import Calibration, Expected
from sniper.new_classes.space import Space

_HEADER = "sniper classes"
_FORM = 1  # of the file; another one is refused
_EXAMPLES: dict[str, type] = {
    "features": np.float32,
    "labels": np.int32,
    "photos": np.int32,
    "boxes": np.float32,
    "scores": np.float32,
}


def save_head(path: Path | str, head: ClassHead) -> None:
    """Write learned classes, completely or not at all.

    Raises:
        StorageError: the file cannot be written.
    """
    space = head.classifier.space
    columns: dict[str, NDArray[Any]] = {
        "weights": head.classifier.weights,
        "mean": space.mean,
        "projection": space.projection,
    }
    columns |= {f"examples.{name}": getattr(head.examples, name) for name in _EXAMPLES}
    columns["groups"] = head.groups
    header = {
        "form": _FORM,
        "class_names": head.class_names,
        "kind": head.classifier.kind,
        "calibration": head.calibration._asdict(),
        "expected": {name: None if math.isnan(value) else value for name, value in head.expected._asdict().items()},
        "features": asdict(head.features),
        "photos": [[photo.name, photo.content] for photo in head.photos],
    }
    with replacing(path) as partial:
        try:
            contiguous = {name: np.ascontiguousarray(column) for name, column in columns.items()}
            save_file(contiguous, partial, metadata={_HEADER: json.dumps(header)})
        except SafetensorError as error:
            raise StorageError(f"cannot write {path}: {error}; free space or choose another folder") from error


def load_head(path: Path | str) -> ClassHead:
    """What ``save_head`` wrote.

    Raises:
        DataError: the file is missing, damaged, or something else.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file; give what sniper classes learn has written")
    try:
        with safe_open(path, framework="np") as file:
            header = json.loads((file.metadata() or {}).get(_HEADER, "null"))
            columns = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path} is damaged or no file of classes ({error}); learn them again") from error
    if not isinstance(header, dict):
        raise DataError(f"{path} holds no learned classes; give what sniper classes learn has written, not weights")
    if header.get("form") != _FORM:
        raise DataError(f"{path} was written by another version of sniper; learn the classes again")
    try:
        return _head(header, columns)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}); learn the classes again") from error


def _head(header: dict[str, Any], columns: dict[str, Any]) -> ClassHead:
    if header["kind"] not in KINDS:
        raise ValueError(f"there is no kind of classifier {header['kind']}")
    examples = Examples(*(columns[f"examples.{name}"].astype(kind) for name, kind in _EXAMPLES.items()))
    told = {name: float("nan") if value is None else value for name, value in header["expected"].items()}
    classifier = Classifier(header["kind"], Space(columns["mean"], columns["projection"]), columns["weights"])
    names = tuple(header["class_names"])
    if len(classifier.weights) != len(names) + (header["kind"] == "logistic"):
        raise ValueError(f"{len(classifier.weights)} rows of weights for {len(names)} classes")
    return ClassHead(
        names,
        classifier,
        Calibration(**header["calibration"]),
        Expected(**told),
        Features(**header["features"]),
        examples,
        tuple(Photo(name, content) for name, content in header["photos"]),
        columns["groups"],
    )
