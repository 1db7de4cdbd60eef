"""Rigid water: energies of OpenMM's own files, centres that stay, forces that add up."""

import itertools

import numpy as np
import openmm
import pytest
from openmm import app, unit

from cg_assets.core.errors import SystemSpecError
from cg_assets.mapping.liquids.liquid import box_edge
from cg_assets.mapping.liquids.water import WATER_MODELS, Water

FILES = {"spce": "spce.xml", "tip4p2005": "charmm36/tip4p2005.xml"}


def water(name="spce", n=27, **changes):
    parameters = WATER_MODELS[name]
    edge = box_edge(parameters.mass, n, 997.0)
    return Water(parameters, n, **{"box": edge, "cutoff": 0.45, **changes})


def state(system, positions, platform="Reference"):
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(platform))
    context.setPositions(positions)
    context.computeVirtualSites()
    found = context.getState(energy=True, forces=True, positions=True)
    masses = np.array([system.getParticleMass(i)._value for i in range(system.getNumParticles())])
    forces = np.asarray(found.getForces(asNumpy=True)._value)
    forces = np.where(masses[:, None] > 0, forces, 0.0)
    return found.getPotentialEnergy()._value, forces, np.asarray(found.getPositions(asNumpy=True)._value)


def from_openmm_files(name, positions):
    """A cluster without cutoff, by OpenMM's own force field file."""
    n_sites = WATER_MODELS[name].n_sites
    topology = app.Topology()
    chain = topology.addChain()
    for _ in range(len(positions) // n_sites):
        residue = topology.addResidue("HOH", chain)
        oxygen, *hydrogens = (
            topology.addAtom(label, app.Element.getBySymbol(label[0]), residue) for label in ("O", "H1", "H2")
        )
        for hydrogen in hydrogens:
            topology.addBond(oxygen, hydrogen)
    atoms = positions.reshape(-1, n_sites, 3)[:, :3].reshape(-1, 3)
    field = app.ForceField(FILES[name])
    modeller = app.Modeller(topology, atoms * unit.nanometer)
    modeller.addExtraParticles(field)
    return field.createSystem(modeller.topology, nonbondedMethod=app.NoCutoff, rigidWater=True), modeller.positions


@pytest.mark.parametrize("name", ["spce", "tip4p2005"])
def test_energies_and_constraints_are_those_of_openmm_files(name):
    cluster = water(name, 8, box=None, cutoff=None)
    positions = water(name, 8, cutoff=0.3).lattice(1)
    reference_system, reference_positions = from_openmm_files(name, positions)
    energy, forces, _ = state(cluster.free_system(), positions)
    expected, expected_forces, placed = state(reference_system, reference_positions)
    np.testing.assert_allclose(placed, positions, atol=1e-6)
    assert energy == pytest.approx(expected, rel=2e-5)
    # the two kinds of virtual site share a force among the atoms differently, with the same sum
    forces, expected_forces = (item.reshape(8, -1, 3).sum(axis=1) for item in (forces, expected_forces))
    np.testing.assert_allclose(forces, expected_forces, atol=3e-5 * abs(expected_forces).max())
    own = cluster.free_system()
    for system in (own, reference_system):
        lengths = sorted(system.getConstraintParameters(i)[2]._value for i in range(system.getNumConstraints()))
        assert len(lengths) == 24
        np.testing.assert_allclose(lengths[:16], WATER_MODELS[name].oxygen_hydrogen, rtol=1e-6)
        own_lengths = sorted(own.getConstraintParameters(i)[2]._value for i in range(24))
        np.testing.assert_allclose(lengths, own_lengths, rtol=1e-5)


@pytest.mark.parametrize("name", ["spce", "tip4p2005"])
@pytest.mark.parametrize("centre", ["centre_of_mass", "oxygen"])
@pytest.mark.parametrize("electrostatics", ["reaction_field", "pme"])
def test_frozen_and_free_molecules_have_the_same_energy_and_bead_forces(name, centre, electrostatics):
    box = water(name, 27, electrostatics=electrostatics, centre=centre)
    positions = box.lattice(2)
    energy, forces, _ = state(box.free_system(), positions)
    frozen_energy, frozen_forces, particles = state(box.frozen_system(), box.frozen_positions(positions))
    assert frozen_energy == pytest.approx(energy, rel=1e-6)
    expected = forces.reshape(27, -1, 3).sum(axis=1)
    np.testing.assert_allclose(frozen_forces.reshape(27, -1, 3).sum(axis=1), expected, atol=1e-4 * abs(expected).max())
    np.testing.assert_allclose(particles.reshape(27, -1, 3)[:, 0], box.beads(positions), atol=1e-9)


def test_bead_forces_are_the_slope_of_the_energy_when_molecules_are_moved():
    """Across the cutoff too: the energy has no step there, else mean forces would not be those of the PMF."""
    box = water("spce", 27)
    positions = box.lattice(3).reshape(27, 3, 3)
    system = box.free_system()
    _, forces, _ = state(system, positions.reshape(-1, 3))
    step = 1e-5
    for molecule, axis in itertools.product((0, 13), range(3)):
        moved = [positions.copy(), positions.copy()]
        moved[0][molecule, :, axis] -= step
        moved[1][molecule, :, axis] += step
        low, high = (state(system, item.reshape(-1, 3))[0] for item in moved)
        total = forces.reshape(27, 3, 3)[molecule].sum(axis=0)[axis]
        assert -(high - low) / (2 * step) == pytest.approx(total, abs=1e-3 * abs(forces).max())


def test_density_sets_the_box():
    assert box_edge(WATER_MODELS["spce"].mass, 64, 997.0) == pytest.approx(1.2430, abs=1e-4)
    assert box_edge(WATER_MODELS["spce"].mass, 512, 997.0) == pytest.approx(2.4860, abs=1e-4)


def test_a_cutoff_beyond_half_the_box_is_refused():
    with pytest.raises(SystemSpecError, match=r"cutoff 0.9 nm is beyond half the box \(0.4661 nm\)"):
        water("spce", 27, cutoff=0.9)
    with pytest.raises(SystemSpecError, match="no box to be filled"):
        Water(WATER_MODELS["spce"], 8).lattice(0)
