"""Torques about bonds against the slope of an energy under a finite turn; bonds, sides; the series in torsions."""

from __future__ import annotations

import math

import pytest
import torch

from cg_assets.errors import TrainingError
from cg_assets.mapping.maps import build_map
from cg_assets.potentials.networks import autograd_energy_and_forces, build_network, energy_and_forces
from cg_assets.systems import load_system
from cg_assets.training.setup import network_config
from cg_assets.training.torques import BondTorques, solve_torsions

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


SIX = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
TORSIONS = [[0, 1, 2, 3], [5, 4, 3, 2]]
"""One written along the chain, one against it; each turns another end."""


def chains(count, seed):
    """Frames of a bent chain with all torsions, a little off its shape."""
    generator = torch.Generator().manual_seed(seed)
    chain = torch.tensor([[0.15 * i, 0.08 * (i % 2), 0.0] for i in range(6)], dtype=torch.float64)
    frames = []
    for _ in range(count):
        one = chain[None].clone()
        for first, second, beads in ((1, 2, [0]), (3, 4, [5]), (2, 3, [4, 5])):
            angle = 2 * math.pi * float(torch.rand((), generator=generator))
            one = turned(one, first, second, beads, angle)
        frames.append(one + 0.003 * torch.randn(one.shape, generator=generator, dtype=torch.float64))
    return torch.cat(frames)


def series_network(order):
    config = {"type": "message_passing", "bead_types": list(range(6)), "features": 2, "interactions": 1}
    config |= {"basis_functions": 2, "thermal_energy": 2.5, "torsions": TORSIONS, "torsion_order": order}
    module = build_network(config).double()
    with torch.no_grad():
        module.readout.zero_()
    return module


def test_the_series_is_an_energy_of_the_torsions():
    module, positions = series_network(3), chains(20, 0)
    module.series.copy_(torch.randn(module.series.shape, generator=torch.Generator().manual_seed(1)))
    value, forces = energy_and_forces(module, positions)
    expected, gradient = autograd_energy_and_forces(module, positions)
    assert torch.allclose(value, expected)
    assert torch.allclose(forces, gradient, rtol=1e-9, atol=1e-9)
    assert forces.sum(dim=1).abs().max() < 1e-9
    turns = energy_and_forces(module, turned(positions, 2, 3, [4, 5], 1.0))[0]
    assert torch.allclose(turns, value, rtol=0.0, atol=1e-9), "a torsion that it does not know"
    assert len(module.modes) == 14, "half of the waves with |m| up to 3"


def test_series_is_solved_without_bias():
    """Coefficients from labels with noise, over 40 draws of the noise."""
    truth, module = series_network(2), series_network(2)
    truth.series.copy_(torch.randn(truth.series.shape, generator=torch.Generator().manual_seed(1)))
    positions = chains(1000, 2)
    exact = energy_and_forces(truth, positions)[1]
    torques, found = BondTorques(6, SIX), []
    torques.sides = torques.sides.double()
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        labels = exact + 20.0 * torch.randn(exact.shape, generator=generator, dtype=torch.float64)
        solve_torsions(module, [(positions[:300], labels[:300]), (positions[300:], labels[300:])], torques)
        found.append(module.series.clone())
    drawn = torch.stack(found)
    error = drawn.std(dim=0) / math.sqrt(len(drawn))
    z = (drawn.mean(dim=0) - truth.series) / error
    assert 0.6 < float(z.square().mean().sqrt()) < 1.4, f"{z.numel()} coefficients"
    assert float(error.max()) < 0.02


def test_a_torsion_without_a_bond_is_refused():
    with pytest.raises(TrainingError, match=r"torsion of beads \[0, 1, 2, 3\].*torsion_order"):
        BondTorques(6, [(0, 1), (2, 3), (3, 4), (4, 5)]).of_torsions(torch.tensor(TORSIONS))


def test_torsions_of_capped_alanine_are_its_collective_variables():
    system = load_system("capped_alanine_implicit")
    assert network_config(system)["torsions"] == [[1, 3, 4, 5], [3, 4, 5, 8]]
    without = system.model_copy(update={"network": system.network.model_copy(update={"torsion_order": 0})})
    assert network_config(without)["torsions"] == []
