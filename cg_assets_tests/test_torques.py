"""Torques about bonds: against the slope of an energy under a finite turn, and the choice of bonds and sides."""

from __future__ import annotations

import math

import pytest
import torch

from cg_assets.mapping.maps import build_map
from cg_assets.systems import load_system
from cg_assets.training.torques import BondTorques

CPU = torch.device("cpu")
CHAIN = [(0, 1), (1, 2), (2, 3), (3, 4)]


def energy(positions):
    """Any smooth function of the distances."""
    i, j = torch.triu_indices(positions.shape[1], positions.shape[1], 1)
    distance = (positions[:, i] - positions[:, j]).norm(dim=2)
    return (torch.sin(3 * distance) * (1.0 + torch.arange(len(i)))).sum(dim=1)


def turned(positions, first, second, beads, angle):
    """Positions after beads turned about the axis from `first` to `second` (Rodrigues' formula)."""
    moved = positions.clone()
    axis = torch.nn.functional.normalize(positions[:, second] - positions[:, first], dim=1)
    for bead in beads:
        arm = positions[:, bead] - positions[:, first]
        along = axis * (axis * arm).sum(dim=1, keepdim=True)
        moved[:, bead] = (
            positions[:, first]
            + along
            + (arm - along) * math.cos(angle)
            + torch.linalg.cross(axis, arm, dim=1) * math.sin(angle)
        )
    return moved


def test_torque_is_the_slope_of_the_energy():
    positions = torch.randn(20, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torques = BondTorques(5, CHAIN, CPU)
    torques.sides = torques.sides.double()
    assert torques.bonds.tolist() == [[1, 2], [2, 3]], "a bond at the end of a chain turns nothing"
    points = positions.clone().requires_grad_(True)
    forces = -torch.autograd.grad(energy(points).sum(), points)[0]
    found = torques(positions, forces)
    for column, (first, second) in enumerate(torques.bonds.tolist()):
        beads = torques.sides[column].nonzero()[:, 0].tolist()
        step = 1e-5
        above, below = (energy(turned(positions, first, second, beads, angle)) for angle in (step, -step))
        assert torch.allclose(found[:, column], -(above - below) / (2 * step), rtol=1e-6, atol=1e-6)


def test_a_bond_in_a_ring_turns_nothing():
    ring = [(0, 1), (1, 2), (2, 3), (3, 0), (3, 4), (4, 5)]
    torques = BondTorques(6, ring, CPU)
    assert torques.bonds.tolist() == [[3, 4]]
    assert torques.sides.tolist() == [[0, 0, 0, 0, 1, 1]]


@pytest.mark.parametrize("bonds", [[], [(0, 1)], [(0, 1), (1, 2)]])
def test_small_molecules_have_no_torques(bonds):
    assert len(BondTorques(3, bonds, CPU).bonds) == 0


def test_capped_alanine():
    cg_map = build_map(load_system("capped_alanine_implicit"))
    torques = BondTorques(cg_map.n_beads, cg_map.bonds, CPU)
    about = {tuple(sorted(cg_map.bead_names[bead] for bead in bond)) for bond in torques.bonds.tolist()}
    assert about == {("1:C", "2:N"), ("2:CA", "2:N"), ("2:C", "2:CA"), ("2:C", "3:N")}
