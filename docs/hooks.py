"""Hooks of MkDocs: pages that stand outside `docs/`, and reference pages that are made from the code."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).parents[1]
PAGES = {"CONTRIBUTING.md": "CONTRIBUTING.md", "benchmarks/README.md": "benchmarks.md"}
"""Pages of the repository that the site has, too, and their names there."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside `docs/` and the files in `examples/`."""
    for source, name in PAGES.items():
        files.append(File.generated(config, name, content=(REPOSITORY / source).read_text(encoding="utf-8")))
    for path in sorted((REPOSITORY / "examples").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            name = str(path.relative_to(REPOSITORY))
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what is made from the code, and point links at the pages of the site."""
    if "<!-- commands -->" in markdown:
        from cg_assets.cli.parser import command_parser

        markdown = markdown.replace("<!-- commands -->", commands(command_parser()))
    if "<!-- fields -->" in markdown:
        from cg_assets.systems.schema import reference_markdown

        markdown = markdown.replace("<!-- fields -->", reference_markdown())
    return re.sub(r"\]\(([^)#\s]+)", lambda found: f"]({_on_site(found[1], page.file.src_uri)}", markdown)


def _on_site(target: str, page: str) -> str:
    """A relative link of the repository as one of the site."""
    if target.startswith(("https://", "http://")):
        return target
    source = next((source for source, name in PAGES.items() if name == page), f"docs/{page}")
    there = ((REPOSITORY / source).parent / target).resolve().relative_to(REPOSITORY).as_posix()
    name = PAGES.get(there, there.removeprefix("docs/"))
    return "../" * page.count("/") + name


def commands(parser: argparse.ArgumentParser) -> str:
    """Every command of a parser as Markdown: what it does, how it is called, its arguments."""
    actions: Any = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    lines = []
    for name, sub in actions.choices.items():
        usage = " ".join(sub.format_usage().removeprefix("usage: ").split())
        lines += [f"## {name}", "", f"{_sentence(sub.description)}", "", f"    {usage}", ""]
        rows = [
            (", ".join(action.option_strings) or action.metavar or action.dest, _sentence(action.help or ""))
            for action in sub._actions
            if not isinstance(action, argparse._HelpAction)
        ]
        if rows:
            lines += ["| argument | what it is |", "|---|---|"]
            lines += [
                f"| `{argument}` | {meaning} |".replace("FILE|MODEL", "FILE\\|MODEL") for argument, meaning in rows
            ]
            lines.append("")
    return "\n".join(lines)


def _sentence(text: str) -> str:
    """A help text with a capital letter and a full stop."""
    text = " ".join(text.split())
    return f"{text[:1].upper()}{text[1:]}{'' if not text or text.endswith('.') else '.'}"
