"""A report as one HTML page with its pictures beside it or inside it: no scripts, no network."""

import base64
import mimetypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple, Self

from sniper.files import write_bytes, write_text
from sniper.report.palette import Pixels
from sniper.writers.images import encode


class Number(NamedTuple):
    """A key number: the value as text, what it is, and a word on it."""

    value: str
    label: str
    note: str = ""


class _Picture(NamedTuple):
    name: str
    content: bytes
    caption: str
    alt: str
    wide: bool


@dataclass(slots=True)
class Report:
    """A page that grows from top to bottom. All text is plain and is escaped; every method returns the report.

    ``Report("Trees").paragraph("...").figure("loss.png", png, "Loss").write("runs/demo/trees")``
    """

    title: str
    lead: str = ""
    _parts: list[str | _Picture] = field(default_factory=list)
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

    def figure(
        self, name: str, picture: bytes | Pixels, caption: str = "", *, alt: str | None = None, wide: bool = False
    ) -> Self:
        """A picture, given as the bytes of an image file or as (H, W, 3) uint8 RGB, kept beside the page as ``name``.

        ``wide`` lets it be wider than the text. ``alt`` says it in words, by default the caption.

        Raises:
            ValueError: ``name`` has a folder in it, is taken, or does not end like an image file.
        """
        if Path(name).name != name or any(isinstance(part, _Picture) and part.name == name for part in self._parts):
            raise ValueError(f"expected a new file name without a folder for a figure, got {name!r}")
        if not (mimetypes.guess_type(name)[0] or "").startswith("image/"):
            raise ValueError(f"expected the name of an image file such as loss.png, got {name!r}")
        content = picture if isinstance(picture, bytes) else encode(picture, Path(name).suffix)
        self._parts.append(_Picture(name, content, caption, caption if alt is None else alt, wide))
        return self

    def html(self, *, embed: bool = True) -> str:
        """The page; pictures are inside it (``embed``) or referred to by name."""
        body = "\n".join(part if isinstance(part, str) else _figure(part, embed) for part in self._parts)
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
            for part in self._parts:
                if isinstance(part, _Picture):
                    write_bytes(folder / part.name, part.content)
        # The page comes last: once it is there, so is all that it shows.
        write_text(folder / "index.html", self.html(embed=embed))
        return folder / "index.html"


def _is_number(cell: object) -> bool:
    """Numbers, texts that begin like one, such as '12.4 Mpx' or '3 %', and what stands for a missing one."""
    text = str(cell).strip().lstrip("+-")
    return text in ("", "nan", "inf") or text[:1].isdigit()


def _figure(picture: _Picture, embed: bool) -> str:
    source = escape(picture.name, quote=True)
    if embed:
        kind = mimetypes.guess_type(picture.name)[0]
        source = f"data:{kind};base64,{base64.b64encode(picture.content).decode()}"
    image = f'<img src="{source}" alt="{escape(picture.alt, quote=True)}" loading="lazy">'
    # A click shows the picture alone at full size; browsers refuse that for pictures inside the page.
    linked = image if embed else f'<a href="{source}">{image}</a>'
    caption = f"<figcaption>{escape(picture.caption)}</figcaption>" if picture.caption else ""
    return f"<figure{' class=wide' if picture.wide else ''}>{linked}{caption}</figure>"
