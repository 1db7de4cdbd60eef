"""Reports and figures of the home folder, which `cg-assets ui` serves next to Dagster's pages that link to them."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import dagster as dg

from cg_assets.figures.report.page import scaled

FILES, VERSION, WIDTH = "/files", "sha256", "width"
"""Where they are served, and the parameters that ask for a certain content, and for a figure of a certain width."""
_WIDEST = 4000
_SHOWN_WIDTH = 560
"""Of figures on Dagster's pages, which show pictures in full size, or cut them [pixels]."""


def address(*names: str) -> str:
    """The address of a file, of its parts in the home folder."""
    return "/".join((FILES, *map(quote, names)))


def figure_link(instead: str, *names: str, content: bytes | None = None) -> dg.MarkdownMetadataValue:
    """A figure that pages show at once, as they do with Markdown that is short.

    Args:
        instead: what is shown where the figure is missing.
        names: parts of its place in the home folder.
        content: of the figure; another one is not shown.
    """
    version = "" if content is None else f"&{VERSION}={_hash(content)}"
    return dg.MetadataValue.md(f"![{instead}]({address(*names)}?{WIDTH}={_SHOWN_WIDTH}{version})")


def content_of(home: Path, name: str, asked: Mapping[str, str]) -> tuple[bytes, str] | str:
    """The content of a file with its media type, or why there is none.

    Args:
        home: the home folder.
        name: path of the file in it.
        asked: the parameters of its address.
    """
    try:
        path = (home / name).resolve()
        kinds = {(home / folder).resolve(): kind for folder, kind in (("reports", ".html"), ("figures", ".png"))}
        if not any(path.is_relative_to(folder) and path.suffix == kind for folder, kind in kinds.items()):
            return f"{name} is neither a report nor a figure"
        if not path.is_file():
            return f"{name} is not on this machine: run its system, or `cg-assets report`, here"
        content = path.read_bytes()
        if asked.get(VERSION, _hash(content)) != _hash(content):
            return f"{name} was made again since"
        if path.suffix == ".png" and (width := asked.get(WIDTH, "")).isdecimal():
            return scaled(content, min(int(width[:5]), _WIDEST)), "image/svg+xml"
        return content, "image/png" if path.suffix == ".png" else "text/html"
    except (OSError, ValueError, ZeroDivisionError, struct.error) as error:  # of the name, or of a damaged figure
        return f"this file cannot be shown: {error}"


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
