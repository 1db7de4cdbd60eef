"""Compiled code is kept for the sources that it was made of, and only there."""

import os
import subprocess
import sys

from conftest import REPOSITORY

from cg_assets.core import compilation
from cg_assets.core.compilation import _hash_of_sources

PROGRAM = """
import numba
from cg_assets.core.compilation import kept

@kept(error_model="numpy")
def double(x):
    return 2 * x

print(double(21), sum(double.stats.cache_misses.values()), repr(numba.config.CACHE_DIR))
"""


def run(tmp_path, folder):
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "NUMBA_CACHE_DIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split(), done.stderr


def test_the_second_process_does_not_compile(tmp_path):
    folder = tmp_path / "kept"
    assert run(tmp_path, folder)[0] == ["42", "1", repr(str(folder))]
    assert run(tmp_path, folder)[0] == ["42", "0", repr(str(folder))]


def test_where_nothing_can_be_kept_each_process_compiles_and_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    words, errors = run(tmp_path, tmp_path / "file" / "below")
    assert words[0] == "42"
    assert "each process compiles for itself" in errors and "set NUMBA_CACHE_DIR" in errors


def test_all_sources_of_packages_that_compile_count(tmp_path):
    """numba alone would keep machine code where a callee, or a constant of a module without compiled code, changed."""
    for name, content in {"caller": "compiled", "callee": "compiled: one", "constants": "CUSP = 1e-6"}.items():
        (tmp_path / "potentials" / name).mkdir(parents=True)
        (tmp_path / "potentials" / name / "kernel.py").write_text(content)
    (tmp_path / "training").mkdir()
    hashes = [_hash_of_sources(tmp_path)]
    for name, content in {"callee": "compiled: two", "constants": "CUSP = 1e-5"}.items():
        (tmp_path / "potentials" / name / "kernel.py").write_text(content)
        hashes.append(_hash_of_sources(tmp_path))
    assert len(set(hashes)) == 3
    (tmp_path / "training" / "loop.py").write_text("plain")
    assert _hash_of_sources(tmp_path) == hashes[-1]


def test_generated_source_is_kept_with_its_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(compilation, "_folder", lambda: tmp_path)
    sources = [f"number = {number}\n\ndef times(x):\n    return number * x\n" for number in (2, 3)]
    for hits in (0, 1):
        made = [compilation.kept_source(source, "times", {}) for source in sources]
        assert [times(7) for times in made] == [14, 21]
        written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.py")}
        assert [sum(times.stats.cache_hits.values()) for times in made] == [hits, hits]
    assert [compilation.kept_source(source, "times", {})(7) for source in sources] == [14, 21]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.py")} == written, "numba stamps code by it"
    monkeypatch.setattr(compilation, "_folder", lambda: None)
    assert compilation.kept_source(sources[0], "times", {})(7) == 14
