"""A report as one HTML page with its pictures beside it or inside it: no scripts, no network."""

import base64
import mimetypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from sniper.files import write_bytes, write_text
from sniper.report.layout import Key
from sniper.report.palette import Pixels, hexadecimal
from sniper.writers.images import encode

_BORDER = {"solid": "solid", "dashed": "dashed", "hatched": "dotted"}


class Number(NamedTuple):
    """A key number: the value as text, what it is, and a word on it."""

    value: str
    label: str
    note: str = ""


class Figure(NamedTuple):
    """A picture and what is said of it: the bytes of an image file, (H, W, 3) uint8 RGB, or SVG text."""

    name: str  # of its file, where pictures lie beside the page
    picture: "bytes | Pixels | str"
    caption: str = ""
    alt: str | None = None  # the picture in words, by default the caption
    heading: str = ""  # above the picture
    keys: Sequence[Key] = ()  # names of its lines


class Bar(NamedTuple):
    """A bar of a chart: what it is, its length, and the number as text."""

    label: str
    value: float
    text: str
    note: str = ""


class _Picture(NamedTuple):
    name: str
    content: bytes
    caption: str
    alt: str
    heading: str = ""
    keys: Sequence[Key] = ()


class _Group(NamedTuple):
    """Pictures in a grid; SVG is text already."""

    figures: "tuple[_Picture | str, ...]"
    style: str


@dataclass(slots=True)
class Report:
    """A page that grows from top to bottom. All text is plain and is escaped; every method returns the report.

    ``Report("Trees").paragraph("...").figure("loss.png", png, "Loss").write("runs/demo/trees")``
    """

    title: str
    lead: str = ""
    _parts: list[str | _Group] = field(default_factory=list)
    _headings: list[str] = field(default_factory=list)

    def heading(self, text: str) -> Self:
        """Begin a section; sections are listed at the top of the page when there are three or more."""
        self._headings.append(text)
        self._parts.append(f'<h2 id="s{len(self._headings)}">{escape(text)}</h2>')
        return self

    def paragraph(self, text: str) -> Self:
        """A paragraph; blank lines in ``text`` begin new ones."""
        self._parts += [f"<p>{escape(part.strip())}</p>" for part in text.split("\n\n") if part.strip()]
        return self

    def code(self, text: str) -> Self:
        """Commands or other text to be copied, as it is."""
        self._parts.append(f"<pre><code>{escape(text.strip())}</code></pre>")
        return self

    def numbers(self, numbers: Sequence[Number]) -> Self:
        """A row of key numbers."""
        cards = [
            f'<div class="number"><strong>{escape(n.value)}</strong><span>{escape(n.label)}</span>'
            + (f"<small>{escape(n.note)}</small>" if n.note else "")
            + "</div>"
            for n in numbers
        ]
        self._parts.append(f'<div class="numbers">{"".join(cards)}</div>')
        return self

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str = "") -> Self:
        """A table; columns of numbers are set right, except the first, which names the rows.

        Raises:
            ValueError: a row is not as long as the header.
        """
        numeric = [bool(rows) and all(_is_number(cell) for cell in column) for column in zip(*rows, strict=True)]
        numeric = [False, *numeric[1:]] if numeric else [False] * len(header)

        def row(cells: Sequence[object], tag: str) -> str:
            pairs = zip(cells, numeric, strict=True)
            return "".join(f"<{tag}{' class=n' if right else ''}>{escape(str(cell))}</{tag}>" for cell, right in pairs)

        head = f"<thead><tr>{row(header, 'th')}</tr></thead>"
        body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in rows)
        top = f"<caption>{escape(caption)}</caption>" if caption else ""
        self._parts.append(f'<div class="scroll"><table>{top}{head}<tbody>{body}</tbody></table></div>')
        return self

    def matrix(self, rows: Sequence[str], columns: Sequence[str], counts: NDArray[np.integer], *, corner: str) -> Self:
        """Counts (R, C) as a table; a cell is the darker, the larger its share of the row. Zeros are left out."""
        head = "".join(f"<th class=n>{escape(name)}</th>" for name in columns)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        body = ""
        for name, numbers, row in zip(rows, counts.tolist(), shares.tolist(), strict=True):
            cells = "".join(
                f'<td class=n style="background:color-mix(in srgb, var(--accent) {share:.0%}, transparent)">'
                f"{number or ''}</td>"
                for number, share in zip(numbers, [0.7 * share for share in row], strict=True)
            )
            body += f"<tr><th>{escape(name)}</th>{cells}</tr>"
        self._parts.append(
            f'<div class="scroll"><table class="matrix"><thead><tr><th>{escape(corner)}</th>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )
        return self

    def bars(self, bars: Sequence[Bar]) -> Self:
        """Bars below each other; the first is coloured, the longest as wide as the page."""
        longest = max((bar.value for bar in bars), default=0) or 1
        rows = "".join(
            f'<div class="bar"><span>{escape(bar.label)}</span><b>{escape(bar.text)}</b>'
            f'<i style="width:{100 * bar.value / longest:.1f}%"></i>'
            + (f"<small>{escape(bar.note)}</small>" if bar.note else "")
            + "</div>"
            for bar in bars
        )
        self._parts.append(f'<div class="bars">{rows}</div>')
        return self

    def legend(self, keys: Sequence[Key]) -> Self:
        """What the colours and styles of boxes mean."""
        items = "".join(
            f'<span><i style="border:3px {_BORDER[key.style]} {hexadecimal(key.color)}"></i>{escape(key.text)}</span>'
            for key in keys
        )
        self._parts.append(f'<p class="legend">{items}</p>')
        return self

    def figure(
        self, name: str, picture: bytes | Pixels, caption: str = "", *, alt: str | None = None, wide: bool = False
    ) -> Self:
        """A picture, kept beside the page as ``name``; see ``figures``."""
        return self.figures([Figure(name, picture, caption, alt)], wide=wide)

    def figures(self, figures: Sequence[Figure], *, wide: bool = False, stacked: bool = False) -> Self:
        """Pictures side by side where there is room, else or if ``stacked`` below each other.

        ``wide`` lets them be wider than the text.

        Raises:
            ValueError: a name has a folder in it, is taken, or does not end like an image file.
        """
        style = "figures" + (" wide" if wide else "") + (" stacked" if stacked else "")
        self._parts.append(_Group(tuple(self._kept(figure) for figure in figures), style))
        return self

    def _kept(self, figure: Figure) -> "_Picture | str":
        if isinstance(figure.picture, str):
            return _framed(figure.picture, figure.heading, figure.caption, figure.keys)
        name = figure.name
        if Path(name).name != name or any(picture.name == name for picture in self._pictures()):
            raise ValueError(f"expected a new file name without a folder for a figure, got {name!r}")
        if not (mimetypes.guess_type(name)[0] or "").startswith("image/"):
            raise ValueError(f"expected the name of an image file such as loss.png, got {name!r}")
        content = figure.picture if isinstance(figure.picture, bytes) else encode(figure.picture, Path(name).suffix)
        alt = figure.alt or figure.caption or figure.heading
        return _Picture(name, content, figure.caption, alt, figure.heading, figure.keys)

    def _pictures(self) -> list[_Picture]:
        groups = (part.figures for part in self._parts if isinstance(part, _Group))
        return [figure for group in groups for figure in group if isinstance(figure, _Picture)]

    def html(self, *, embed: bool = True) -> str:
        """The page; pictures are inside it (``embed``) or referred to by name."""
        body = "\n".join(part if isinstance(part, str) else _group(part, embed) for part in self._parts)
        links = "".join(f'<a href="#s{i}">{escape(text)}</a>' for i, text in enumerate(self._headings, start=1))
        contents = f"<nav>{links}</nav>" if len(self._headings) > 2 else ""
        lead = f'<p class="lead">{escape(self.lead)}</p>' if self.lead else ""
        style = (files("sniper.report") / "page.css").read_text(encoding="utf-8")
        return (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
            f"<h1>{escape(self.title)}</h1>\n{lead}\n{contents}\n{body}\n</main>\n</body>\n</html>\n"
        )

    def write(self, folder: Path | str, *, embed: bool = False) -> Path:
        """Write ``index.html`` and, unless they go into it (``embed``), the pictures to ``folder``; return the page.

        Raises:
            StorageError: the folder cannot be written or the disk is full.
        """
        folder = Path(folder)
        if not embed:
            for picture in self._pictures():
                write_bytes(folder / picture.name, picture.content)
        # The page comes last: once it is there, so is all that it shows.
        write_text(folder / "index.html", self.html(embed=embed))
        return folder / "index.html"


def _is_number(cell: object) -> bool:
    """Numbers, texts that begin like one, such as '12.4 Mpx' or '3 %', and what stands for a missing one."""
    text = str(cell).strip().lstrip("+-")
    return text in ("", "nan", "inf") or text[:1].isdigit()


def _group(group: _Group, embed: bool) -> str:
    figures = [figure if isinstance(figure, str) else _figure(figure, embed) for figure in group.figures]
    return f'<div class="{group.style}">{"".join(figures)}</div>'


def _figure(picture: _Picture, embed: bool) -> str:
    source = escape(picture.name, quote=True)
    if embed:
        kind = mimetypes.guess_type(picture.name)[0]
        source = f"data:{kind};base64,{base64.b64encode(picture.content).decode()}"
    lazy = "" if embed else ' loading="lazy"'
    image = f'<img src="{source}" alt="{escape(picture.alt, quote=True)}"{lazy}>'
    # A click shows the picture alone at full size; browsers refuse that for pictures inside the page.
    linked = image if embed else f'<a href="{source}">{image}</a>'
    return _framed(linked, picture.heading, picture.caption, picture.keys)


def _framed(content: str, heading: str, caption: str, keys: Sequence[Key]) -> str:
    top = f"<b>{escape(heading)}</b>" if heading else ""
    bottom = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    names = "".join(
        f'<span><i class="line" style="background:{hexadecimal(key.color)}"></i>{escape(key.text)}</span>'
        for key in keys
    )
    return f"<figure>{top}{content}" + (f'<p class="legend">{names}</p>' if names else "") + f"{bottom}</figure>"
