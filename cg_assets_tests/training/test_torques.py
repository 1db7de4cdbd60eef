"""Torques about bonds against the slope of an energy under a finite turn; bonds, sides; the series in torsions."""

from __future__ import annotations

import math

import pytest
import torch

from cg_assets.core.errors import TrainingError
from cg_assets.potentials.base import differentiated
from cg_assets.potentials.layers import torsion_angles
from cg_assets.potentials.settings import build_potential
from cg_assets.potentials.torsions.solve import solve_torsions
from cg_assets.potentials.torsions.torques import BondTorques, SlopeEquations
from cg_assets.potentials.torsions.variates import TorsionTorques
from cg_assets.systems import load_system
from cg_assets.training.own_ensemble import STIFFNESS, own_ensemble
from cg_assets.training.setup import potential_config

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
    cg_map = load_system("capped_alanine_implicit").beads().cg_map
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
    module = build_potential(config).double()
    with torch.no_grad():
        module["network"].readout.zero_()
    return module


def test_the_series_is_an_energy_of_the_torsions():
    module, positions = series_network(3), chains(20, 0)
    with_series(module)
    value, forces = module.energy_and_forces(positions)
    expected, gradient = differentiated(module, positions)
    assert torch.allclose(value, expected)
    assert torch.allclose(forces, gradient, rtol=1e-9, atol=1e-9)
    assert forces.sum(dim=1).abs().max() < 1e-9
    turns = module.energy_and_forces(turned(positions, 2, 3, [4, 5], 1.0))[0]
    assert torch.allclose(turns, value, rtol=0.0, atol=1e-9), "an unknown torsion"
    assert len(module["series"].modes) == 14, "half of the waves with |m| up to 3"


BENT = [-2 * 100.0 * -0.557, 100.0, 0.0, 0.0]
"""100 (cos θ + 0.557)² [k_B T]."""


def bound_chain(order, width=0.0087, length=0.17):
    """A chain of harmonic bonds, `width` wide, and angles, whose torsions are free but for the series."""
    config = {"type": "message_passing", "bead_types": list(range(6)), "features": 2, "interactions": 1}
    config |= {"basis_functions": 2, "thermal_energy": 2.5, "torsions": TORSIONS, "torsion_order": order, "bonds": SIX}
    config["prior"] = {
        "bonds": [[i, j, length, 1.0 / width**2] for i, j in SIX],
        "angles": [[i, i + 1, i + 2, *BENT] for i in range(4)],
    }
    module = build_potential(config).requires_grad_(False)
    module["network"].readout.zero_()
    module.fit_statistics(chains(300, 7, noise=0.03).float())
    return module


def with_series(module, seed=1):
    series = module["series"].series
    series.copy_(torch.randn(series.shape, generator=torch.Generator().manual_seed(seed)))
    return module


MASSES = [12.0] * 6


def own(module, data, masses, seed):
    """The module's own ensemble."""
    series = module["series"]
    return own_ensemble(module, series.torsions, data, masses, series.thermal_energy, seed)


@pytest.fixture(scope="module")
def truth():
    """A potential, frames of its ensemble and the torques of its molecule."""
    module = with_series(bound_chain(2))
    frames = own(module, chains(200, 6).float(), MASSES, seed=0)
    series = module["series"]
    return module, frames, TorsionTorques(BondTorques(6, SIX), SIX, series.torsions, series.thermal_energy)


def test_variates_leave_torsions_and_have_no_mean(truth):
    module, frames, _ = truth
    positions = frames.double()
    torques = TorsionTorques(BondTorques(6, SIX), SIX, module["series"].torsions, module["series"].thermal_energy)
    torques.sides, torques.bond_torques.sides = torques.sides.double(), torques.bond_torques.sides.double()
    rows = positions[:50].permute(1, 2, 0)
    for place, gradients in zip(TORSIONS, torsion_angles(rows, module["series"].torsions)[1], strict=True):
        up = torch.zeros_like(rows).index_add(0, torch.tensor(place), gradients).permute(2, 0, 1)
        found, at_rest = (torques(positions[:50], scale * module["series"].thermal_energy * up) for scale in (1.0, 0.0))
        assert (found[1] - at_rest[1]).abs().max() < 1e-6, "no variate turns a torsion"
        expected = torch.tensor([float(place == one) for one in TORSIONS], dtype=torch.float64)
        assert torch.allclose(found[0], expected.expand_as(found[0]), atol=1e-6)
    variates = torques(positions, module.energy_and_forces(frames)[1].double())[1]
    assert variates.shape[1] == torques.n_variates == 5 * (5 + 8 + 2), "bonds, angles both ways, the bond of no torsion"
    replicas = variates.unflatten(0, (-1, 200)).mean(dim=0)  # frames of a replica are alike
    z = replicas.mean(dim=0) / replicas.std(dim=0) * math.sqrt(200)
    assert z.abs().max() < 4.5, "75 variates"


def test_variates_leave_less_noise():
    """White noise on the beads of capped alanine, whose rigid turns move five beads where two would do."""
    system = load_system("capped_alanine_implicit")
    cg_map = system.beads().cg_map
    beads = torch.tensor(cg_map.matrix @ system.structure().positions).float().expand(4000, -1, -1)
    turns = BondTorques(cg_map.n_beads, cg_map.bonds)
    torsions = torch.tensor(potential_config(system.network, system.beads())["torsions"])
    torques = TorsionTorques(turns, cg_map.bonds, torsions, system.thermal_energy)
    noise = torch.randn(beads.shape, generator=torch.Generator().manual_seed(0))
    up = system.beads().variable_gradients(beads[:1].double().numpy())[1]
    along = [torch.tensor(up[name]).float() * system.thermal_energy for name in ("phi", "psi")]
    at_rest = torques(beads[:1], torch.zeros_like(beads[:1]))[1]
    turned = torch.cat([torques(beads[:1], one)[1] - at_rest for one in along])
    assert turned.abs().max() < 1e-3, "no variate turns a torsion"
    torque, variates = (value - value.mean(dim=0) for value in torques(beads, 100.0 * noise))
    left = torque - variates @ torch.linalg.lstsq(variates, torque, driver="gelsd").solution
    ratio = left.var(dim=0) / torque.var(dim=0)
    assert ratio.max() < 0.25, ratio


def test_equations_are_solved_without_bias():
    """Coefficients from torques of labels with noise, over 40 draws of the noise."""
    truth = with_series(series_network(2))
    positions = chains(1000, 2)
    exact, found = truth.energy_and_forces(positions)[1], []
    torques = BondTorques(6, SIX)
    torques.sides = torques.sides.double()
    turning = TorsionTorques(torques, SIX, truth["series"].torsions, truth["series"].thermal_energy)
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        labels = exact + 20.0 * torch.randn(exact.shape, generator=generator, dtype=torch.float64)
        equations = SlopeEquations(truth["series"].modes)
        for part in (slice(300), slice(300, None)):
            equations.add(truth["series"].phases(positions[part]), turning.turns_of(positions[part], labels[part]))
        found.append(equations.solve())
    drawn = torch.stack(found)
    error = drawn.std(dim=0) / math.sqrt(len(drawn))
    z = (drawn.mean(dim=0) - truth["series"].series) / error
    assert 0.6 < float(z.square().mean().sqrt()) < 1.4, f"{z.numel()} coefficients"
    assert float(error.max()) < 0.02


def test_series_is_solved_without_bias(truth):
    """Coefficients from labels with noise, over 40 draws of the noise."""
    exact_module, frames, torques = truth
    module, positions = bound_chain(2), frames[::10]
    exact, found = exact_module.energy_and_forces(positions)[1], []
    for seed in range(40):
        labels = exact + 20.0 * torch.randn(exact.shape, generator=torch.Generator().manual_seed(seed))
        parts = [(positions[:300], labels[:300]), (positions[300:], labels[300:])]
        solve_torsions(module["series"], module, parts, torques, lambda: frames)
        found.append(module["series"].series.clone())
    error = (torch.stack(found).mean(dim=0) - exact_module["series"].series).abs()
    assert float(error.max()) < 0.05, "k_B T; 1,600 frames, the same in all draws"


def test_series_gives_the_pmf_of_the_labels_in_the_own_ensemble(truth):
    """A network with wider, longer bonds and torques that are others over its own ensemble than over the data."""
    exact_module, frames, torques = truth
    module = bound_chain(2, width=0.012, length=0.19)
    readout = module["network"].readout
    readout.copy_(40.0 * torch.randn(readout.shape, generator=torch.Generator().manual_seed(3)))

    def pmf(positions):
        equations = SlopeEquations(module["series"].modes, torques.n_variates)
        equations.add(module["series"].phases(positions), *torques(positions, module.energy_and_forces(positions)[1]))
        return equations.solve()

    def drawn(seed):
        return own(module, chains(200, 6).float(), MASSES, seed)

    over_data, over_own = pmf(frames), pmf(drawn(1))
    assert (over_data - over_own).abs().max() > 0.3, "or there is nothing to correct"
    labels = exact_module.energy_and_forces(frames)[1]
    solve_torsions(module["series"], module, [(frames, labels)], torques, lambda: drawn(2))
    assert (pmf(drawn(3)) - exact_module["series"].series).abs().max() < 0.05


def test_own_ensemble_has_the_torsions_of_the_data_and_bonds_of_its_own():
    """Harmonic bonds, 0.0087 nm wide, from frames whose bonds all have nearly one length."""
    module, data = bound_chain(2), chains(200, 6).float()
    found = own(module, data, MASSES, seed=1)
    assert torch.equal(found, own(module, data, MASSES, seed=1))
    lengths = (found[:, 1:] - found[:, :-1]).norm(dim=2)
    # The volume of a bond's sphere moves its mean outwards by 2 sigma^2 / r.
    assert lengths.std(dim=0) == pytest.approx(0.0087, rel=0.03)
    assert lengths.mean(dim=0) == pytest.approx(0.17 + 2 * 0.0087**2 / 0.17, abs=2e-4)
    held, angles = (torsion_angles(place.permute(1, 2, 0), module["series"].torsions)[0] for place in (data, found))
    off = angles.unflatten(1, (-1, len(data))) - held[:, None]
    off = (off + math.pi).remainder(2 * math.pi) - math.pi
    assert off.flatten(1).std(dim=1) == pytest.approx(STIFFNESS**-0.5, rel=0.03), "nothing else acts on the torsions"


def test_a_potential_that_explodes_keeps_the_frames_of_the_data(caplog):
    module, data = bound_chain(2, width=1e-5), chains(200, 6).float()
    assert torch.equal(own(module, data, MASSES, seed=1), data)
    assert "0 of 200 replicas" in caplog.text and "more frames" in caplog.text


def test_a_torsion_without_a_bond_is_refused():
    with pytest.raises(TrainingError, match=r"torsion of beads \[0, 1, 2, 3\].*torsion_order"):
        BondTorques(6, [(0, 1), (2, 3), (3, 4), (4, 5)]).of_torsions(torch.tensor(TORSIONS))


def test_torsions_of_capped_alanine_are_its_collective_variables():
    system = load_system("capped_alanine_implicit")
    assert potential_config(system.network, system.beads())["torsions"] == [[1, 3, 4, 5], [3, 4, 5, 8]]
    without = system.model_copy(update={"network": system.network.model_copy(update={"torsion_order": 0})})
    assert potential_config(without.network, without.beads())["torsions"] == []


@pytest.mark.parametrize(
    ("bonds", "torsions", "moves"),
    [
        ([(0, 1), (1, 2), (2, 3)], [[0, 1, 2, 3]], (3, 4, 0)),
        ([(0, 1), (1, 2), (2, 0), (2, 3), (3, 4)], [[0, 2, 3, 4]], (2, 2, 0)),
        ([(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3), (2, 3)], [[0, 2, 3, 4]], (1, 0, 0)),
    ],
    ids=["butane", "ring with a tail", "two rings"],
)
def test_molecules_with_few_moves(bonds, torsions, moves):
    n_beads = 1 + max(max(bond) for bond in bonds)
    places = torch.tensor(torsions)
    torques = TorsionTorques(BondTorques(n_beads, bonds), bonds, places, 2.5)
    assert (len(torques.stretches), len(torques.bends), len(torques.turns)) == moves
    positions = torch.randn(7, n_beads, 3, generator=torch.Generator().manual_seed(0))
    torque, variates = torques(positions, torch.ones_like(positions))
    assert torque.shape == (7, 1) and variates.shape == (7, 3 * sum(moves))


def test_a_stretch_across_a_torsion_is_no_variate():
    torsions = torch.tensor([[0, 2, 3, 4]])
    torques = TorsionTorques(BondTorques(6, SIX), SIX, torsions, 2.5)
    assert len(torques.stretches) == 3, "of five bonds, two are between beads 0, 1 and 2"


def test_few_frames_do_without_variates(truth):
    """Labels of noise alone, fewer than ten frames for each variate: coefficients stay within their prior."""
    module, frames, torques = truth
    drawn = []
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        place = frames[torch.randperm(len(frames), generator=generator)[:80]]
        equations = SlopeEquations(module["series"].modes, torques.n_variates)
        _, variates = torques(place, torch.zeros_like(place))
        equations.add(module["series"].phases(place), torch.randn(80, 2, generator=generator), variates)
        drawn.append(equations.solve().abs().max())
    assert max(drawn) < 1.0
