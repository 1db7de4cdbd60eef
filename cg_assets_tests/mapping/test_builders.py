"""Molecules are built as specified, and a specification that does not fit is refused by name."""

import copy
import random

import mdtraj
import numpy as np
import openmm
import pytest
import yaml
from openmm import app, unit

from cg_assets.core.errors import DeviceError, SystemSpecError
from cg_assets.mapping.builders import use_native_obc
from cg_assets.mapping.peptides import build_peptide
from cg_assets.sampling.molecule.platforms import choose_platform
from cg_assets.systems import SystemSpec, load_system
from cg_assets.systems.load import SHIPPED


def molecule_system(folder=None, model=(), **fields):
    """The shipped molecule with some fields changed."""
    content = yaml.safe_load((SHIPPED / "capped_alanine_implicit.yaml").read_text())
    content = copy.deepcopy(content) | fields
    content["model"] = content["model"] | dict(model)
    if content["model"]["constraints"] == "none":
        for plan in (*content["sampling"].values(), content["evaluation"]["reference"]["plan"]):
            plan["timestep"] = 0.001
    return SystemSpec.model_validate(content | {"folder": folder or SHIPPED})


def energy_and_forces(system, positions):
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(positions)
    state = context.getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value, np.array(state.getForces(asNumpy=True)._value)


def write_pdb(path, topology, positions):
    with open(path, "w") as stream:
        app.PDBFile.writeFile(topology, unit.Quantity(positions, unit.nanometer), stream)


@pytest.mark.parametrize("cutoff", [None, 0.5])
def test_native_implicit_solvent_equals_the_force_field_file(cutoff):
    topology, positions = build_peptide(["ACE", "ALA", "GLY", "NME"])
    arguments = {"nonbondedMethod": app.NoCutoff}
    if cutoff:
        arguments = {"nonbondedMethod": app.CutoffNonPeriodic, "nonbondedCutoff": cutoff * unit.nanometer}
    custom = app.ForceField("amber14-all.xml", "implicit/obc2.xml").createSystem(topology, **arguments)
    native = openmm.XmlSerializer.clone(custom)
    use_native_obc(native)
    assert any(isinstance(force, openmm.GBSAOBCForce) for force in native.getForces())
    assert not any(isinstance(force, openmm.CustomGBForce) for force in native.getForces())
    for shift in np.random.default_rng(0).normal(scale=0.005, size=(5, *positions.shape)):
        first, second = (energy_and_forces(item, positions + shift) for item in (custom, native))
        assert abs(first[0] - second[0]) < 1e-5 * abs(first[0])
        assert np.abs(first[1] - second[1]).max() < 1e-6 * np.abs(first[1]).max()


@pytest.mark.parametrize(
    "sequence", [["ACE", "ALA", "NME"], ["ACE", "GLY", "NME"], ["ACE", "ALA", "GLY", "ALA", "NME"]]
)
def test_built_peptides_have_the_geometry_of_l_amino_acids(sequence):
    topology, positions = build_peptide(sequence)
    names = [f"{atom.residue.index + 1}:{atom.name}" for atom in topology.atoms()]
    trajectory = mdtraj.Trajectory(positions[None], mdtraj.Topology.from_openmm(topology))

    def dihedral(*atoms):
        return mdtraj.compute_dihedrals(trajectory, [[names.index(atom) for atom in atoms]])[0, 0]

    for index in range(2, len(sequence)):
        assert dihedral(f"{index - 1}:C", f"{index}:N", f"{index}:CA", f"{index}:C") == pytest.approx(-1.4, abs=1e-3)
        assert dihedral(f"{index}:N", f"{index}:CA", f"{index}:C", f"{index + 1}:N") == pytest.approx(2.6, abs=1e-3)
        if sequence[index - 1] == "ALA":  # N, C, C-beta and H clockwise seen from H
            corner = positions[[names.index(f"{index}:{name}") for name in ("CA", "N", "C", "CB")]]
            assert np.linalg.det(corner[1:] - corner[0]) > 0
    for first, second in topology.bonds():
        length = np.linalg.norm(positions[first.index] - positions[second.index])
        assert 0.09 < length < 0.16
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1) + np.eye(len(positions))
    assert distances.min() > 0.08


def test_free_peptides_are_whole_and_left_handed():
    sequence = ["TYR", "TYR", "ASP", "PRO", "GLU", "THR", "GLY", "THR", "TRP", "TYR"]  # chignolin CLN025
    topology, positions = build_peptide(sequence)
    assert [residue.name for residue in topology.residues()] == sequence
    assert topology.getNumAtoms() == 166
    place = {f"{atom.residue.index}:{atom.name}": positions[atom.index] for atom in topology.atoms()}
    for index, name in enumerate(sequence):
        if name == "GLY":
            continue
        nitrogen, carbonyl, beta = (place[f"{index}:{atom}"] - place[f"{index}:CA"] for atom in ("N", "C", "CB"))
        assert np.cross(nitrogen, carbonyl) @ beta > 0
    chain = [np.linalg.norm(place[f"{i + 1}:CA"] - place[f"{i}:CA"]) for i in range(len(sequence) - 1)]
    np.testing.assert_allclose(chain, 0.38, atol=0.01)


def test_alpha_carbons_are_a_chain():
    content = load_system("capped_alanine_quick").model_dump()
    content["model"]["sequence"] = ["GLY", "ALA", "SER", "GLY"]
    content["mapping"]["beads"] = "alpha_carbons"
    content["collective_variables"] = {"ends": {"type": "distance", "atoms": ("1:CA", "4:CA"), "range": (0.3, 1.2)}}
    content["sampling"] |= {"biased": None}
    content["sampling"]["unbiased"]["starts"] = [{"ends": 1.0}]
    content["evaluation"] |= {"collective_variables": ["ends"], "basins": {}}
    content["evaluation"]["reference"] |= {"file": None}
    content["evaluation"]["reference"]["plan"] |= {"starts": [{"ends": 1.0}], "bias": None}
    content["potentials"] = {"unbiased": {"labels": "mapped_forces"}}
    content["cg_simulation"] |= {"enhanced_duration": 0.0}
    cg_map = SystemSpec.model_validate(content).beads().cg_map
    assert cg_map.bead_names == ["1:CA", "2:CA", "3:CA", "4:CA"]
    assert cg_map.bonds == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize("sequence", [["ALA"], ["ALA", "XYZ"], ["ACE", "TRP", "NME"], ["ALA", "NME"]])
def test_other_sequences_are_refused(sequence):
    with pytest.raises(SystemSpecError, match=r"model\.sequence"):
        build_peptide(sequence)


def test_building_is_reproducible_and_leaves_the_global_generator_alone():
    random.seed(1)
    before = random.getstate()
    first = load_system("capped_alanine_implicit").structure()
    assert random.getstate() == before
    random.seed(2)
    assert np.array_equal(first.positions, load_system("capped_alanine_implicit").structure().positions)


def simulated_masses(molecule):
    return np.array([molecule.system.getParticleMass(index)._value for index in range(molecule.n_atoms)])


def test_capped_alanine_has_its_atoms_constraints_and_masses():
    molecule = load_system("capped_alanine_implicit").structure()
    assert molecule.n_atoms == 22
    assert len(molecule.constraints) == 12
    assert molecule.n_degrees_of_freedom == 54
    assert simulated_masses(molecule).sum() == pytest.approx(molecule.masses.sum(), abs=0.05)
    hydrogens = np.array(molecule.elements) == "H"
    assert np.all(simulated_masses(molecule)[hydrogens] == 4.0)
    assert {force.getForceGroup() for force in molecule.system.getForces()} == {0}
    free = molecule_system(model={"constraints": "none", "hydrogen_mass": None}).structure()
    assert free.constraints == []
    assert np.allclose(simulated_masses(free), free.masses, atol=0.02)
    assert free.n_degrees_of_freedom == 66


def test_own_pdb_with_another_force_field(tmp_path):
    write_pdb(tmp_path / "glycine.pdb", *build_peptide(["ACE", "GLY", "NME"]))
    model = {"sequence": None, "pdb": "glycine.pdb", "force_fields": ["amber99sbildn.xml"]}
    molecule = molecule_system(tmp_path, model=model).structure()
    assert molecule.n_atoms == 19
    assert {"1:CH3", "2:HA2", "2:HA3", "3:C"} <= set(molecule.atom_names)
    energy, forces = energy_and_forces(molecule.system, molecule.positions)
    assert np.isfinite(energy)
    assert np.abs(forces.sum(axis=0)).max() < 1e-6 * np.abs(forces).max()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"sequence": ["ACE", "SER", "NME"]}, ["SER", "model.pdb"]),
        ({"sequence": ["ALA", "NME"]}, ["ACE", "model.pdb"]),
        ({"force_fields": ["amber15.xml"]}, ["amber15.xml"]),
        ({"force_fields": ["tip3p.xml"], "implicit_solvent": None}, ["No template", "hydrogens"]),
        ({"hydrogen_mass": 5.0}, ["hydrogen_mass 5.0", "lower it"]),
    ],
)
def test_a_molecule_that_cannot_be_built_is_explained(model, words):
    with pytest.raises(SystemSpecError) as error:
        molecule_system(model=model).structure()
    for word in words:
        assert word in str(error.value)


def test_atoms_that_do_not_exist_are_named():
    torsion = {"type": "torsion", "atoms": ["2:N", "2:CA", "2:C", "3:NX"]}
    base = molecule_system()
    wrong = base.model_copy(
        update={"collective_variables": {"psi": type(base.collective_variables["psi"]).model_validate(torsion)}}
    )
    with pytest.raises(SystemSpecError, match=r"collective_variables\.psi\.atoms: there is no atom 3:NX.*3:N, 3:H"):
        wrong.structure()
    beads = {name: [f"2:{name}"] for name in ("N", "CA", "C")} | {"n": ["3:N"], "x": ["9:CB"], "c": ["1:C"]}
    mapping = {"type": "beads", "beads": beads}
    with pytest.raises(
        SystemSpecError, match=r"mapping\.beads\.x: there is no atom 9:CB; residues are numbered 1 to 3"
    ):
        molecule_system(mapping=mapping).structure()


def test_pdb_without_hydrogens_is_explained(tmp_path):
    topology, positions = build_peptide(["ACE", "ALA", "NME"])
    modeller = app.Modeller(topology, unit.Quantity(positions, unit.nanometer))
    modeller.delete([atom for atom in topology.atoms() if atom.element.symbol == "H"])
    write_pdb(tmp_path / "heavy.pdb", modeller.topology, np.array(modeller.positions._value))
    with pytest.raises(SystemSpecError, match=r"heavy\.pdb has no hydrogen atoms; add them"):
        molecule_system(tmp_path, model={"sequence": None, "pdb": "heavy.pdb"}).structure()


@pytest.mark.parametrize(("edge", "words"), [(1.5, "half the box"), (2.6, "make them equal")])
def test_pdb_box_that_does_not_fit_is_explained(tmp_path, edge, words):
    topology, positions = build_peptide(["ACE", "ALA", "NME"])
    topology.setPeriodicBoxVectors(np.eye(3) * edge)
    write_pdb(tmp_path / "box.pdb", topology, positions)
    model = {"sequence": None, "pdb": "box.pdb", "box": 2.5, "cutoff": 1.0, "implicit_solvent": None}
    network = {"type": "message_passing", "cutoff": 1.0}
    with pytest.raises(SystemSpecError, match=words):
        molecule_system(tmp_path, model=model, network=network).structure()


def test_platform_is_chosen_by_size_and_environment(monkeypatch):
    monkeypatch.setenv("CG_DEVICE", "auto")
    assert choose_platform(22, periodic=False) == ("Reference", {})
    monkeypatch.setenv("CG_DEVICE", "cpu")
    assert choose_platform(2000, periodic=True) == ("CPU", {"Threads": "1"})
    monkeypatch.setenv("CG_DEVICE", "tpu")
    with pytest.raises(DeviceError, match="choose auto, cpu or cuda"):
        choose_platform(2000, periodic=True)
    with pytest.raises(DeviceError, match="Abacus"):
        choose_platform(22, periodic=False, requested="Abacus")
