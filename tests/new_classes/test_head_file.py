"""Learned classes as a file."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_held_out import examples

from sniper.errors import DataError
from sniper.new_classes.head import ClassHead, Features, Photo
from sniper.new_classes.head_file import load_head, save_head
from sniper.new_classes.held_out import fit_best


@pytest.fixture(scope="module")
def head() -> ClassHead:
    learned = examples(3, 4)
    fitted = fit_best(learned, np.arange(12), 3)
    photos = tuple(Photo(f"a/{number}.jpg", "0" * 64) for number in range(12))
    told = Features("detector", "1" * 64, None, "2" * 64)
    names = ("screw", "Schraube ö", "螺丝")
    return ClassHead(
        names, fitted.classifier, fitted.calibration, fitted.expected, told, learned, photos, np.arange(12)
    )


def test_round_trip(head: ClassHead, tmp_path: Path) -> None:
    save_head(tmp_path / "parts.safetensors", head)
    again = load_head(tmp_path / "parts.safetensors")
    assert again.class_names == head.class_names
    assert again.features == head.features
    assert again.photos == head.photos
    assert again.calibration == head.calibration
    assert np.array_equal(again.probabilities(head.examples.features), head.probabilities(head.examples.features))
    assert again.photo_counts().tolist() == [4, 4, 4]


def test_what_is_no_such_file_is_refused(head: ClassHead, tmp_path: Path) -> None:
    file = tmp_path / "parts.safetensors"
    with pytest.raises(DataError, match="no such file"):
        load_head(file)
    save_file({"weights": np.zeros(3)}, file)
    with pytest.raises(DataError, match="holds no learned classes"):
        load_head(file)
    save_head(file, head)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="damaged or no file of classes"):
        load_head(file)
    file.write_bytes(content.replace(b'form\\": 1', b'form\\": 9'))
    with pytest.raises(DataError, match="another version"):
        load_head(file)
    save_head(file, head)
    columns = load_file(file)
    header = {"sniper classes": _header(file)}
    columns["weights"] = columns["weights"][:1]
    save_file(columns, file, metadata=header)
    with pytest.raises(DataError, match="rows of weights for 3 classes"):
        load_head(file)


def _header(file: Path) -> str:
    from safetensors import safe_open

    with safe_open(file, framework="np") as opened:
        return opened.metadata()["sniper classes"]
