"""Imports run downwards only, science stands without Dagster and MLflow, and loading the definitions stays light."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import cg_assets

PACKAGE = Path(cg_assets.__file__).parent
LEVELS = (
    ("core",),
    ("settings",),
    ("storage",),
    ("mapping",),
    ("biases",),
    ("potentials",),
    ("simulation",),
    ("training",),
    ("sampling",),
    ("labels",),
    ("evaluation",),
    ("figures",),
    ("systems",),
    ("registry",),
    ("assets",),
    ("orchestration",),
    ("operations",),
    ("api",),
    ("use",),
    ("cli",),
)
"""Packages from the lowest to the highest; each may import those below it, and nothing above, nowhere in its code."""
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
SCIENCE = [name for name in LEVEL if LEVEL[name] <= LEVEL["assets"] and name != "registry"]
LARGEST_PACKAGE, LONGEST_MODULE = 20, 500
LONG_MODULES: set[str] = set()


def imported(path):
    """Full names of what a file imports, at its top or within its functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("package", LEVEL)
def test_imports_run_downwards(package):
    root = PACKAGE / package
    upward = [
        f"{path.relative_to(PACKAGE)} imports {module}"
        for path in ([root.with_suffix(".py")] if not root.is_dir() else root.rglob("*.py"))
        for module in imported(path)
        if module.startswith("cg_assets.") and LEVEL.get(module.split(".")[1], -1) > LEVEL[package]
    ]
    assert upward == []


def test_every_module_has_its_level():
    assert {package_of(path) for path in PACKAGE.rglob("*.py")} == {"__init__", *LEVEL}


@pytest.mark.parametrize("package", SCIENCE)
def test_science_imports_neither_dagster_nor_mlflow(package):
    for path in (PACKAGE / package).rglob("*.py"):
        for module in imported(path):
            assert module.split(".")[0] not in {"dagster", "mlflow"}, f"{path} imports {module}"


def test_packages_and_modules_stay_small():
    for folder in {path.parent for path in PACKAGE.rglob("*.py")}:
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= LARGEST_PACKAGE, f"{folder} holds {len(modules)} modules"
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).as_posix() not in LONG_MODULES:
            lines = len(path.read_text().splitlines())
            assert lines <= LONGEST_MODULE, f"{path} has {lines} lines"


def test_loading_the_definitions_is_light(tmp_path):
    script = (
        "import sys, cg_assets.orchestration.definitions; "
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


def test_benchmarks_and_examples_import_what_exists():
    for path in [*PACKAGE.parent.glob("benchmarks/*.py"), *PACKAGE.parent.glob("examples/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cg_assets."):
                place = PACKAGE.parent.joinpath(*node.module.split("."))
                assert place.is_dir() or place.with_suffix(".py").is_file(), f"{path.name} imports {node.module}"
