"""The shipped systems at full settings reach their accuracy; an hour on two cores."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from small_systems import landscape_of
from test_pipeline import evaluation_of

from cg_assets.core.statistics.metrics import barrier_height, pmf_rmse
from cg_assets.registry.tracking import ModelTracking
from cg_assets.sampling.model_potential.quadrature import exact_pmf
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]

PREDICT = """
import sys
sys.modules["cg_assets"] = None
import mlflow.pyfunc, numpy as np
mlflow.set_tracking_uri({uri!r})
model = mlflow.pyfunc.load_model("models:/{name}@candidate")
np.save({found!r}, model.predict({{"positions": np.load({given!r}).reshape(-1, 1, 1)}})["energy"])
"""


def run(command, name, text=None, timeout=5400):
    """Run a system, a shipped one or one of this text, and give the home's store."""
    if text is not None:
        command.add_system(text)
    done = command("run", name, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return ParquetStore(command.home)


def figures_of_merit(store, name, potential):
    """Quantity to (value, standard error, reference)."""
    return {
        item.key: (item.value.value, item.value.standard_error, item.reference.value if item.reference else math.nan)
        for item in evaluation_of(store, name, potential).quantities
    }


def registered_pmf(folder, home, name, grid):
    """The PMF on a grid from the registered model, in a process where this project cannot be imported."""
    given, found = folder / "grid.npy", folder / "energy.npy"
    np.save(given, grid)
    code = PREDICT.format(uri=ModelTracking(None, home).uri, name=name, given=str(given), found=str(found))
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return np.load(found).astype(np.float64)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_muller_brown(command, tmp_path, seed):
    name = f"muller_brown_seed_{seed}"
    text = f"extends: muller_brown\nname: {name}\ntitle: Müller-Brown potential, seed {seed}\n"
    store = run(command, name, text + f"training: {{seed: {seed}}}\n")
    system = load_system(name)
    grid = np.linspace(15, 46, 400)
    exact = exact_pmf(landscape_of(system), grid).pmf
    floors = {"unbiased": ("mapped_forces", 0.420), "biased": ("relabelled_forces", 0.408)}
    for potential, (labels, floor) in floors.items():
        pmf = registered_pmf(tmp_path, command.home, f"{name}.{potential}", grid)
        error = pmf_rmse(grid, pmf, exact, (15, 46)).value
        heights = [barrier_height(grid, energy, (15, 31.2), (31.2, 46)).value for energy in (pmf, exact)]
        measured = store.describe(name, labels, "0000").metadata.extra["noise_floor"]["value"]
        print(
            f"seed {seed} {potential}: RMSE {error:.4f} kT, barrier {heights[0]:.3f} ({heights[1]:.3f}), {measured:.4f}"
        )
        assert abs(measured - floor) < 0.01 * floor
        if potential == "biased":
            assert error <= 0.05
            assert abs(heights[0] - heights[1]) <= 0.05


def test_muller_brown_diagonal(command, tmp_path):
    run(command, "muller_brown_diagonal")
    system = load_system("muller_brown_diagonal")
    interval = system.evaluation.reference.range
    grid = np.linspace(*interval, 400)
    exact = exact_pmf(landscape_of(system), grid).pmf
    error = {
        potential: pmf_rmse(
            grid, registered_pmf(tmp_path, command.home, f"muller_brown_diagonal.{potential}", grid), exact, interval
        ).value
        for potential in ("biased", "unbiased")
    }
    print(error)
    assert error["biased"] <= 0.03
    assert error["unbiased"] >= 0.3


def test_muller_brown_plane(command):
    """Bounds are four standard deviations of four seeds away from their means (docs/results/kernels.md); 3 minutes."""
    store = run(command, "muller_brown_plane")
    found = {name: figures_of_merit(store, "muller_brown_plane", name) for name in ("noise", "flow", "mixed")}
    print({name: {key: merits[key] for key in ("kl_divergence", "width.well")} for name, merits in found.items()})
    exact = found["noise"]["width.well"][2]
    assert found["noise"]["kl_divergence"][0] >= 0.15
    assert found["noise"]["width.well"][0] >= 1.35 * exact
    for name in ("flow", "mixed"):
        assert found[name]["kl_divergence"][0] <= 0.02
        assert abs(found[name]["width.well"][0] - exact) <= 0.02 * exact


def test_capped_alanine_in_implicit_solvent(command):
    name = "capped_alanine_implicit"
    store = run(command, name)
    unbiased, biased = (figures_of_merit(store, name, potential) for potential in ("unbiased", "biased"))
    print(unbiased, biased)
    assert unbiased["population.data.phi_positive"][0] < 0.001
    assert unbiased["pmf_error.data"][0] > 1
    assert biased["jsd"][0] <= 0.02
    assert biased["pmf_error"][0] <= 0.3
    found, _, known = biased["free_energy.phi_positive"]
    assert abs(found - known) <= 1.0
    assert biased["stable_replicas"][0] == 1.0
    settings = load_system(name).cg_simulation
    assert (settings.replicas, settings.duration, settings.timestep) == (96, 504, 0.003)
