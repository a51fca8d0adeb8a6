"""The page stands alone, says what it was given and nothing more."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from sniper.report.html import Bar, Figure, Number, Report
from sniper.report.layout import Key
from sniper.report.palette import BLUE
from sniper.report.vector_charts import size_chart

PICTURE = np.zeros((4, 6, 3), dtype=np.uint8)
EVIL = '<script>alert("1")</script> & "quotes"'


class Balance(HTMLParser):
    """Collects tags and fails when they do not close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(page: str) -> Balance:
    parser = Balance()
    parser.feed(page)
    assert not parser.open
    return parser


def full(text: str) -> Report:
    report = Report(text, text).numbers([Number(text, text, text)]).paragraph(f"{text}\n\n{text}").code(text)
    report.table([text, "AP"], [[text, 0.5]], caption=text)
    report.bars([Bar(text, 2, text, text), Bar(text, 0, text)]).legend([Key(BLUE, text, "dashed")])
    report.matrix([text], [text, text], np.asarray([[3, 0]]), corner=text)
    for i in range(3):
        report.heading(text).figure(f"{i}.png", PICTURE, text, wide=i == 0)
    chart = size_chart(np.asarray([9.0]), [(text, 0, 20)], alt=text)
    return report.figures([Figure("", chart, text, heading=text, keys=[Key(BLUE, text)])], stacked=True)


def test_everything_is_escaped() -> None:
    page = parsed(full(EVIL).html())
    assert "script" not in {tag for tag, _ in page.seen}
    assert [a["alt"] for tag, a in page.seen if tag == "img"] == [EVIL] * 3


def test_no_network_and_no_scripts() -> None:
    page = full("plain").html()
    assert not re.search(r"https?:|//[a-z]|@import|<script|<link", page)


def test_pictures_lie_beside_the_page_or_inside_it(tmp_path: Path) -> None:
    beside = full("t").write(tmp_path / "beside")
    assert {p.name for p in beside.parent.iterdir()} == {"index.html", "0.png", "1.png", "2.png"}
    inside = full("t").write(tmp_path / "inside", embed=True)
    assert {p.name for p in inside.parent.iterdir()} == {"index.html"}
    sources = [a["src"] for tag, a in parsed(inside.read_text()).seen if tag == "img"]
    assert all(source and source.startswith("data:image/png;base64,") for source in sources)


def test_numbers_in_tables_stand_right() -> None:
    page = Report("t").table(["name", "AP", "pixels"], [["a", 0.5, "12.4 Mpx"], ["512", "-0.25", "-"]]).html()
    assert page.count("<td class=n>") == 4
    page = Report("t").table(["name", "note"], [["a", "12 px"], ["b", "none"]]).html()
    assert page.count("class=n") == 0
    with pytest.raises(ValueError, match=r"zip"):
        Report("t").table(["a", "b"], [["only one"]])
    parsed(Report("t").table(["a"], []).html())


@pytest.mark.parametrize("name", ["../x.png", "a/b.png", "x.txt", "x"])
def test_figure_names_that_cannot_be(name: str) -> None:
    with pytest.raises(ValueError, match="file"):
        Report("t").figure(name, PICTURE)


def test_a_cell_of_a_matrix_is_shaded_by_its_share_of_the_row() -> None:
    page = Report("t").matrix(["a", "b"], ["a", "b"], np.asarray([[3, 1], [0, 0]]), corner="is").html()
    shades = [part.split(",")[1].strip() for part in page.split("color-mix(")[1:]]
    assert shades == ["var(--accent) 52%", "var(--accent) 18%", "var(--accent) 0%", "var(--accent) 0%"]
    assert page.count(">0</td>") == 0


def test_two_figures_need_two_names() -> None:
    with pytest.raises(ValueError, match="new file name"):
        Report("t").figure("a.png", PICTURE).figure("a.png", PICTURE)


def test_empty_report() -> None:
    page = Report("t").html()
    parsed(page)
    assert "<img" not in page
    assert ">t<" in page
