"""A user's own systems, each one YAML file, from the command to a model that runs without cg_assets."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Command
from small_systems import GLYCINE, HOTTER, SMALL_WELLS

from cg_assets.registry.tracking import ModelTracking
from cg_assets.storage.store import ParquetStore

PREDICT = """
import json, sys
sys.modules["cg_assets"] = None  # an import of it fails
import mlflow, numpy as np
uri, model, positions = sys.argv[1:]
mlflow.set_tracking_uri(uri)
mlflow.set_registry_uri(uri)
answer = mlflow.pyfunc.load_model(f"models:/{model}").predict({"positions": np.array(json.loads(positions))})
assert not [name for name in sys.modules if name.startswith("cg_assets.")]
print(json.dumps({name: np.asarray(value).tolist() for name, value in answer.items()}))
"""


def predict(command: Command, model: str, positions: np.ndarray, folder) -> dict[str, np.ndarray]:
    """Energies and forces of a registered model, from a process that cannot import cg_assets."""
    environment = command.environment(MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false")
    del environment["PYTHONPATH"], environment["CG_ASSETS_HOME"]
    arguments = [f"sqlite:///{command.home}/mlflow/mlflow.db", model, json.dumps(positions.tolist())]
    done = subprocess.run(
        [sys.executable, "-c", PREDICT, *arguments], env=environment, cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return {name: np.array(value) for name, value in json.loads(done.stdout.splitlines()[-1]).items()}


def two_wells(x, temperature=1.0):
    """The potential of mean force of the two wells: y is harmonic about x, so integrating it out leaves a constant."""
    return 3 * (x**2 - 1) ** 2


def test_own_surface(finished, tmp_path):
    tracking = ModelTracking(None, finished.home)
    assert {model.name for model in tracking.models()} == {"small_wells.unbiased", "small_wells.biased"}
    x = np.linspace(-1.3, 1.3, 27)
    for name in ("unbiased", "biased"):
        answer = predict(finished, f"small_wells.{name}@champion", x[:, None, None], tmp_path)
        assert answer["forces"].shape == (27, 1, 1)
        error = answer["energy"] - two_wells(x)
        assert np.std(error) < 0.5, "the bound on the PMF error of this system [kT]"


def test_own_temperature(command, tmp_path):
    """One line of another temperature: the potential is that of the free energy, the same energy for a harmonic y."""
    command.add_system(SMALL_WELLS)
    command.add_system(HOTTER)
    stages = ("trajectories", "mapped_forces", "reference", "potential_unbiased", "cg_simulation_unbiased")
    done = command("run", "hot_wells", "--select", *stages, "evaluation_unbiased")
    assert done.returncode in (0, 3), done.stderr  # 3: so few frames need not give a potential within its bounds
    table = ParquetStore(command.home).read_table("hot_wells", "trajectories", "0000")
    assert set(table.column("temperature").to_pylist()) == {2.0}
    assert not (command.home / "data" / "small_wells").exists()
    answer = predict(command, "hot_wells.unbiased@candidate", np.linspace(-1.3, 1.3, 27)[:, None, None], tmp_path)
    # Twice the temperature, twice the PMF error in kT that is allowed, in the energy's unit.
    assert np.std(answer["energy"] - two_wells(np.linspace(-1.3, 1.3, 27))) < 1.0


def write_glycine(path):
    """Capped glycine as a PDB file with all hydrogens."""
    from openmm import app, unit

    from cg_assets.mapping.peptides import build_peptide

    topology, positions = build_peptide(["ACE", "GLY", "NME"])
    with open(path, "w") as file:
        app.PDBFile.writeFile(topology, unit.Quantity(positions, unit.nanometer), file)


@pytest.fixture(scope="module")
def glycine(tmp_path_factory):
    """A home in which a user's own molecule has been run."""
    own = Command(tmp_path_factory.mktemp("glycine") / "home")
    write_glycine(own.add_system(GLYCINE).with_suffix(".pdb"))
    done = own("run", "own_glycine", timeout=600)
    assert done.returncode in (0, 3), done.stderr  # 3: so few frames need not give a potential within its bounds
    return own


def test_own_molecule(glycine, tmp_path):
    store = ParquetStore(glycine.home)
    frames = store.read_frames("own_glycine", "mapped_forces", ["0000"])
    assert frames.positions.shape == (1000, 9, 3), "2 replicas of 500 frames; the heavy atoms of ACE-GLY-NME"
    facts = pq.read_metadata(store.path("own_glycine", "trajectories", "0000")).metadata
    assert facts[b"cg_assets.units"] == b"molar"
    positions = frames.positions[:5].astype(np.float64)
    answer = predict(glycine, "own_glycine.unbiased@candidate", positions, tmp_path)
    assert answer["energy"].shape == (5,)
    assert answer["forces"].shape == (5, 9, 3)
    assert np.isfinite(answer["forces"]).all()
    # an isolated molecule feels no net force and no torque from its own energy
    scale = np.abs(answer["forces"]).max()
    assert np.abs(answer["forces"].sum(axis=1)).max() < 1e-3 * scale
    torque = np.cross(positions, answer["forces"]).sum(axis=1)
    assert np.abs(torque).max() < 1e-3 * scale


def test_force_field_of_the_own_molecule_was_used(glycine):
    """Energies in the file are those of amber99sbildn in vacuum, computed here by OpenMM alone."""
    import openmm
    from openmm import app, unit

    frames = ParquetStore(glycine.home).read_frames("own_glycine", "trajectories", ["0000"])
    pdb = app.PDBFile(str(glycine.home / "systems" / "own_glycine.pdb"))
    system = app.ForceField("amber99sbildn.xml").createSystem(
        pdb.topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds
    )
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    for index in (0, 499, 999):
        context.setPositions(frames.positions[index].astype(np.float64))
        energy = context.getState(getEnergy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        assert frames.potential_energy[index] == pytest.approx(energy, abs=0.05), "positions are kept as float32"
