"""The science wing stands alone, and loading the definitions stays light."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import cg_assets

PACKAGE = Path(cg_assets.__file__).parent
SCIENCE = (
    "sampling",
    "mapping",
    "kernels",
    "thermal",
    "potentials",
    "training",
    "simulation",
    "analysis",
    "storage",
    "systems",
    "use",
)
DAGSTER_WING = {
    "assets",
    "checks",
    "automation",
    "resources",
    "executors",
    "definitions",
    "doctor",
    "lineage",
    "prune",
    "refresh",
    "runs",
    "demo",
    "pages",
    "cli",
}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("folder", SCIENCE)
def test_science_imports_neither_dagster_nor_mlflow(folder):
    for path in (PACKAGE / folder).rglob("*.py"):
        if path.name in {"registered_model.py", "registered_kernel.py"}:  # these run inside MLflow, without cg_assets
            continue
        for module in imported(path):
            parts = module.split(".")
            assert parts[0] not in {"dagster", "mlflow"}, f"{path} imports {module}"
            assert not (parts[0] == "cg_assets" and len(parts) > 1 and parts[1] in DAGSTER_WING), f"{path}: {module}"


def test_loading_the_definitions_is_light(tmp_path):
    script = (
        "import sys, cg_assets.definitions; "
        "print(*[m for m in ('torch', 'openmm', 'mlflow', 'mdtraj', 'matplotlib', 'numba') if m in sys.modules])"
    )
    environment = {"PATH": "/usr/bin:/bin", "CG_ASSETS_HOME": str(tmp_path), "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_file_is_part_of_the_installed_package():
    settings = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for path in PACKAGE.rglob("*"):
        if path.is_file() and path.suffix != ".py" and path.parent.name != "__pycache__":  # numba caches there too
            package = ".".join(path.parent.relative_to(PACKAGE.parent).parts)
            assert any(path.match(pattern) for pattern in settings.get(package, [])), f"{path} is not installed"
