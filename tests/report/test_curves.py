"""Charts come out as pictures for much, little and no data."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from sniper.errors import DataError
from sniper.report.curves import draw_pr_curves, draw_size_histogram, draw_training_curves
from sniper.report.metrics import read_metrics


def size_of(png: bytes) -> tuple[int, ...]:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).shape


def test_training_curves_of_a_growing_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    for text in ("", "step,epoch,loss\n", "step,epoch,loss\n1,0.1,2.5\n"):
        path.write_text(text)
        assert size_of(draw_training_curves(path))[2] == 3
    narrow = size_of(draw_training_curves(path))
    path.write_text("step,loss,loss/a,eval/AP\n1,2.5,1,\n2,nan,1,\n3,1.5,1,\n3,,,0.25\n4,-")
    np.testing.assert_array_equal(read_metrics(path)["eval/AP"], [np.nan, np.nan, np.nan, 0.25])
    wide = size_of(draw_training_curves(path))
    assert wide[1] > narrow[1]  # a second panel for the evaluations
    path.write_text("step,loss,metric/focus_recall_at_10,eval/AP\n1,2.5,nan,\n2,1.5,0.25,\n3,,,0.25\n")
    assert size_of(draw_training_curves(path))[1] > wide[1]  # and a third for what the detector says of itself


def test_metrics_that_cannot_be_read_name_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    with pytest.raises(DataError, match=r"metrics\.csv.*give"):
        read_metrics(path)
    path.write_text("step,loss\n1,2\n2,much\n")
    with pytest.raises(DataError, match=r"line 3: loss is 'much'"):
        read_metrics(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="column named step"):
        read_metrics(path)


def test_pr_curves() -> None:
    recall = np.linspace(0, 1, 101)
    curves = {f"class {i}": (recall, np.where(recall < 0.5, 1 - recall, 0)) for i in range(14)}
    curves["unknown"] = recall, np.full(101, -1.0)
    assert size_of(draw_pr_curves(curves, scores={"class 0": 0.5}))
    assert size_of(draw_pr_curves({}))


@pytest.mark.parametrize("sizes", [[], [10.0], [0.0, np.nan, 3.0], list(np.geomspace(1, 2000, 500))])
@pytest.mark.parametrize("ranges", [[], [(0.0, 40.0), (25.0, np.inf)], [(5000.0, 9000.0)]])
def test_size_histogram(sizes: list[float], ranges: list[tuple[float, float]]) -> None:
    assert size_of(draw_size_histogram(np.asarray(sizes), ranges))
