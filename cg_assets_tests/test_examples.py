"""The scripts in examples/ run, and what they make is sound; the public names are light to import."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cg_assets
from cg_assets import Samples, label, load_system, sample
from cg_assets.core.errors import SystemSpecError

REPOSITORY = Path(cg_assets.__file__).parents[1]
EXAMPLES = REPOSITORY / "examples"
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


def run(code, tmp_path):
    return subprocess.run(
        [sys.executable, *code], env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True, timeout=240
    )


@pytest.mark.parametrize("name", ["model_potential", "configurations_alone"])
def test_a_potential_of_two_wells_is_judged(name, tmp_path):
    done = run([str(EXAMPLES / f"{name}.py")], tmp_path)
    assert done.returncode == 0, done.stderr
    found = re.search(r"^pmf_rmse +model +(\d\.\d+) ± \S+ kT +≤ 0\.5", done.stdout, flags=re.MULTILINE)
    assert found, done.stdout
    assert float(found[1]) < 0.5
    assert list(tmp_path.iterdir()) == [], "an example makes no home folder"


def test_a_small_molecule_is_force_matched(tmp_path):
    done = run([str(EXAMPLES / "small_molecule.py")], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "22 atoms, 10 beads" in done.stdout
    assert "10 of 10 replicas stable" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_every_script_is_tested():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {
        "model_potential",
        "configurations_alone",
        "small_molecule",
        "constant_pressure",  # in use/test_export.py
    }
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 45


def test_the_door_is_light(tmp_path):
    code = "import sys, cg_assets; print(*[m for m in ('numpy', 'torch', 'dagster') if m in sys.modules])"
    assert run(["-c", code], tmp_path).stdout.split() == []
    code = (
        "import sys\nfrom cg_assets import *\nprint(*[m for m in ('torch', 'dagster', 'mlflow') if m in sys.modules])"
    )
    assert run(["-c", code], tmp_path).stdout.split() == []
    for name in cg_assets.__all__:
        assert getattr(cg_assets, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cg_assets.nothing


def test_what_is_not_there_is_named():
    system = load_system(EXAMPLES / "two_wells.yaml")
    with pytest.raises(SystemSpecError, match="no plan 'biased'; there are unbiased"):
        sample(system, "biased")
    samples = sample(system)
    with pytest.raises(SystemSpecError, match="no labels 'kernel'; there are flow"):
        label(system, samples, "kernel")


def test_the_same_seed_gives_the_same_frames():
    system = load_system(EXAMPLES / "two_wells.yaml")
    one, other, third = (sample(system, seed=seed).frames for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.positions, other.positions)
    assert not np.array_equal(one.positions, third.positions)
    labelled = label(system, Samples(one)).frames
    np.testing.assert_array_equal(labelled.positions[:, 0, 0], one.positions[:, 0, 0])
    np.testing.assert_array_equal(labelled.forces[:, 0, 0], one.forces[:, 0, 0])
