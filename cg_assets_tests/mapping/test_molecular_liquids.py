"""Liquids of molecules of a force field: the same as rigid water where they are water, and methanol."""

import numpy as np
import openmm
import pytest
import yaml
from test_water import state, water

from cg_assets.core.errors import SystemSpecError
from cg_assets.core.units import BOLTZMANN
from cg_assets.mapping.liquids.molecules import MolecularLiquid, read_liquid_molecule
from cg_assets.mapping.liquids.water import WATER_MODELS
from cg_assets.sampling.liquid_sampler import LiquidSampler
from cg_assets.sampling.settings import SamplingPlan
from cg_assets.systems import load_system
from cg_assets.systems.load import SHIPPED

METHANOL = {"pdb": SHIPPED / "methanol.pdb", "files": (str(SHIPPED / "methanol.xml"),)}


def molecules(pdb, files, n=27, box=1.3, cutoff=0.6, electrostatics="reaction_field", rigid="all_bonds"):
    topology, places = read_liquid_molecule(pdb)
    return MolecularLiquid(topology, places, files, ", ".join(files), n, box, cutoff, electrostatics, rigid)


def pdb_of(path, atoms, residue):
    """A PDB file of one residue, with positions in nm."""
    lines = [
        f"HETATM{number:5d}  {name:<3s} {residue} A   1    {10 * x:8.3f}{10 * y:8.3f}{10 * z:8.3f}  1.00  0.00"
        f"          {name[0]:>2s}"
        for number, (name, (x, y, z)) in enumerate(atoms, start=1)
    ]
    path.write_text("\n".join([*lines, "END", ""]))
    return path


@pytest.mark.parametrize("electrostatics", ["reaction_field", "pme"])
def test_water_by_its_force_field_file_is_rigid_water(electrostatics, tmp_path):
    rigid = water("spce", 27, electrostatics=electrostatics)
    places = rigid.geometry
    pdb = pdb_of(tmp_path / "water.pdb", list(zip(("O", "H1", "H2"), places, strict=True)), "HOH")
    found = molecules(pdb, ("spce.xml",), 27, rigid.box, rigid.cutoff, electrostatics, "h_bonds")
    sites = rigid.lattice(3)
    energy, forces, _ = state(found.free_system(), sites)
    expected, expected_forces, _ = state(rigid.free_system(), sites)
    assert energy == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(forces, expected_forces, atol=1e-4 * np.abs(expected_forces).max())
    np.testing.assert_allclose(found.beads(sites), rigid.beads(sites), atol=1e-5)
    assert found.n_degrees_of_freedom == rigid.n_degrees_of_freedom == 6 * 27
    assert found.bead_mass == pytest.approx(WATER_MODELS["spce"].mass, rel=1e-5)
    assert set(map(frozenset, found.stored_constraints)) == set(map(frozenset, rigid.stored_constraints))


def test_methanol_has_the_numbers_of_its_paper():
    """TraPPE-UA: k_angle/k_B 55,400 K, 108.5 degrees, epsilon/k_B 98 and 93 K, rigid bonds of 0.143 and 0.0945 nm."""
    found = molecules(**METHANOL, n=1, box=4.0, cutoff=1.9)
    system = found.free_system()
    assert found.bead_mass == pytest.approx(32.04, abs=0.01) and found.bead_element == "CHO"
    assert found.n_degrees_of_freedom == 9 - 2
    assert [system.getConstraintParameters(i)[2]._value for i in range(2)] == pytest.approx([0.143, 0.0945])
    angles = next(force for force in system.getForces() if isinstance(force, openmm.HarmonicAngleForce))
    *_, angle, stiffness = angles.getAngleParameters(0)
    assert np.degrees(angle._value) == pytest.approx(108.5) and stiffness._value == pytest.approx(55_400 * BOLTZMANN)
    nonbonded = next(force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
    particles = [[item._value for item in nonbonded.getParticleParameters(i)] for i in range(3)]
    assert np.array(particles) == pytest.approx(
        np.array([[0.265, 0.375, 98 * BOLTZMANN], [-0.7, 0.302, 93 * BOLTZMANN], [0.435, 0.1, 0.0]]), rel=1e-6
    )
    assert sum(particle[0] for particle in particles) == pytest.approx(0.0)


def test_beads_are_centres_of_mass_and_their_forces_sums():
    """The force on a bead is minus the slope of the energy when its molecule is moved as a whole."""
    found = molecules(**METHANOL, n=27, box=1.25, cutoff=0.6)
    sites = found.lattice(1)
    system = found.free_system()
    weights = np.array([15.0345, 15.9994, 1.00794])
    centres = np.einsum("s,msd->md", weights / weights.sum(), sites.reshape(27, 3, 3))
    np.testing.assert_allclose(found.beads(sites), centres, atol=1e-9)
    forces = state(system, sites)[1].reshape(27, 3, 3).sum(axis=1)
    step, moved = 1e-5, sites.reshape(27, 3, 3).copy()
    moved[4, :, 1] += step
    above = state(system, moved.reshape(-1, 3))[0]
    moved[4, :, 1] -= 2 * step
    below = state(system, moved.reshape(-1, 3))[0]
    assert forces[4, 1] == pytest.approx(-(above - below) / (2 * step), rel=1e-3)


def test_every_force_between_molecules_is_periodic(tmp_path):
    """A custom force of the field, too: moving a molecule by an edge of the box changes no energy."""
    pairs = "".join(f'<Atom class="{name}" weight="0.4"/>' for name in ("MC", "MO", "MH"))
    custom = f'energy="weight1*weight2/r^3" bondCutoff="3"><PerParticleParameter name="weight"/>{pairs}'
    content = f"<ForceField><CustomNonbondedForce {custom}</CustomNonbondedForce></ForceField>"
    (tmp_path / "custom.xml").write_text(content)
    files = (*METHANOL["files"], str(tmp_path / "custom.xml"))
    found = molecules(METHANOL["pdb"], files, n=27, box=1.25, cutoff=0.6)
    system, sites = found.free_system(), found.lattice(1)
    moved = sites.copy()
    moved[:3, 0] += 1.25
    assert system.usesPeriodicBoundaryConditions()
    assert state(system, moved)[0] == pytest.approx(state(system, sites)[0], abs=1e-3)
    plain = molecules(**METHANOL, n=27, box=1.25, cutoff=0.6).free_system()
    assert abs(state(system, sites)[0] - state(plain, sites)[0]) > 1.0


def test_dynamics_have_the_temperature_of_the_plan():
    """7 degrees of freedom of each of 30 molecules; kinetic temperature within 4 standard errors."""
    found = molecules(**METHANOL, n=30, box=1.3, cutoff=0.6)
    plan = SamplingPlan(replicas=2, timestep=0.002, friction=2.0, burn_in=4, duration=16, frame_interval=0.2)
    sampler = LiquidSampler(found, [300.0, 500.0], plan, seed=5, platform="CPU")
    frames = [piece for _ in range(sampler.n_chunks) for piece in [sampler.next_chunk()] if piece is not None]
    sampler.close()
    for kelvin, estimate in sampler.summary().kinetic.items():
        assert estimate.value == pytest.approx(kelvin, abs=4 * max(estimate.standard_error, 3.0)), estimate
    assert sum(map(len, frames)) == 160 and frames[0].positions.shape[1:] == (30, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"box": 18.916}, "gives a density of 1 kg/m³; correct box or molecules"),
        ({"cutoff": 1.2}, "cutoff 1.2 nm is beyond half the box"),
        ({"force_fields": ["spce.xml"]}, "cannot describe the molecule"),
        ({"pdb": "two.pdb"}, "holds 2 molecules; give one"),
        ({"force_fields": ["charged.xml"]}, "a charge of 0.5 e; a liquid of one kind is neutral"),
        (
            {"force_fields": ["methanol.xml", "born.xml"]},
            "hold an implicit solvent, which a liquid in a box cannot have",
        ),
    ],
)
def test_what_makes_no_liquid_is_refused(change, words, home):
    content = yaml.safe_load((SHIPPED / "methanol.yaml").read_text())
    content["name"] = "mine"
    content["model"] |= change
    folder = home / "systems"
    folder.mkdir(exist_ok=True)
    for name in ("methanol.pdb", "methanol.xml"):
        (folder / name).write_bytes((SHIPPED / name).read_bytes())
    one = [line for line in (SHIPPED / "methanol.pdb").read_text().splitlines() if line.startswith("HETATM")]
    second = [line[:22] + "   2" + line[26:46] + "   9.000" + line[54:] for line in one]
    (folder / "two.pdb").write_text("\n".join([*one, *second, "END", ""]))
    field = (SHIPPED / "methanol.xml").read_text()
    (folder / "charged.xml").write_text(field.replace('charge="0.435"', 'charge="0.935"'))
    radii = "".join(f'<Atom class="{name}" charge="0" radius="0.15" scale="0.8"/>' for name in ("MC", "MO", "MH"))
    (folder / "born.xml").write_text(f"<ForceField><GBSAOBCForce>{radii}</GBSAOBCForce></ForceField>")
    (folder / "mine.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(SystemSpecError, match=words):
        load_system("mine").check()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mapping": {"type": "molecules", "beads": "oxygen"}}, "mapping.beads is oxygen, which is for water"),
        ({"potentials": {"products": {"method": "response"}}}, "method response needs thermal_response_targets"),
        ({"potentials": {"products": {"unconstrained_frames": 0}}}, "needs unconstrained_frames; set their number"),
        ({"potentials": {"products": {"labels": "thermal_response_targets"}}}, "targets is missing"),
        ({"temperature_dependence": {"origin": 333}}, "needs trajectories at T_0 = 333.0 K"),
        ({"targets": {"temperatures": [300, 350, 400]}}, "targets is for model.type water"),
    ],
)
def test_what_its_potentials_cannot_learn_from_is_refused(change, words, home):
    (home / "systems").mkdir(exist_ok=True)
    content = {"extends": "methanol", "name": "mine", "title": "Mine", **change}
    (home / "systems" / "mine.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(SystemSpecError, match=words):
        load_system("mine").check()
