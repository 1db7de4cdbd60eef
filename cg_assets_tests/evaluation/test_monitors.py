"""Bond, chirality and stability monitors on a capped alanine made of springs."""

import numpy as np
import pytest

from cg_assets.evaluation.metrics.bonds import bond_monitor
from cg_assets.evaluation.metrics.chirality import chirality_monitor, triple_product

BONDS = [(0, 1), (1, 2), (1, 3), (3, 4), (4, 5), (4, 6), (6, 7), (6, 8), (8, 9)]
"""CH3-C(-O)-N-CA(-CB)-C(-O)-N-CH3, the heavy atoms of capped alanine."""


def placed(a, b, c, length, angle, dihedral):
    """The site bonded to c with an angle b-c-site and a dihedral a-b-c-site."""
    axis = (c - b) / np.linalg.norm(c - b, axis=1, keepdims=True)
    normal = np.cross(b - a, axis)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    third = np.cross(normal, axis)
    along = -np.cos(angle)[:, None] * axis
    across = np.sin(angle)[:, None] * (np.cos(dihedral)[:, None] * third + np.sin(dihedral)[:, None] * normal)
    return c + length[:, None] * (along + across)


def alanine(seed, n=400, hand=1.0, softness=0.003):
    """Heavy atoms of capped alanine with random φ and ψ and stiff bonds and angles [nm]."""
    rng = np.random.default_rng(seed)

    def bond(value):
        return value + softness * rng.normal(size=n)

    def angle(degrees, width=3.0):
        return np.radians(degrees + width * rng.normal(size=n))

    phi, psi = rng.uniform(-np.pi, np.pi, (2, n))
    methyl = np.zeros((n, 3))
    carbon = methyl + np.stack([bond(0.151), np.zeros(n), np.zeros(n)], axis=1)
    aside = np.tile([0.0, 1.0, 0.0], (n, 1))
    nitrogen = placed(aside, methyl, carbon, bond(0.1335), angle(116), angle(180))
    oxygen = placed(aside, methyl, carbon, bond(0.1229), angle(121), angle(0))
    alpha = placed(methyl, carbon, nitrogen, bond(0.1449), angle(122), angle(180))
    carbonyl = placed(carbon, nitrogen, alpha, bond(0.1522), angle(111), phi)
    beta = placed(carbon, nitrogen, alpha, bond(0.1526), angle(110), phi - hand * angle(122))
    next_nitrogen = placed(nitrogen, alpha, carbonyl, bond(0.1335), angle(116), psi)
    next_oxygen = placed(nitrogen, alpha, carbonyl, bond(0.1229), angle(121), psi + np.pi)
    last = placed(alpha, carbonyl, next_nitrogen, bond(0.1449), angle(122), angle(180))
    atoms = (methyl, carbon, oxygen, nitrogen, alpha, beta, carbonyl, next_oxygen, next_nitrogen, last)
    return np.stack(atoms, axis=1)


def test_the_same_bonds_have_no_divergence():
    result = bond_monitor(alanine(1, 4000), alanine(2, 4000), BONDS)
    assert list(result.pairs) == BONDS
    assert result.divergence.max() < 0.02
    assert np.ptp(result.edges, axis=1) / 12 == pytest.approx(np.full(9, 0.003), rel=0.1)
    assert result.data.sum(axis=1) == pytest.approx(np.ones(9)) and result.simulation.shape == (9, 60)


def test_stretched_and_broken_bonds_show():
    broken = alanine(1)
    broken[:, 9] += 0.5
    broken[0, 0] = np.nan
    result = bond_monitor(broken, alanine(2), BONDS)
    assert result.divergence[-1] == pytest.approx(np.log(2), abs=1e-6)
    assert result.simulation[-1, -1] == 1.0
    assert result.divergence[1:-1].max() < 0.1
    soft = bond_monitor(alanine(1, 3000, softness=0.006), alanine(2, 3000), BONDS)
    exact = 0.107  # JSD of two centred Gaussians whose widths differ by a factor of two, by quadrature
    assert soft.divergence == pytest.approx(np.full(9, exact), abs=0.03)


def test_frames_of_other_beads_are_refused():
    with pytest.raises(ValueError, match="same beads"):
        bond_monitor(alanine(0)[:, :5], alanine(0), BONDS)


class TestChirality:
    def test_the_alpha_carbon_is_the_only_centre(self):
        data = alanine(0, 1000)
        result = chirality_monitor(alanine(1, 1000), data, BONDS)
        assert list(result) == [4] and result[4].value == 0.0
        assert abs(triple_product(data, 4, (3, 5, 6)).mean()) > 0.5

    def test_mirror_images_are_counted(self):
        simulation = np.concatenate([alanine(1, 300), alanine(2, 100) * [1.0, 1.0, -1.0]])
        replica = np.repeat(np.arange(8), 50)
        (flipped,) = chirality_monitor(simulation, alanine(0), BONDS, replica).values()
        assert flipped.value == 0.25
        assert flipped.standard_error == pytest.approx(np.sqrt(0.25 * 0.75 / 7), rel=1e-6)

    def test_the_other_hand(self):
        (flipped,) = chirality_monitor(alanine(1, hand=-1.0), alanine(0), BONDS).values()
        assert flipped.value == 1.0

    def test_racemic_data_have_no_chiral_centre(self):
        data = np.concatenate([alanine(0), alanine(1, hand=-1.0)])
        assert chirality_monitor(alanine(2), data, BONDS) == {}


def test_triple_product_of_a_corner():
    corner = np.array([[[0, 0, 0], [2, 0, 0], [0, 3, 0], [0, 0, 0.5]]], dtype=float)
    assert triple_product(corner, 0, (1, 2, 3))[0] == pytest.approx(1.0)
    assert triple_product(corner, 0, (2, 1, 3))[0] == pytest.approx(-1.0)
