"""The box at atmospheric pressure, of molecules that do not interact: k_B T (N + 1) / P is their mean volume."""

from dataclasses import replace

import numpy as np
import openmm
import pytest
from openmm.app import Topology

from cg_assets.core.errors import SystemSpecError
from cg_assets.core.units import BOLTZMANN
from cg_assets.mapping.builders import MoleculeModel
from cg_assets.sampling import pressure
from cg_assets.sampling.pressure import PRESSURE, measure_box
from cg_assets.sampling.settings import Dynamics

N, KELVIN = 50, 300.0
BAR = 0.0602214076  # kJ/mol/nm^3
VOLUME = (N + 1) * BOLTZMANN * KELVIN / (PRESSURE * BAR)
DYNAMICS = Dynamics(0.04, 1.0)


@pytest.fixture
def gas(monkeypatch):
    monkeypatch.setenv("CG_DEVICE", "cpu")
    system, edge = openmm.System(), VOLUME ** (1 / 3)
    nothing = openmm.NonbondedForce()  # of no strength: a barostat needs a force in the box
    nothing.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    for _ in range(N):
        system.addParticle(40.0)
        nothing.addParticle(0.0, 1.0, 0.0)
    system.addForce(nothing)
    system.setDefaultPeriodicBoxVectors(*(edge * np.eye(3)))
    positions = np.random.default_rng(1).uniform(0.0, edge, (N, 3))
    return MoleculeModel(
        system=system,
        topology=Topology(),
        atom_names=[f"{number}:AR" for number in range(1, N + 1)],
        elements=["Ar"] * N,
        masses=np.full(N, 40.0),
        positions=positions,
        bonds=[],
        constraints=[],
        n_degrees_of_freedom=3 * N,
        box=edge * np.eye(3),
        stored=np.arange(N),
    )


def test_the_box_of_an_ideal_gas(gas):
    found = measure_box(gas, KELVIN, DYNAMICS, 3, duration=500.0)
    assert found.unit == "nm" and 0.0 < found.standard_error < 0.3
    assert abs(found.z(VOLUME ** (1 / 3))) < 4, found


def interrupted(gas, folder, kelvin=KELVIN):
    """The volumes that a run of 20 ps leaves when it is interrupted after seven, and its file."""
    before = {*folder.glob("*.npz")}

    def stop(done, total, counted):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_box(gas, kelvin, DYNAMICS, 3, stop, folder, 20.0)
    (file,) = {*folder.glob("*.npz")} - before
    with np.load(file) as stored:
        return stored["volumes"], file


def resumed(gas, folder, kelvin=KELVIN):
    """The picoseconds that a run of 20 ps counts, its volumes and its result."""
    seen, volumes = [], []

    def watch(done, total, counted):
        seen.append(done)
        if done == 20:
            (file,) = (file for file in folder.glob("*.npz") if len(np.load(file)["volumes"]) == 20)
            volumes.extend(np.load(file)["volumes"])

    found = measure_box(gas, kelvin, DYNAMICS, 3, watch, folder, 20.0)
    return seen, np.array(volumes), found


def test_an_interrupted_run_resumes(gas, tmp_path):
    volumes, file = interrupted(gas, tmp_path / "box")
    seen, whole, found = resumed(gas, tmp_path / "box")
    assert seen == [*range(8, 21)] and np.array_equal(whole[:7], volumes)
    assert found.value == pytest.approx(whole[4:].mean() ** (1 / 3))
    assert not file.exists(), "nothing is left of a run that has ended"


def test_an_unfinished_run_outlives_another(gas, tmp_path):
    volumes, _ = interrupted(gas, tmp_path)
    interrupted(gas, tmp_path, KELVIN + 1)
    assert len([*tmp_path.glob("*.npz")]) == 2
    seen, whole, _ = resumed(gas, tmp_path)
    assert seen == [*range(8, 21)] and np.array_equal(whole[:7], volumes)


@pytest.mark.parametrize("constant", ["PRESSURE", "_ATTEMPT_STEPS", "_INTERVAL"])
def test_a_run_with_another_barostat_is_not_resumed(gas, tmp_path, monkeypatch, constant):
    interrupted(gas, tmp_path)
    monkeypatch.setattr(pressure, constant, 2 * getattr(pressure, constant))
    _, second = interrupted(gas, tmp_path)
    assert second.exists() and len([*tmp_path.glob("*.npz")]) == 2


def test_only_a_box_has_a_pressure(gas):
    with pytest.raises(SystemSpecError, match="periodic box"):
        measure_box(replace(gas, box=None), KELVIN, DYNAMICS, 3)
