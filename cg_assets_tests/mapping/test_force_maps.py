"""Force maps: valid ones agree in their conditional mean, invalid ones are refused, the optimal one is the quietest."""

from dataclasses import replace

import numpy as np
import pytest
import yaml

from cg_assets.core.errors import ForceMapError
from cg_assets.core.frames import Frames
from cg_assets.labels.quality import measure_label_noise
from cg_assets.mapping.chains import connected_groups
from cg_assets.mapping.force_maps import (
    ForceMap,
    group_map,
    linear_map,
    optimal_map,
    slice_map,
    validate_force_map,
)
from cg_assets.mapping.maps import CGMap
from cg_assets.mapping.run import fit_force_map, map_frames
from cg_assets.systems import SystemSpec, load_system
from cg_assets.systems.load import SHIPPED

CORE = {"type": "beads", "beads": {name: [name] for name in ("1:C", "2:N", "2:CA", "2:CB", "2:C", "3:N")}}
METHYLS = CORE | {"beads": CORE["beads"] | {"methyl": ["1:CH3", "1:H1", "1:H2", "1:H3"]}}


def alanine(model=(), mapping=None, plan=()):
    content = yaml.safe_load((SHIPPED / "capped_alanine_implicit.yaml").read_text())
    content["model"] |= dict(model)
    content["mapping"] = mapping or content["mapping"]
    if content["model"]["constraints"] == "none":
        for other in (*content["sampling"].values(), content["evaluation"]["reference"]["plan"]):
            other["timestep"] = 0.001
    content["sampling"]["unbiased"] |= {"replicas": 4, "starts": [{}], "friction": 5.0} | dict(plan)
    return SystemSpec.model_validate(content | {"folder": SHIPPED})


def sample(system, seed):
    sampler = system.sampler(system.sampling.unbiased, seed)
    parts = [sampler.next_chunk() for _ in range(sampler.n_chunks)]
    return Frames.concatenate([part for part in parts if part is not None])


@pytest.fixture(scope="module")
def free():
    """Frames of the molecule without constraints."""
    model = {"constraints": "none", "hydrogen_mass": None}
    plan = {"timestep": 0.001, "burn_in": 2, "duration": 12, "frame_interval": 0.02}
    system = alanine(model, CORE, plan)
    return system, sample(system, 1)


@pytest.fixture(scope="module")
def rigid():
    """Frames of the molecule with rigid bonds to hydrogens."""
    system = alanine({}, CORE, {"timestep": 0.004, "burn_in": 4, "duration": 32, "frame_interval": 0.04})
    return system, sample(system, 2)


def scores_of_difference(cg_map, frames, first, second):
    """z of <(F₁ − F₂)·g(R)>, which is zero for valid maps, for every pair of beads; g is their unit vector."""
    positions = cg_map.apply(frames.positions.astype(np.float64))
    difference = (first.apply(frames.forces) - second.apply(frames.forces)).astype(np.float64)
    pairs = positions[:, :, None] - positions[:, None]
    pairs /= np.linalg.norm(pairs, axis=-1, keepdims=True) + np.eye(cg_map.n_beads)[..., None]
    projected = np.einsum("fid,fijd->fij", difference, pairs)
    n_blocks = 8  # per replica, longer than the memory of the forces
    blocks = projected.reshape(4, n_blocks, -1, cg_map.n_beads, cg_map.n_beads).mean(axis=2).reshape(4 * n_blocks, -1)
    error = blocks.std(axis=0, ddof=1) / np.sqrt(len(blocks))
    used = error > 1e-9
    return blocks.mean(axis=0)[used] / error[used]


def mean_square(cg_map, frames, force_map):
    return float((force_map.apply(frames.forces).astype(np.float64) ** 2).mean())


def test_valid_maps_agree_and_the_optimal_one_has_least_variance(free):
    system, frames = free
    cg_map = system.beads().cg_map
    bonded = [(i, j) for i, j in system.structure().bonds if "H" in "".join(cg_map.atom_names[a] for a in (i, j))]
    maps = {
        "slice": slice_map(cg_map),
        "group": group_map(cg_map, bonded),  # valid without constraints as well
        "optimal": optimal_map(cg_map, [], frames.forces),
    }
    for force_map in maps.values():
        validate_force_map(force_map, cg_map, [])
    squares = {kind: mean_square(cg_map, frames, force_map) for kind, force_map in maps.items()}
    assert squares["optimal"] < 0.8 * squares["group"]
    assert squares["optimal"] < 0.8 * squares["slice"]
    halves = [frames.select(frames.replica < 2), frames.select(frames.replica >= 2)]
    fitted = optimal_map(cg_map, [], halves[0].forces)
    assert mean_square(cg_map, halves[1], fitted) < 0.8 * mean_square(cg_map, halves[1], maps["slice"])
    for kind in ("group", "optimal"):
        scores = scores_of_difference(cg_map, frames, maps["slice"], maps[kind])
        assert np.abs(scores).max() < 5.0  # 30 t-distributed scores of 32 blocks
        assert 0.5 < np.sqrt(np.mean(scores**2)) < 1.6


def test_a_slice_through_rigid_bonds_has_another_mean_and_is_refused_by_name(rigid):
    system, frames = rigid
    cg_map, constraints = system.beads().cg_map, system.structure().constraints
    group = group_map(cg_map, constraints)
    optimal = optimal_map(cg_map, constraints, frames.forces)
    validate_force_map(optimal, cg_map, constraints)
    assert mean_square(cg_map, frames, optimal) <= mean_square(cg_map, frames, group)
    scores = scores_of_difference(cg_map, frames, group, optimal)
    assert np.abs(scores).max() < 5.0
    assert np.abs(scores_of_difference(cg_map, frames, group, slice_map(cg_map))).max() > 8.0
    wanted = alanine({}, CORE | {"force_map": "slice"})
    with pytest.raises(ForceMapError, match=r"atoms 2:N and 2:H are rigidly bound .* set mapping\.force_map to group"):
        fit_force_map(wanted.mapping, wanted.beads(), frames)


def test_exact_conditional_means_in_a_harmonic_solid():
    """With energy rᵀK r/2 every valid label has the conditional mean −(M K⁻¹ Mᵀ)⁻¹ R: regression must find it."""
    generator = np.random.default_rng(5)
    n_atoms, n_beads, n_frames = 7, 2, 40000
    root = generator.normal(size=(n_atoms, n_atoms))
    stiffness = root @ root.T + np.eye(n_atoms)
    matrix = np.zeros((n_beads, n_atoms))
    matrix[0, :3], matrix[1, 4] = [0.5, 0.3, 0.2], 1.0
    cg_map = CGMap(matrix, ["a", "b"], [0, 1], np.ones(2), [f"1:A{i}" for i in range(n_atoms)], ["CCC", "C"], [])
    positions = np.linalg.solve(np.linalg.cholesky(stiffness).T, generator.normal(size=(n_atoms, 3 * n_frames)))
    positions = positions.reshape(n_atoms, n_frames, 3).transpose(1, 0, 2)
    forces = -np.matmul(stiffness, positions)
    exact = -np.linalg.inv(matrix @ np.linalg.inv(stiffness) @ matrix.T)
    beads = cg_map.apply(positions).transpose(0, 2, 1).reshape(-1, n_beads)
    covariance = np.linalg.inv(beads.T @ beads)
    optimal = optimal_map(cg_map, [], forces)
    other = ForceMap(optimal.matrix + np.array([[0, 0, 0, 1.0, 0, -2.0, 0.0]] * 2), "optimal")
    squares = []
    for force_map in (slice_map(cg_map), linear_map(cg_map), optimal, other):
        validate_force_map(force_map, cg_map, [])
        labels = force_map.apply(forces).transpose(0, 2, 1).reshape(-1, n_beads)
        slope = (covariance @ beads.T @ labels).T
        residual = labels - beads @ slope.T
        error = np.sqrt(np.outer((residual**2).mean(axis=0), np.diag(covariance)))
        assert np.abs((slope - exact) / np.maximum(error, 1e-9)).max() < 4.5
        squares.append((labels**2).mean())
    assert min(squares) == squares[2]
    # The optimum is noiseless here: the mean force is itself a linear combination of the atomistic forces.
    exact_map = -exact @ matrix @ np.linalg.inv(stiffness)
    assert np.abs(optimal.matrix - exact_map).max() < 0.05  # about 5/sqrt(120,000) draws


def test_heavy_atoms_with_rigid_hydrogens_leave_one_valid_map(rigid):
    _, frames = rigid
    system = alanine()
    cg_map, constraints = system.beads().cg_map, system.structure().constraints
    optimal = optimal_map(cg_map, constraints, frames.forces)
    assert np.allclose(optimal.matrix, group_map(cg_map, constraints).matrix, atol=1e-8)


def test_beads_of_several_atoms_sit_at_their_centre_of_mass(rigid):
    _, frames = rigid
    system = alanine({}, METHYLS)
    molecule, cg_map = system.structure(), alanine({}, METHYLS).beads().cg_map
    constraints = molecule.constraints
    members = [molecule.atom_index(atom) for atom in METHYLS["beads"]["methyl"]]
    mapped = map_frames(system.beads(), frames, group_map(cg_map, constraints))
    center = np.average(frames.positions[:, members].astype(float), axis=1, weights=molecule.masses[members])
    assert np.abs(mapped.positions[:, 6] - center).max() < 1e-6
    assert np.abs(mapped.forces[:, 6] - frames.forces[:, members].astype(float).sum(axis=1)).max() < 1e-2
    assert cg_map.bead_masses[6] == pytest.approx(molecule.masses[members].sum())
    assert cg_map.bead_elements[6] == "CHHH"
    for name in ("phi", "psi"):
        assert np.abs(mapped.collective_variables[name] - frames.collective_variables[name]).max() < 1e-4
    for name in ("time", "replica", "start", "potential_energy"):
        assert np.array_equal(getattr(mapped, name), getattr(frames, name))


def test_maps_that_cannot_be_valid_are_refused(rigid):
    _, frames = rigid
    together = alanine({}, CORE | {"beads": CORE["beads"] | {"hydrogen": ["2:HA"]}})
    with pytest.raises(ForceMapError, match=r"2:CA and hydrogen share the rigidly bound atoms .*2:CA, 2:HA"):
        fit_force_map(together.mapping, together.beads(), frames)
    system = alanine({}, CORE)
    cg_map = system.beads().cg_map
    doubled = ForceMap(2 * slice_map(cg_map).matrix, "slice")
    with pytest.raises(ForceMapError, match="bead 1:C responds to a shift of bead 1:C with 2 instead of 1"):
        validate_force_map(doubled, cg_map, [])
    with pytest.raises(ForceMapError, match="too few"):
        fit_force_map(system.mapping, system.beads(), frames.select(np.arange(3)))
    cut = replace(frames, positions=frames.positions[:, :21], forces=frames.forces[:, :21])
    with pytest.raises(ForceMapError, match="have 21 atoms or coordinates, the CG map has 22"):
        fit_force_map(system.mapping, system.beads(), cut)


def test_model_potentials_map_along_the_gradient_of_their_coordinate():
    system = load_system("muller_brown_diagonal")
    cg_map = system.beads().cg_map
    assert cg_map.bead_masses[0] == pytest.approx(1.0)
    generator = np.random.default_rng(1)
    positions, forces = generator.normal(size=(2, 30, 1, 2)).astype(np.float32)
    frames = Frames(
        positions=positions,
        forces=forces,
        time=np.arange(30.0),
        replica=np.zeros(30, np.int32),
        temperature=np.ones(30),
        start=np.zeros(30, np.int32),
        probe=np.zeros(30, bool),
    )
    force_map = fit_force_map(system.mapping, system.beads(), frames)
    validate_force_map(force_map, cg_map, [])
    mapped = map_frames(system.beads(), frames, force_map)
    assert mapped.positions.shape == mapped.forces.shape == (30, 1, 1)
    exact = (positions[:, 0, 0].astype(float) - positions[:, 0, 1]) / np.sqrt(2)
    assert np.allclose(mapped.positions[:, 0, 0], exact, atol=1e-6)
    assert np.allclose(
        mapped.forces[:, 0, 0], (forces[:, 0, 0].astype(float) - forces[:, 0, 1]) / np.sqrt(2), atol=1e-6
    )
    assert np.allclose(mapped.collective_variables["s"], exact, atol=1e-6)


def test_maps_survive_json_and_hash_what_they_are():
    cg_map = alanine().beads().cg_map
    assert cg_map.n_beads == 10
    assert cg_map.bead_names[cg_map.bead_on_atom("2:CB")] == "2:CB"
    assert len(cg_map.bonds) == 9
    copy = CGMap.from_json(cg_map.to_json())
    assert copy.hash == cg_map.hash
    assert alanine({}, CORE).beads().cg_map.hash != cg_map.hash
    by_element = alanine({}, {"type": "beads", "beads": "heavy_atoms", "bead_types": "element"}).beads().cg_map
    assert by_element.bead_types == [0, 0, 1, 2, 0, 0, 1, 0, 2, 0]
    force_map = slice_map(cg_map)
    assert ForceMap.from_json(force_map.to_json()).hash == force_map.hash


def test_connected_groups():
    assert list(connected_groups(6, [(4, 1), (1, 5), (2, 3)])) == [0, 1, 2, 2, 1, 1]


def test_maps_are_compared_at_the_same_forces():
    system = alanine(mapping=CORE, plan={"duration": 20.0, "frame_interval": 0.1, "burn_in": 5.0})
    frames = sample(system, 3)
    force_map = fit_force_map(system.mapping, system.beads(), frames)
    mapped, beads = map_frames(system.beads(), frames, force_map), system.beads()
    noise = measure_label_noise(
        beads, system.mapping, frames, mapped, force_map, lambda maps: system.repeated_labels(frames, mapped, maps, 1)
    )
    (slice_noise, fault), (group_noise, none) = noise.other_maps["slice"], noise.other_maps["group"]
    assert "rigidly bound" in fault and none == ""
    floors = [item.noise_floor for item in (noise.beads, group_noise, slice_noise)]
    # beads without the carbonyl oxygens and methyls: their forces can be used, or left alone
    assert floors[0].value < floors[1].value + 2 * floors[1].standard_error
    assert floors[0].value < 0.8 * floors[2].value
    rows = noise.map_rows()
    assert [row["force map"] for row in rows] == ["optimal (used)", "slice", "group"]
    assert rows[0]["valid"] == rows[2]["valid"] == "yes" and rows[1]["valid"] == fault
