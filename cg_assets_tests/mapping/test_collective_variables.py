"""Collective variables: known angles, gradients against finite differences, invariance, projected forces."""

import numpy as np
import pytest

from cg_assets.core.geometry import distance, projected_force, torsion, torsion_angles
from cg_assets.systems import load_system


def numerical_gradient(function, positions, sites, step=1e-6):
    gradient = np.zeros((len(positions), len(sites), 3))
    for slot, site in enumerate(sites):
        for axis in range(3):
            shift = np.zeros_like(positions)
            shift[:, site, axis] = step
            difference = function(positions + shift, sites)[0] - function(positions - shift, sites)[0]
            gradient[:, slot, axis] = ((difference + np.pi) % (2 * np.pi) - np.pi) / (2 * step)
    return gradient


def chain(angle: float) -> np.ndarray:
    """Four sites with a dihedral angle in the IUPAC convention: clockwise positive, seen from site 2 to site 3."""
    last = [np.cos(angle), np.sin(angle), 1.0]
    return np.array([[[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0], last]])


def test_angles_alone_are_those_with_gradients():
    """To the last bit: hashes of data depend on them."""
    positions = np.random.default_rng(5).normal(size=(4000, 6, 3))
    np.testing.assert_array_equal(torsion_angles(positions, [4, 0, 3, 1]), torsion(positions, (4, 0, 3, 1))[0])


@pytest.mark.parametrize("angle", [-3.0, -1.4, -1e-9, 0.0, 0.3, 2.6, np.pi])
def test_known_torsions(angle):
    assert torsion(chain(angle), (0, 1, 2, 3))[0][0] == pytest.approx(angle, abs=1e-12)


def test_torsion_agrees_with_mdtraj():
    import mdtraj

    positions = np.random.default_rng(0).normal(size=(50, 4, 3)).astype(np.float32)
    expected = mdtraj.compute_dihedrals(mdtraj.Trajectory(positions, topology=None), [[0, 1, 2, 3]], opt=False)[:, 0]
    assert torsion(positions, (0, 1, 2, 3))[0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("function", "sites"), [(torsion, (3, 0, 2, 4)), (distance, (1, 4))])
def test_gradients_agree_with_finite_differences(function, sites):
    positions = np.random.default_rng(1).normal(size=(200, 5, 3))
    _, gradient = function(positions, sites)
    expected = numerical_gradient(function, positions, sites)
    assert np.abs(gradient - expected).max() < 1e-5 * (1.0 + np.abs(expected).max())


@pytest.mark.parametrize(("function", "sites"), [(torsion, (0, 1, 2, 3)), (distance, (0, 3))])
def test_gradients_neither_push_nor_turn_the_whole(function, sites):
    positions = np.random.default_rng(2).normal(size=(100, 4, 3))
    _, gradient = function(positions, sites)
    torque = np.cross(positions[:, list(sites)], gradient).sum(axis=1)
    assert np.abs(gradient.sum(axis=1)).max() < 1e-10
    assert np.abs(torque).max() < 1e-9


def test_a_mirror_image_changes_the_sign_of_a_torsion():
    positions = np.random.default_rng(3).normal(size=(10, 4, 3))
    mirrored = positions * np.array([1.0, 1.0, -1.0])
    assert torsion(mirrored, (0, 1, 2, 3))[0] == pytest.approx(-torsion(positions, (0, 1, 2, 3))[0])


class TestSystems:
    def test_torsions_of_capped_alanine(self):
        beads = load_system("capped_alanine_implicit").beads()
        positions = np.random.default_rng(4).normal(size=(30, 10, 3))
        values, gradients = beads.variable_gradients(positions)
        assert list(values) == ["phi", "psi"] == beads.variable_names == list(beads.variables(positions))
        names = beads.cg_map.bead_names
        phi = tuple(names.index(name) for name in ("1:C", "2:N", "2:CA", "2:C"))
        psi = tuple(names.index(name) for name in ("2:N", "2:CA", "2:C", "3:N"))
        assert values["phi"] == pytest.approx(torsion(positions, phi)[0])
        assert values["psi"] == pytest.approx(torsion(positions, psi)[0])
        direction = np.random.default_rng(5).normal(size=positions.shape)
        ahead, behind = (beads.variables(positions + s * direction) for s in (1e-6, -1e-6))
        for name in values:
            slope = ((ahead[name] - behind[name] + np.pi) % (2 * np.pi) - np.pi) / 2e-6
            assert (gradients[name] * direction).sum(axis=(1, 2)) == pytest.approx(slope, rel=1e-4, abs=1e-4)
        assert beads.projected_forces(positions, direction).shape == (30, 2)

    def test_a_model_system_is_its_own_variable(self):
        beads = load_system("muller_brown").beads()
        positions = np.array([[[1.0]], [[2.0]]])
        values, gradients = beads.variable_gradients(positions)
        assert values["x"].tolist() == [1.0, 2.0] and gradients["x"].tolist() == [[[1.0]], [[1.0]]]
        assert beads.projected_forces(positions, -positions)[:, 0].tolist() == [-1.0, -2.0]


def test_projected_force_is_the_mean_force_of_a_distance():
    """Two free beads joined by a spring, distance r: <g | r> = -k (r - r0) exactly, whatever else acts on both."""
    rng = np.random.default_rng(6)
    first, unit = rng.normal(size=(500, 3)), rng.normal(size=(500, 3))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    length = rng.uniform(0.8, 1.2, 500)
    positions = np.stack([first, first + length[:, None] * unit], axis=1)
    pull, common = -30.0 * (length - 1.0), rng.normal(size=(500, 3))
    forces = np.stack([-pull[:, None] * unit + common, pull[:, None] * unit + common], axis=1)
    values, gradient = distance(positions, (0, 1))
    assert values == pytest.approx(length)
    assert projected_force(forces, gradient) == pytest.approx(pull, abs=1e-9)
