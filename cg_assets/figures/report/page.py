"""One self-contained HTML page of sections: text, tables, pictures, no addresses that are loaded."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p class="lead">{lead}</p>
<nav>{links}</nav>
{sections}
</main>
</body>
</html>
"""


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        title: its heading.
        body: HTML, as the functions below make it.
    """

    title: str
    body: str

    @property
    def anchor(self) -> str:
        """Its name in links of the page."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.title.lower())


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """A page.

    Args:
        title: of the page, plain text.
        lead: what it is about in a sentence, plain text.
        sections: one after the other.
    """
    links = " ".join(f'<a href="#{part.anchor}">{escape(part.title)}</a>' for part in sections)
    parts = [
        f'<section id="{part.anchor}">\n<h2>{escape(part.title)}</h2>\n{part.body}\n</section>' for part in sections
    ]
    style = asset("page.css")
    return _PAGE.format(title=escape(title), lead=escape(lead), style=style, links=links, sections="\n".join(parts))


def asset(name: str) -> str:
    """A file of this package that pages embed."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def table(rows: Iterable[Mapping[str, object]]) -> str:
    """A table of rows with the same columns; columns that are empty in all rows are left out."""
    found = list(rows)
    header = [name for name in found[0] if any(str(row[name]) for row in found)] if found else []
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in header)
    lines = ["".join(f"<td>{escape(str(row[name]))}</td>" for name in header) for row in found]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def picture(png: bytes, caption: str) -> str:
    """A figure with its caption."""
    data = base64.b64encode(png).decode()
    text = escape(caption, quote=True)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'


def scaled(png: bytes, width: int) -> bytes:
    """A PNG figure as SVG, at most so many pixels wide, for pages that show pictures in full size."""
    own_width, own_height = struct.unpack(">II", png[16:24])  # of its first chunk
    width = min(width, own_width)
    size = f'width="{width}" height="{width * own_height / own_width:.0f}"'
    data = base64.b64encode(png).decode()
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {own_width} {own_height}">'
    image = f'<image width="{own_width}" height="{own_height}" href="data:image/png;base64,{data}"/>'
    return f"{head}{image}</svg>".encode()


def folded(summary: str, body: str) -> str:
    """HTML that is shown on a click."""
    return f"<details><summary>{escape(summary)}</summary>\n{body}\n</details>"


def verbatim(text: str) -> str:
    """Text as it is, of a file for example."""
    return f"<pre>{escape(text)}</pre>"
