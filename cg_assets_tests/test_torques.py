"""Torques about bonds against the slope of an energy under a finite turn; bonds, sides; the series in torsions."""

from __future__ import annotations

import math

import pytest
import torch

from cg_assets.errors import TrainingError
from cg_assets.mapping.maps import build_map
from cg_assets.potentials.networks import (
    autograd_energy_and_forces,
    build_network,
    energy_and_forces,
    torsion_angles,
)
from cg_assets.systems import load_system
from cg_assets.training.own_ensemble import STIFFNESS, own_ensemble
from cg_assets.training.setup import network_config
from cg_assets.training.torques import BondTorques, SlopeEquations, solve_torsions

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


def chains(count, seed, noise=0.003):
    """Frames of a bent chain with all torsions, a little off its shape."""
    generator = torch.Generator().manual_seed(seed)
    chain = torch.tensor([[0.15 * i, 0.08 * (i % 2), 0.0] for i in range(6)], dtype=torch.float64)
    frames = []
    for _ in range(count):
        one = chain[None].clone()
        for first, second, beads in ((1, 2, [0]), (3, 4, [5]), (2, 3, [4, 5])):
            angle = 2 * math.pi * float(torch.rand((), generator=generator))
            one = turned(one, first, second, beads, angle)
        frames.append(one + noise * torch.randn(one.shape, generator=generator, dtype=torch.float64))
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
        parts = [(positions[:300], labels[:300]), (positions[300:], labels[300:])]
        solve_torsions(module, parts, torques, lambda: positions)
        found.append(module.series.clone())
    drawn = torch.stack(found)
    error = drawn.std(dim=0) / math.sqrt(len(drawn))
    z = (drawn.mean(dim=0) - truth.series) / error
    assert 0.6 < float(z.square().mean().sqrt()) < 1.4, f"{z.numel()} coefficients"
    assert float(error.max()) < 0.02


@torch.no_grad()
def mean_slopes(module, positions, torques):
    """Series of the PMF that a module's torques over some frames stand for [k_B T]."""
    equations = SlopeEquations(module.modes)
    places, signs = torques.of_torsions(module.torsions)
    torque = torques(positions, energy_and_forces(module, positions)[1])[:, places] * signs / module.thermal_energy
    equations.add(module.torsion_phases(positions), torque)
    return equations.solve()


def test_series_gives_the_pmf_of_the_labels_in_the_own_ensemble():
    """A network whose torques over its own, larger chains are others than over the data."""
    truth, module = series_network(2), series_network(2)
    truth.series.copy_(torch.randn(truth.series.shape, generator=torch.Generator().manual_seed(1)))
    with torch.no_grad():
        module.readout.copy_(40.0 * torch.randn(module.readout.shape, generator=torch.Generator().manual_seed(3)))
    data, own = chains(2000, 4), 1.2 * chains(2000, 5)
    torques = BondTorques(6, SIX)
    torques.sides = torques.sides.double()
    alone = mean_slopes(module, data, torques), mean_slopes(module, own, torques)
    assert (alone[0] - alone[1]).norm() > 0.1, "or there is nothing to correct"
    solve_torsions(module, [(data, energy_and_forces(truth, data)[1])], torques, lambda: own)
    assert (mean_slopes(module, own, torques) - truth.series).abs().max() < 0.01
    over_data = mean_slopes(module, data, torques) - truth.series
    assert torch.allclose(over_data, alone[0] - alone[1], atol=0.01)


def test_own_ensemble_has_the_torsions_of_the_data_and_bonds_of_its_own():
    """Harmonic bonds of a prior, 0.0087 nm wide, from frames whose bonds all have nearly one length."""
    config = {"type": "message_passing", "bead_types": list(range(6)), "features": 2, "interactions": 1}
    config |= {"basis_functions": 2, "thermal_energy": 2.5, "torsions": TORSIONS, "torsion_order": 2}
    stiffness = 1.0 / 0.0087**2  # [k_B T / nm^2]
    bent = [-2 * 100.0 * -0.557, 100.0, 0.0, 0.0]  # 100 (cos θ + 0.557)²: torsions need angles that are not straight
    config["prior"] = {
        "bonds": [[i, j, 0.17, stiffness] for i, j in SIX],
        "angles": [[i, i + 1, i + 2, *bent] for i in range(4)],
    }
    module = build_network(config)
    with torch.no_grad():
        module.readout.zero_()
    data = chains(200, 6).float()
    module.fit_statistics(chains(300, 7, noise=0.03).float())
    found = own_ensemble(module, data, [12.0] * 6, seed=1)
    again = own_ensemble(module, data, [12.0] * 6, seed=1)
    assert torch.equal(found, again)
    frames = len(found) // len(data)
    lengths = (found[:, 1:] - found[:, :-1]).norm(dim=2)
    # The volume of a bond's sphere moves its mean outwards by 2 sigma^2 / r; neighbours in time are alike.
    assert lengths.std(dim=0) == pytest.approx(0.0087, rel=0.03)
    assert lengths.mean(dim=0) == pytest.approx(0.17 + 2 * 0.0087**2 / 0.17, abs=2e-4)
    held, angles = (torsion_angles(place.permute(1, 2, 0), module.torsions)[0] for place in (data, found))
    off = angles.unflatten(1, (frames, len(data))) - held[:, None]
    off = (off + math.pi).remainder(2 * math.pi) - math.pi
    assert off.flatten(1).std(dim=1) == pytest.approx(STIFFNESS**-0.5, rel=0.03), "nothing else acts on the torsions"


def test_a_torsion_without_a_bond_is_refused():
    with pytest.raises(TrainingError, match=r"torsion of beads \[0, 1, 2, 3\].*torsion_order"):
        BondTorques(6, [(0, 1), (2, 3), (3, 4), (4, 5)]).of_torsions(torch.tensor(TORSIONS))


def test_torsions_of_capped_alanine_are_its_collective_variables():
    system = load_system("capped_alanine_implicit")
    assert network_config(system)["torsions"] == [[1, 3, 4, 5], [3, 4, 5, 8]]
    without = system.model_copy(update={"network": system.network.model_copy(update={"torsion_order": 0})})
    assert network_config(without)["torsions"] == []
