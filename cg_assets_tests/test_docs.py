"""The documentation: its links lead somewhere, and the modules and files that it names exist."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest
from conftest import REPOSITORY

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "benchmarks" / "README.md"]
PAGES += sorted((REPOSITORY / "docs").glob("*.md"))
FENCED = re.compile(r"^```.*?^```", flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", FENCED.sub("", page.read_text(encoding="utf-8"))):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_modules_and_files_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`(cg_assets(?:\.\w+)+)`", text)
    named += re.findall(r"^from (cg_assets[\w.]*) import", text, flags=re.MULTILINE)
    for name in named:
        assert pkgutil.resolve_name(name), name
    for name in re.findall(r"\b((?:cg_assets|cg_assets_tests|benchmarks)/[\w/]+\.(?:py|yaml))\b", text):
        assert (REPOSITORY / name).is_file(), name
