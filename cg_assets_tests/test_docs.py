"""The documentation: its links lead somewhere, the modules and files that it names exist, and the site is built."""

from __future__ import annotations

import importlib.util
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "benchmarks" / "README.md"]
PAGES += sorted((REPOSITORY / "docs").rglob("*.md"))
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


def test_the_site_is_built_strictly_and_fetches_nothing(tmp_path):
    if importlib.util.find_spec("mkdocs") is None:
        assert not os.environ.get("CG_ASSETS_REQUIRE_DOCS"), "CG_ASSETS_REQUIRE_DOCS is set, and there is no mkdocs"
        pytest.skip("the extra `docs` is not installed; CG_ASSETS_REQUIRE_DOCS=1 makes this an error")
    offline = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        env={**os.environ, **offline, "PYTHONPATH": str(REPOSITORY)},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    pages = {
        path.relative_to(tmp_path).as_posix(): path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")
    }
    assert len(pages) > len(PAGES) - 2
    for name, text in pages.items():
        fetched = re.findall(r"<(?:script|img)[^>]+src=\"?(https?:[^\" >]+)", text)
        fetched += re.findall(r"<link[^>]+stylesheet[^>]+href=\"?(https?:[^\" >]+)", text)
        assert not fetched, (name, fetched)
    assert "cg-assets refresh" in pages["reference/commands.html"]
    assert "frame_interval" in pages["reference/fields.html"]
    assert "Force labels" in pages["reference/python.html"] or "force labels" in pages["reference/python.html"]


def test_figures_are_those_of_the_tables():
    done = subprocess.run(
        [sys.executable, "docs/figures/make.py", "--check"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"run python docs/figures/make.py; stale: {done.stdout}{done.stderr}"


def test_every_page_of_results_has_a_figure():
    for page in [*(REPOSITORY / "docs" / "results").glob("*.md"), REPOSITORY / "benchmarks" / "README.md"]:
        assert re.search(r"^!\[[^\]]{20,}\]\(\S+\.png\)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE), page
