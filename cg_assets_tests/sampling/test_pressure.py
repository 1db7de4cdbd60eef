"""The box at atmospheric pressure, of molecules that do not interact: k_B T (N + 1) / P is their mean volume."""

from dataclasses import replace

import numpy as np
import openmm
import pytest
from openmm.app import Topology

from cg_assets.core.errors import SystemSpecError
from cg_assets.core.units import BOLTZMANN
from cg_assets.mapping.builders import MoleculeModel
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


def test_an_interrupted_run_resumes(gas, tmp_path):
    checkpoint, seen = tmp_path / "box.npz", []

    def stop(done, total, counted):
        seen.append(done)
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_box(gas, KELVIN, DYNAMICS, 3, stop, checkpoint, 20.0)
    with np.load(checkpoint) as stored:
        volumes = stored["volumes"]
    found = measure_box(gas, KELVIN, DYNAMICS, 3, lambda done, total, counted: seen.append(done), checkpoint, 20.0)
    assert seen == [*range(1, 8), *range(8, 21)]
    with np.load(checkpoint) as stored:
        assert np.array_equal(stored["volumes"][:7], volumes) and len(stored["volumes"]) == 20
        kept = stored["volumes"][4:]
    assert found.value == pytest.approx(kept.mean() ** (1 / 3))
    seen.clear()
    measure_box(gas, KELVIN + 1, DYNAMICS, 3, lambda done, total, counted: seen.append(done), checkpoint, 3.0)
    assert seen == [1, 2, 3], "a checkpoint of another run is left aside"


def test_only_a_box_has_a_pressure(gas):
    with pytest.raises(SystemSpecError, match="periodic box"):
        measure_box(replace(gas, box=None), KELVIN, DYNAMICS, 3)
