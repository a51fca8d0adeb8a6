"""Charts as SVG: well formed, inside their frame, for much, little and no data."""

from xml.etree import ElementTree

import numpy as np
import pytest

from sniper.report.palette import BLUE, ORANGE
from sniper.report.vector_charts import Line, line_chart, size_chart

LABELS = {"x_label": "step", "y_label": "loss <b>", "alt": 'a "chart" & more'}


def drawn(svg: str) -> ElementTree.Element:
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label")
    return root


def points_of(root: ElementTree.Element) -> list[np.ndarray]:
    texts = [line.get("points") or "" for line in root.iter("polyline")]
    return [np.asarray([p.split(",") for p in text.split()], float).reshape(-1, 2) for text in texts]


def test_lines_go_where_their_numbers_say() -> None:
    x = np.asarray([0.0, 5, 10])
    lines = [Line("up", x, x / 10, BLUE), Line("down", x, 1 - x / 10, ORANGE)]
    root = drawn(line_chart(lines, x_limits=(0, 10), y_limits=(0, 1), **LABELS))
    up, down = points_of(root)
    assert (np.diff(up[:, 1]) < 0).all()
    np.testing.assert_allclose(up[:, 1], down[::-1, 1])
    assert len(list(root.iter("circle"))) == 6, "few points are marked"
    words = [text.text for text in root.iter("text")]
    assert {"step", "loss <b>", "0", "10", "1"} <= set(words)


def test_a_long_line_has_as_many_points_as_a_screen_shows_and_stays_inside() -> None:
    x = np.arange(100_000.0)
    lines = [Line("", x, np.sin(x) * 9, BLUE, faint=True)]
    root = drawn(line_chart(lines, x_limits=(0, 99_999), y_limits=(0, 1), **LABELS))
    (line,) = points_of(root)
    assert len(line) <= 400
    assert (line >= 0).all()
    assert (line <= [400, 240]).all()
    assert "50k" in [text.text for text in root.iter("text")]


@pytest.mark.parametrize("limits", [(0, 0), (0, 1e-9), (0, 1), (0, 123456)])
def test_any_limits_have_ticks(limits: tuple[float, float]) -> None:
    assert drawn(line_chart([], x_limits=limits, y_limits=limits, **LABELS)).findall("text")


@pytest.mark.parametrize("sizes", [[], [10.0], [0.0, np.nan, 3.0], list(np.geomspace(1, 2000, 500))])
@pytest.mark.parametrize("levels", [[], [("x 2", 0.0, 40.0), ("long 512 px", 25.0, np.inf)], [("off", 5000.0, 9000.0)]])
def test_sizes_under_the_levels(sizes: list[float], levels: list[tuple[str, float, float]]) -> None:
    root = drawn(size_chart(np.asarray(sizes), levels, alt="sizes"))
    words = [text.text for text in root.iter("text")]
    assert {name for name, _, _ in levels} <= set(words)
    for rect in root.iter("rect"):
        assert 0 <= float(rect.get("x", -1)) <= 400
        assert float(rect.get("width", -1)) >= 0
