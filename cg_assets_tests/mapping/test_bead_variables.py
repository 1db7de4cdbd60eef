"""Collective variables of beads: centres of mass, angles, radius of gyration, distances of groups."""

import mdtraj
import numpy as np
import openmm
import pytest
import yaml
from openmm import app, unit
from scipy.spatial.transform import Rotation
from test_collective_variables import numerical_gradient
from test_imported import MINE, read

from cg_assets.core.errors import SamplingError, SystemSpecError
from cg_assets.mapping.atom_variables import AtomVariables
from cg_assets.mapping.bead_mapping import BeadMapping
from cg_assets.mapping.builders import MoleculeSettings, build_molecule
from cg_assets.mapping.collective_variables import CollectiveVariable
from cg_assets.mapping.peptides import build_peptide
from cg_assets.systems import load_system
from cg_assets.systems.default_variables import with_variables

BEADS = {
    "cap": ["1:CH3", "1:C", "1:O"],
    "middle": ["2:N", "2:CA", "2:CB"],
    "carbonyl": ["2:C", "2:O"],
    "end": ["3:N", "3:C"],
}
VARIABLES = {
    "apart": {"type": "distance", "atoms": ["cap", "end"], "range": [0.1, 1.2]},
    "bend": {"type": "angle", "atoms": ["cap", "middle", "end"]},
    "turn": {"type": "torsion", "atoms": ["cap", "middle", "carbonyl", "end"]},
    "size": {"type": "radius_of_gyration", "atoms": ["cap", "middle", "carbonyl", "end"], "range": [0.1, 0.6]},
    "moved": {"type": "rmsd", "atoms": ["cap", "middle", "carbonyl", "end"], "range": [0.0, 0.3]},
    "halves": {"type": "group_distance", "atoms": ["cap", "middle", "end"], "first": 2, "range": [0.0, 1.0]},
}


def variable(**fields):
    return CollectiveVariable.model_validate(fields)


MEMBERS = [
    variable(type="angle", atoms=["a", "b", "c"]),
    variable(type="radius_of_gyration", atoms=["a", "b", "c", "d"], range=[0, 1]),
    variable(type="group_distance", atoms=["a", "b", "c", "d"], first=1, range=[0, 1]),
    variable(type="group_distance", atoms=["a", "b", "c", "d"], first=2, range=[0, 1]),
    variable(type="rmsd", atoms=["a", "b", "c", "d"], range=[0, 1], reference=np.eye(4, 3).tolist()),
]


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.type)
def test_gradients_are_exact_and_torch_gives_the_same(member):
    import torch

    positions = np.random.default_rng(0).normal(size=(100, 6, 3))
    sites = [4, 0, 3, 1][: len(member.atoms)]
    values, gradient = member.measure(positions, sites)
    expected = numerical_gradient(member.measure, positions, sites)
    assert np.abs(gradient - expected).max() < 1e-5 * (1 + np.abs(expected).max())
    torque = np.cross(positions[:, sites], gradient).sum(axis=1)
    assert max(np.abs(gradient.sum(axis=1)).max(), np.abs(torque).max()) < 1e-9
    for mine, other in zip((values, gradient), member.measure(torch.as_tensor(positions), sites), strict=True):
        np.testing.assert_allclose(mine, other.numpy(), atol=1e-12)
    np.testing.assert_allclose(member.from_steps(np.diff(positions[:, sites], axis=1)), values, atol=1e-12)


def test_known_values():
    square = np.array([[[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]])
    corner, radius, one, two, _ = (member.measure(square, range(len(member.atoms)))[0][0] for member in MEMBERS)
    assert corner == pytest.approx(np.pi / 2)
    assert radius == pytest.approx(np.sqrt(0.5))
    assert one == pytest.approx(np.linalg.norm(np.mean(square[0, 1:], axis=0)))
    assert two == pytest.approx(1.0)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("beads")
    settings = MoleculeSettings(sequence=["ACE", "ALA", "NME"])
    mapping = BeadMapping(type="beads", beads=BEADS)
    variables = {name: variable(**fields) for name, fields in VARIABLES.items()}
    molecule = build_molecule(settings, mapping, variables, folder)
    cg_map = mapping.cg_map(molecule)
    return molecule, cg_map, {name: item.bound(molecule, cg_map, folder) for name, item in variables.items()}


@pytest.mark.parametrize("name", sorted(VARIABLES.keys() - {"moved"}))
@pytest.mark.parametrize("box", [None, 3.0])
def test_openmm_biases_them_through_the_atoms(built, name, box):
    """Energies in OpenMM are those of the beads, and its forces those of finite differences; in a box through it."""
    molecule, cg_map, variables = built
    known = AtomVariables.of(variables, molecule, cg_map)
    known = AtomVariables(variables, known.atoms, box, known.centres)
    assert AtomVariables.from_json(known.to_json()).to_json() == known.to_json()
    system = openmm.System()
    for mass in molecule.masses:
        system.addParticle(4.0 if mass < 2 else mass - 3.0)  # masses of hydrogens moved about
    system.setDefaultPeriodicBoxVectors(*(np.eye(3) * (box or 3.0)))
    system.addForce(known.compound_force([name], f"7*cv_{name}^2"))
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    positions = molecule.positions + 0.02 * np.random.default_rng(2).normal(size=molecule.positions.shape)

    def energy(places):
        context.setPositions(places)
        return context.getState(energy=True).getPotentialEnergy()._value

    beads = cg_map.apply(positions[molecule.stored])
    sites = [cg_map.bead_names.index(site) for site in variables[name].atoms]
    value = variables[name].measure(beads[None], sites)[0][0]
    assert known.evaluate(positions[None])[0, list(VARIABLES).index(name)] == pytest.approx(value, abs=1e-9)
    assert energy(positions) == pytest.approx(7 * value**2, rel=1e-6)
    if box:
        moved = positions + 10 * box
        assert known.evaluate(moved[None])[0, list(VARIABLES).index(name)] == pytest.approx(value, abs=1e-9)
    direction = np.random.default_rng(3).normal(size=positions.shape)
    slope = (energy(positions + 1e-4 * direction) - energy(positions - 1e-4 * direction)) / 2e-4
    context.setPositions(positions)
    forces = context.getState(forces=True).getForces(asNumpy=True)._value
    assert -(forces * direction).sum() == pytest.approx(slope, rel=1e-3, abs=1e-2)


def home(tmp_path, monkeypatch, **sections):
    monkeypatch.setenv("CG_ASSETS_HOME", str(tmp_path))
    folder = tmp_path / "systems"
    folder.mkdir(exist_ok=True)
    molecule = load_system("capped_alanine_quick").structure()
    topology = mdtraj.Topology.from_openmm(molecule.topology)
    mdtraj.Trajectory(molecule.positions[None], topology).save_pdb(str(folder / "alanine.pdb"))
    content = yaml.safe_load(MINE) | {"mapping": {"type": "beads", "beads": BEADS}, "collective_variables": VARIABLES}
    content["evaluation"] |= {"collective_variables": ["apart", "bend"], "basins": {}}
    (folder / "my_alanine.yaml").write_text(yaml.safe_dump(content | sections))
    return molecule, folder


def test_a_map_of_centres_of_mass_alone_is_imported(tmp_path, monkeypatch):
    molecule, folder = home(tmp_path, monkeypatch)
    positions = molecule.positions + 0.004 * np.random.default_rng(1).normal(size=(20, molecule.n_atoms, 3))
    np.savez(folder / "run_0000_a.npz", positions=positions)
    system = load_system("my_alanine")
    frames = read(system.imported_reader("0000"))
    masses = np.array([12.011, 12.011, 15.999])
    cap = positions[:, [molecule.atom_index(atom) for atom in BEADS["cap"]]]
    np.testing.assert_allclose(frames.positions[:, 0], (masses[:, None] * cap).sum(axis=1) / masses.sum(), atol=1e-4)
    end = system.beads().cg_map.bead_names.index("end")
    apart = np.linalg.norm(frames.positions[:, 0] - frames.positions[:, end], axis=1)
    np.testing.assert_allclose(frames.collective_variables["apart"], apart, atol=1e-6)
    assert set(frames.collective_variables) == set(VARIABLES)
    facts = dict(system.facts(system.built()))
    assert facts["collective variable bend"].endswith("rad in the start structure")


def test_deviations_from_the_start_and_from_a_file(tmp_path, monkeypatch):
    """The file counts its residues from 38, of chain B, and is turned."""
    moved = {"type": "rmsd", "atoms": ["cap", "carbonyl", "end"], "range": [0.0, 0.3]}
    variables = {"moved": VARIABLES["moved"], "part": moved | {"file": "other.pdb"}}
    judged = yaml.safe_load(MINE)["evaluation"] | {"collective_variables": ["moved", "part"], "basins": {}}
    molecule, folder = home(tmp_path, monkeypatch, collective_variables=variables, evaluation=judged)
    rng = np.random.default_rng(1)
    positions = molecule.positions + 0.006 * rng.normal(size=(40, molecule.n_atoms, 3))
    for replica in range(2):
        np.savez(folder / f"run_0000_{replica}.npz", positions=positions[20 * replica :][:20])
    topology = mdtraj.Topology.from_openmm(molecule.topology)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    mdtraj.Trajectory(positions[7:8] @ turn, topology).save_pdb(str(folder / "plain.pdb"))
    lines = (folder / "plain.pdb").read_text().splitlines()
    lines = [f"{line[:21]}B{int(line[22:26]) + 37:4d}{line[26:]}" for line in lines if line.startswith("ATOM")]
    (folder / "other.pdb").write_text("\n".join([*lines, "END", ""]))
    system = load_system("my_alanine")
    frames = read(system.imported_reader("0000"))
    cg_map = system.beads().cg_map
    beads, start = cg_map.apply(positions), cg_map.apply(molecule.positions[None])
    part = [cg_map.bead_names.index(name) for name in ("cap", "carbonyl", "end")]
    for name, structure, sites in (("moved", start, range(4)), ("part", beads[7:8], part)):
        centred = [places[:, sites] - places[:, sites].mean(axis=1, keepdims=True) for places in (beads, structure)]
        expected = [Rotation.align_vectors(centred[1][0], frame)[1] / np.sqrt(len(sites)) for frame in centred[0]]
        np.testing.assert_allclose(frames.collective_variables[name], expected, atol=5e-5)  # as the file rounds
    assert frames.collective_variables["part"][7] < 1e-3
    surface = system.compute_reference(0, folder, data=frames)
    assert list(surface.names) == ["moved", "part"]
    ((_, reason),) = system.scope().not_driven("centers", ["moved"])
    assert "which can be evaluated but not biased" in reason
    before = system.content_hash
    (folder / "other.pdb").write_text((folder / "plain.pdb").read_text())
    assert load_system("my_alanine").content_hash != before
    (folder / "other.pdb").unlink()
    with pytest.raises(SystemSpecError, match="file names no file"):
        load_system("my_alanine")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"type": "distance", "atoms": ["cap", "tail"], "range": [0, 1]}, "apart uses tail: no bead.*or name none"),
        ({"type": "angle", "atoms": ["cap", "middle", "end"], "range": [0, 180]}, "between 0 and pi radians"),
        ({"type": "group_distance", "atoms": ["cap", "end"], "first": 2, "range": [0, 1]}, "leave at least one"),
        ({"type": "radius_of_gyration", "atoms": ["cap"], "range": [0, 1]}, "atoms"),
        ({"type": "rmsd", "atoms": ["cap", "end"], "range": [0, 1]}, "atoms"),
        ({"type": "rmsd", "atoms": ["cap", "middle", "end"], "range": [0, 1], "reference": [[0, 0, 0]]}, "1 positions"),
    ],
)
def test_wrong_variables_of_beads_are_refused(tmp_path, monkeypatch, fields, words):
    home(tmp_path, monkeypatch, collective_variables=VARIABLES | {"apart": fields})
    with pytest.raises(SystemSpecError, match=words):
        load_system("my_alanine")


@pytest.mark.parametrize(
    ("beads", "expected", "names"),
    [
        ({"left": ["1:CH3", "1:C"], "right": ["3:N", "3:C"]}, "distance", ["left", "right"]),
        (BEADS, "radius_of_gyration", sorted(BEADS)),
    ],
)
def test_maps_without_variables_are_judged_by_their_size(tmp_path, monkeypatch, beads, expected, names):
    judged = yaml.safe_load(MINE)["evaluation"] | {"basins": {}}
    del judged["collective_variables"]
    mapping = {"type": "beads", "beads": beads}
    molecule, folder = home(tmp_path, monkeypatch, mapping=mapping, collective_variables={}, evaluation=judged)
    positions = molecule.positions + 0.004 * np.random.default_rng(1).normal(size=(40, molecule.n_atoms, 3))
    for replica in range(2):
        np.savez(folder / f"run_0000_{replica}.npz", positions=positions[replica::2])
    system = load_system("my_alanine")
    assert system.collective_variables[expected].atoms == tuple(names)
    frames = read(system.imported_reader("0000"))
    reference = system.compute_reference(0, folder, data=frames)
    assert reference.names == (expected,) or list(reference.names) == [expected]
    low, high = system.collective_variables[expected].limits
    assert low < frames.collective_variables[expected].min() < frames.collective_variables[expected].max() < high


@pytest.mark.parametrize("beads", ["alpha_carbons", "heavy_atoms"])
def test_a_bead_a_residue_is_judged_without_variables(tmp_path, monkeypatch, beads):
    judged = yaml.safe_load(MINE)["evaluation"] | {"basins": {}}
    del judged["collective_variables"]
    model = {"type": "molecule", "sequence": ["GLY", "ALA", "SER", "GLY"]}
    mapping = {"type": "beads", "beads": beads}
    home(tmp_path, monkeypatch, model=model, mapping=mapping, collective_variables={}, evaluation=judged)
    system = load_system("my_alanine")
    assert system.collective_variables["radius_of_gyration"].atoms == ("1:CA", "2:CA", "3:CA", "4:CA")
    value = system.model.start_values(system.structure(), system.beads())["radius_of_gyration"]
    assert 0.3 < value < 0.6
    assert system.collective_variables["radius_of_gyration"].limits == (0.0, 0.874)


def test_the_range_of_a_long_chain_holds_coils_and_is_allowed():
    content = {"model": {"type": "molecule", "sequence": ["ALA"] * 300}, "mapping": {"beads": "alpha_carbons"}}
    variable = with_variables(content)["collective_variables"]["radius_of_gyration"]
    assert 1.3 * 0.1927 * 300**0.598 < variable["range"][1] < 20
    content["mapping"] = {"beads": {f"b{k}": [f"{k}:CA", f"{k}:C"] for k in range(300)}}
    assert with_variables(content)["collective_variables"]["radius_of_gyration"]["range"] == [0.0, 20.0]


def two_alanines(folder, gap):
    """A PDB file of two capped alanines, and their heavy atoms."""
    topology, places = build_peptide(["ACE", "ALA", "NME"])
    both = app.Modeller(topology, unit.Quantity(np.asarray(places), unit.nanometer))
    both.add(topology, unit.Quantity(np.asarray(places) + np.array([0, 0, gap]), unit.nanometer))
    with (folder / "alanine.pdb").open("w") as file:
        app.PDBFile.writeFile(both.topology, both.positions, file)
    heavy = [f"{a.residue.index + 1}:{a.name}" for a in both.topology.atoms() if a.element.symbol != "H"]
    return np.array(both.positions.value_in_unit(unit.nanometer)), heavy


@pytest.mark.parametrize("kind", ["centres", "alpha_carbons"])
def test_one_bead_in_each_of_two_molecules_is_judged_by_their_distance(tmp_path, monkeypatch, kind):
    """In a range that holds twice the distance in the file."""
    judged = yaml.safe_load(MINE)["evaluation"] | {"basins": {}}
    del judged["collective_variables"]
    _, folder = home(tmp_path, monkeypatch)
    places, heavy = two_alanines(folder, 2.5)
    beads = kind if kind == "alpha_carbons" else {"one": heavy[:10], "other": heavy[10:]}
    home_of = {"mapping": {"type": "beads", "beads": beads}, "collective_variables": {}, "evaluation": judged}
    content = yaml.safe_load(MINE) | home_of
    (folder / "my_alanine.yaml").write_text(yaml.safe_dump(content))
    rng = np.random.default_rng(0)
    for replica in range(2):
        frames = places + 0.004 * rng.normal(size=(60, 44, 3))
        frames[:, 22:, 2] += 0.4 * rng.random((60, 1))
        np.savez(folder / f"run_0000_{replica}.npz", positions=frames)
    system = load_system("my_alanine")
    assert system.collective_variables["distance"].limits == (0.0, 5.0)
    data = read(system.imported_reader("0000"))
    assert 2.4 < data.collective_variables["distance"].min() < data.collective_variables["distance"].max() < 3.0
    assert list(system.compute_reference(0, folder, data=data).names) == ["distance"]
    narrow = {"distance": {"type": "distance", "atoms": ["2:CA", "5:CA"], "range": [0.0, 1.5]}}
    content |= {"mapping": {"type": "beads", "beads": "alpha_carbons"}, "collective_variables": narrow}
    content["evaluation"] = judged | {"collective_variables": ["distance"]}
    (folder / "my_alanine.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(SamplingError, match=r"distance\.range is \[0, 1\.5\], but the first frames .* have 2\.[45]"):
        load_system("my_alanine").imported_reader("0000")


def test_alpha_carbons_of_a_topology_are_judged_without_variables(tmp_path):
    """Their names and places are those of its coordinates."""
    places = 0.38 * np.arange(4)
    lines = [
        f"{k + 1:5d}{'ALA':5s}{'CA':>5s}{3 * k + 1:5d}{x:8.3f}{0.0:8.3f}{0.0:8.3f}\n"
        f"{k + 1:5d}{'ALA':5s}{'HA':>5s}{3 * k + 2:5d}{x:8.3f}{0.1:8.3f}{0.0:8.3f}\n"
        for k, x in enumerate(places)
    ]
    (tmp_path / "it.gro").write_text("four\n    8\n" + "".join(lines) + "   5.0   5.0   5.0\n")
    topology = {"type": "gromacs", "top": "it.top", "coordinates": "it.gro"}
    model = {"type": "molecule", "topology": topology}
    content = {"folder": str(tmp_path), "model": model, "mapping": {"beads": "alpha_carbons"}}
    variable = with_variables(content)["collective_variables"]["radius_of_gyration"]
    assert variable["atoms"] == ["1:CA", "2:CA", "3:CA", "4:CA"]
    assert variable["range"][1] == pytest.approx(max(0.3 + 0.25 * 4**0.6, 2 * places.std()), abs=1e-3)


def test_one_bead_alone_has_no_variable(tmp_path, monkeypatch):
    judged = yaml.safe_load(MINE)["evaluation"] | {"basins": {}}
    del judged["collective_variables"]
    one = {"type": "beads", "beads": {"all": ["1:C", "2:C"]}}
    home(tmp_path, monkeypatch, mapping=one, collective_variables={}, evaluation=judged)
    with pytest.raises(SystemSpecError, match=r"a single bead \(all\) has no internal .* its mean force is zero"):
        load_system("my_alanine")


def test_one_bead_has_nothing_to_be_judged_by(tmp_path, monkeypatch):
    home(tmp_path, monkeypatch, mapping={"type": "beads", "beads": {"all": ["1:C", "2:C"]}}, collective_variables={})
    with pytest.raises(SystemSpecError, match="of two beads or more: a single bead has no internal coordinates"):
        load_system("my_alanine")
