"""A molecule in water: the box, which atoms frames keep, and force labels that include the water."""

import itertools

import numpy as np
import openmm
import pytest
from scipy.spatial import cKDTree
from test_builders import molecule_system

from cg_assets.core.errors import SystemSpecError
from cg_assets.core.statistics.noise import conditional_noise
from cg_assets.mapping.builders import MoleculeSettings
from cg_assets.mapping.cells import cell_vectors
from cg_assets.mapping.force_maps import group_map
from cg_assets.mapping.images import nearest_image
from cg_assets.mapping.peptides import build_peptide
from cg_assets.mapping.run import map_frames
from cg_assets.sampling.conditional import sample_conditional_forces
from cg_assets.sampling.molecule.sampler import MoleculeSampler
from cg_assets.sampling.settings import SamplingPlan
from cg_assets.systems import load_system

WATER = {
    "force_fields": ["amber99sbildn.xml", "tip3p.xml"],
    "implicit_solvent": None,
    "cutoff": 0.8,
    "waters": 150,
    "box": 1.7,
}
PLAN = {
    "replicas": 2,
    "starts": [{}],
    "timestep": 0.004,
    "friction": 1.0,
    "burn_in": 0.4,
    "duration": 1.6,
    "frame_interval": 0.04,
    "bias": {
        "type": "umbrella",
        "centers": [{"phi": -1.4, "psi": 2.6}],
        "force_constant": 100.0,
    },
}


def solvated(**model):
    return molecule_system(model=WATER | model)


@pytest.fixture(scope="module")
def sampled():
    """The system, all its frames, and the frames with all atoms."""
    system = solvated()
    sampler = MoleculeSampler(system.structure(), system.beads(), SamplingPlan.model_validate(PLAN), 7, platform="CPU")
    state = None
    blocks = []
    for number in range(sampler.n_chunks):
        if number == sampler.n_chunks // 2:  # resume as after a kill
            state = {name: value.copy() for name, value in sampler.state().items()}
            sampler.close()
            sampler = MoleculeSampler(
                system.structure(), system.beads(), SamplingPlan.model_validate(PLAN), 7, platform="CPU"
            )
            sampler.restore(state)
        blocks.append(sampler.next_chunk())
    frames = [block for block in blocks if block is not None]
    return system, type(frames[0]).concatenate(frames), sampler.snapshots()


def test_box_of_water():
    system = solvated()
    molecule = system.structure()
    assert molecule.n_atoms == 22 + 3 * 150
    assert list(molecule.stored) == list(range(22))
    assert sum(residue.name == "HOH" for residue in molecule.topology.residues()) == 150
    _, bare = build_peptide(["ACE", "ALA", "NME"])
    moved = molecule.positions[:22] - bare
    assert np.ptp(moved, axis=0).max() < 1e-9  # moved as a whole
    vectors = molecule.positions[22::3] - molecule.positions[:22, None]
    vectors -= 1.7 * np.round(vectors / 1.7)
    assert np.linalg.norm(vectors, axis=-1).min() > 0.15
    bonds = np.linalg.norm(molecule.positions[23::3] - molecule.positions[22::3], axis=-1)
    np.testing.assert_allclose(bonds, 0.09572, atol=1e-4)
    # a molecule is built once in a process
    assert solvated().structure() is molecule


@pytest.mark.parametrize(
    "box",
    [
        {"shape": "dodecahedron", "edge": 2.0},
        {"shape": "octahedron", "edge": 1.9},
        [1.7, 1.8, 1.65],
        [[1.9, 0, 0], [0.7, 1.8, 0], [-0.6, 0.5, 1.6]],
    ],
)
def test_water_fills_a_box_of_any_shape(box):
    """The number asked for, the density that it gives, nothing nearer than molecules are, and no cavity."""
    fields = WATER | {"sequence": ["ACE", "ALA", "NME"], "box": box, "cutoff": 0.7}
    waters = round(33.3 * np.linalg.det(cell_vectors(MoleculeSettings.model_validate(fields).box)) - 5.5)
    molecule = solvated(box=box, cutoff=0.7, waters=waters).structure()
    assert molecule.n_atoms == 22 + 3 * waters
    assert molecule.density == pytest.approx(1000, rel=0.04)
    sites = np.concatenate([molecule.positions[:22], molecule.positions[22::3]])
    grid = np.array(list(itertools.product(np.arange(0, 1, 0.1), repeat=3))) @ molecule.box
    images = np.array(list(itertools.product((-1, 0, 1), repeat=3))) @ molecule.box
    tree = cKDTree((sites[:, None] + images).reshape(-1, 3))
    assert tree.query(sites[22:], k=2)[0][:, 1].min() > 0.15
    assert tree.query(nearest_image(grid - sites.mean(axis=0), molecule.box) + sites.mean(axis=0))[0].max() < 0.5


@pytest.mark.parametrize(("shape", "edge", "waters"), [("dodecahedron", 2.0, 183), ("octahedron", 1.9, 170)])
def test_a_box_of_water_of_another_shape_is_sampled(shape, edge, waters):
    system = solvated(box={"shape": shape, "edge": edge}, cutoff=0.7, waters=waters)
    plan = SamplingPlan.model_validate(PLAN | {"replicas": 1, "burn_in": 0.4, "duration": 0.4})
    sampler = MoleculeSampler(system.structure(), system.beads(), plan, 7, platform="CPU")
    frames = [block for block in (sampler.next_chunk() for _ in range(sampler.n_chunks)) if block is not None]
    frames = type(frames[0]).concatenate(frames)
    assert np.isfinite(frames.forces).all()
    assert np.abs(frames.forces).max() < 1e4
    np.testing.assert_allclose(frames.box, np.broadcast_to(system.structure().box, frames.box.shape), atol=1e-6)


def test_more_water_than_a_box_holds_is_refused():
    with pytest.raises(SystemSpecError, match=r"model\.waters is 600, but .* nm holds about 1\d\d; correct one"):
        solvated(box={"shape": "dodecahedron", "edge": 2.0}, cutoff=0.7, waters=600).structure()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"box": None, "cutoff": None}, "waters is 150, but box is null"),
        ({"force_fields": ["amber99sbildn.xml"]}, "model.waters: .*add a water model"),
        ({"box": 1.3, "cutoff": 0.6, "waters": 60}, "model.box is 1.3 nm, but the molecule is 0.85 nm long"),
    ],
)
def test_bad_boxes_are_refused(model, message):
    with pytest.raises((SystemSpecError, ValueError), match=message):
        solvated(**model).structure()


def test_beads_sit_on_the_molecule_only():
    beads = {"type": "beads", "beads": {"C": ["2:CA"], "W": ["7:O"]}}
    variables = {"d": {"type": "distance", "atoms": ["2:CA", "7:O"], "range": [0.2, 1.0]}}
    system = molecule_system(
        model=WATER,
        mapping=beads,
        collective_variables=variables,
        evaluation={
            "reference": {"type": "long_runs", "plan": PLAN | {"starts": [{"d": 0.5}], "bias": None}},
            "collective_variables": ["d"],
            "max_pmf_error": 1.0,
        },
        sampling={"unbiased": PLAN | {"starts": [{"d": 0.5}], "bias": None}},
        potentials={"unbiased": {"labels": "mapped_forces"}},
        cg_simulation={
            "replicas": 2, "timestep": 0.002, "friction": 1.0, "duration": 1.0, "frame_interval": 0.1,
        },
    )  # fmt: skip
    with pytest.raises(SystemSpecError, match="there is no atom 7:O; residues are numbered 1 to 3"):
        system.structure()


def test_frames_keep_the_molecule_and_some_keep_the_water(sampled):
    system, frames, snapshots = sampled
    molecule = system.structure()
    assert frames.positions.shape == (80, 22, 3)
    assert snapshots.positions.shape[1:] == (molecule.n_atoms, 3)
    assert len(snapshots) == 32  # of the pieces before and after the restart
    assert np.all((snapshots.time > 0) & (snapshots.time <= 1.6))
    for row in range(len(snapshots)):
        same = (frames.replica == snapshots.replica[row]) & np.isclose(frames.time, snapshots.time[row])
        shift = snapshots.positions[row, :22] - frames.positions[same][0]
        assert np.ptp(shift, axis=0).max() < 1e-5
        assert np.abs(shift / 1.7 - np.round(shift / 1.7)).max() < 1e-5
    centre = frames.positions.mean(axis=1)
    assert np.all((centre > -0.2) & (centre < 1.9))


def test_forces_of_frames_are_those_of_the_whole_box_without_bias(sampled):
    system, frames, snapshots = sampled
    molecule = system.structure()
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(molecule.system, openmm.VerletIntegrator(0.001), platform)
    for row in (0, 17, 31):
        context.setPositions(snapshots.positions[row].astype(np.float64))
        exact = np.array(context.getState(forces=True).getForces(asNumpy=True)._value)[:22]
        same = (frames.replica == snapshots.replica[row]) & np.isclose(frames.time, snapshots.time[row])
        # stored positions are rounded to single precision, and the CPU platform computes in it
        assert np.abs(frames.forces[same][0] - exact).max() < 2e-3 * np.abs(exact).max()


def test_beads_of_a_solvated_molecule_have_no_box(sampled):
    system, frames, _ = sampled
    force_map = group_map(system.beads().cg_map, system.structure().stored_pairs(system.structure().constraints))
    mapped = map_frames(system.beads(), frames, force_map)
    assert mapped.box is None
    assert mapped.positions.shape == (80, 10, 3)
    for name in ("phi", "psi"):
        turn = mapped.collective_variables[name] - frames.collective_variables[name]
        assert np.abs(turn - 2 * np.pi * np.round(turn / (2 * np.pi))).max() < 1e-4


def test_noise_at_fixed_beads_is_sampled_in_the_water(sampled):
    system, _, snapshots = sampled
    cg_map = system.beads().cg_map
    molecule = system.structure()
    force_map = group_map(cg_map, molecule.stored_pairs(molecule.constraints))
    found = sample_conditional_forces(
        molecule, system.beads(), snapshots, [force_map], system.sampling.dynamics, 3, n_configurations=3, n_samples=10
    )
    assert found.forces.shape == (1, 3, 10, 10, 3)
    noise = conditional_noise(found.forces[0])
    assert 1e4 < noise.noise_floor.value < 1e7  # (kJ/mol/nm)²: hundreds to thousands of kJ/mol/nm a component


def test_the_shipped_system_in_water_has_beads_without_a_box():
    system = load_system("capped_alanine_water")
    assert system.model.waters == 300
    assert system.cg_box is None
