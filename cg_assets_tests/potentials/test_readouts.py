"""Readouts of W(R, T) by least squares: exact where labels are those of other readouts, and left alone by noise."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from cg_assets.potentials.base import Labels
from cg_assets.potentials.message_passing.module import ThermalMessagePassing
from cg_assets.potentials.message_passing.readouts import PULLS, _Equations
from cg_assets.potentials.torsions.torques import BondTorques

KELVIN = torch.tensor([280.0, 359.0, 500.0], dtype=torch.float64)
BONDS = [(0, 1), (1, 2), (2, 3), (3, 4)]


def chains(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    steps = torch.tensor([0.38, 0.0, 0.0]) + 0.1 * torch.randn(count, 5, 3, generator=generator)
    return steps.cumsum(dim=1)


@pytest.fixture(scope="module", params=[[0, 1, 2, 3, 4], [0, 1, 1, 1, 0]], ids=["unlike beads", "like beads"])
def network(request):
    config = {
        **{"bead_types": request.param, "features": 6, "interactions": 2, "basis_functions": 5, "cutoff": None},
        "thermal_energy": 2.985,
        "temperature_dependence": {"form": "constant_heat_capacity", "origin": 359},
    }
    made = ThermalMessagePassing(config, torch.Generator().manual_seed(3)).double()
    made.fit_statistics(chains(500, 0))
    return made


def labels_of(network, count: int, seed: int, noise: float = 0.0, energy_noise: float = 0.0) -> Labels:
    """With noise whose size grows with the square root of T in forces, with T in energies."""
    generator = torch.Generator().manual_seed(seed)
    positions, kelvin = chains(count, seed).double(), KELVIN.repeat(count // 3 + 1)[:count]
    with torch.no_grad():
        forces = network.energy_and_forces(positions, kelvin)[1]
    forces = forces + noise * kelvin[:, None, None].sqrt() * torch.randn(forces.shape, generator=generator).double()
    energy = network.energies(positions, kelvin)[1]
    energy = energy + energy_noise * kelvin * torch.randn(count, generator=generator).double()
    return Labels(
        positions,
        forces,
        temperature=kelvin,
        values={"mean_energy": energy},
        held_out=torch.arange(count) % 5 == 0,
        bonds=BONDS,
        solve_energies=True,
    )


def error(network, labels) -> tuple[float, float]:
    """Root mean square of what is left over of forces and energies."""
    with torch.no_grad():
        forces = network.energy_and_forces(labels.positions, labels.temperature)[1] - labels.forces
    energy = network.energies(labels.positions, labels.temperature)[1] - labels.values["mean_energy"]
    known = energy[torch.isfinite(energy)]
    return float(forces.square().mean().sqrt()), float(known.square().mean().sqrt())


def changed(network):
    """With other readouts and constants."""
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.readout += 0.3 * torch.randn(other.readout.shape, generator=torch.Generator().manual_seed(1)).double()
        other.constant += torch.tensor([5.0, -3.0, 1.0])
    return other


def test_energies_correct_what_noisy_forces_leave_open(network):
    """All but W proportional to T, which U does not contain."""
    student, exact = changed(network), labels_of(network, 300, seed=10)
    labels = labels_of(network, 900, seed=7, noise=100.0)
    labels.values["mean_energy"][::4] = torch.nan  # frames without an energy
    before = error(student, exact)
    assert student.solve(labels)["readout_pull"] == PULLS[0]
    after = error(student, exact)
    assert after[1] < 0.05 * before[1] and after[0] < 1.05 * before[0]


def test_exact_forces_are_kept(network):
    """Energies that contradict them change constants alone."""
    student, exact = copy.deepcopy(network), labels_of(network, 300, seed=10)
    labels = labels_of(network, 300, seed=8, noise=1e-3)
    energy = labels_of(changed(network), 300, seed=8).values["mean_energy"]
    student.solve(replace(labels, values={"mean_energy": energy}))
    assert error(student, exact)[0] < 0.05


def test_noisy_energies_are_pulled_to_those_of_the_descent(network):
    student, exact = copy.deepcopy(network), labels_of(network, 300, seed=10)
    labels = labels_of(network, 90, seed=8, noise=100.0, energy_noise=3.0)
    assert student.solve(labels)["readout_pull"] > PULLS[0]
    assert error(student, exact)[1] < 3.0 * 359.0


def test_frames_without_energies_leave_the_readouts(network):
    student, labels = copy.deepcopy(network), labels_of(network, 90, seed=8, noise=3.0)
    labels.values["mean_energy"][3:] = torch.nan
    assert student.solve(labels) == {}
    assert torch.equal(student.readout, network.readout)


@pytest.mark.parametrize(("kelvin", "solves"), [([280.0, 359.0, 500.0], True), ([280.0, 500.0, 500.0], False)])
def test_energies_are_solved_for_where_forces_show_every_term(network, kelvin, solves):
    assert network.solves_energies(torch.tensor(kelvin, dtype=torch.float64)) is solves


def test_energies_are_not_learnt_where_that_is_not_asked_for(network):
    student = copy.deepcopy(network)
    student.solve(replace(labels_of(network, 90, seed=8, noise=3.0), solve_energies=False))
    assert torch.equal(student.readout, network.readout)


def test_derivatives_of_what_readouts_multiply(network):
    labels = labels_of(network, 6, seed=9)
    equations = _Equations(network, network, labels, torch.arange(6))
    values, slopes = equations._features(torch.arange(6))
    points = labels.positions.clone().requires_grad_(True)
    features = network.features(points)
    torch.testing.assert_close(values, features.detach())
    for column in (0, 7, values.shape[1] - 1):
        expected = torch.autograd.grad(features[:, column].sum(), points, retain_graph=True)[0]
        torch.testing.assert_close(slopes[:, :, column], expected.flatten(1))


def test_levers_turn_forces_into_torques():
    torques, positions = BondTorques(5, BONDS), chains(4, 2)
    forces = chains(4, 3)
    made = torch.einsum("fbni,fni->fb", torques.levers(positions), forces)
    torch.testing.assert_close(made, torques(positions, forces))
