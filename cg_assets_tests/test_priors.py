"""Priors of chains: fits against exact distributions, the prior alone in a simulation, bad data, delta forces."""

import numpy as np
import pytest
import torch

from cg_assets.analysis.plots_prior import prior_plot
from cg_assets.errors import TrainingError
from cg_assets.mapping.chains import chain_terms
from cg_assets.potentials.networks import ChainPrior as ChainPriorModule
from cg_assets.potentials.networks import build_network, energy_and_forces
from cg_assets.simulation.prior import PriorAlone, simulate_prior
from cg_assets.systems.peptides import _place
from cg_assets.systems.spec import CGSimulation, ChainPrior, MessagePassingNetwork, Training
from cg_assets.training.data import TrainingData
from cg_assets.training.loop import train
from cg_assets.training.priors import fit_prior, most_likely

BONDS = [(0, 1), (1, 2), (2, 3), (3, 4)]
NAMES = [f"{number}:CA" for number in range(1, 6)]
BOND, COSINE, SERIES = (0.38, 15_000.0), (-0.4, 14.0), (0.8, -1.1, 0.3, 0.4)
THERMAL_ENERGY = 2.5


def _drawn(generator, grid, weight, count):
    sums = np.cumsum(weight)
    return np.interp(generator.random(count), (sums - 0.5 * weight) / sums[-1], grid)


@pytest.fixture(scope="module")
def chains():
    """Independent chains whose bonds, cosines and dihedrals have exactly the density of a known prior."""
    generator, count = np.random.default_rng(7), 4000
    length = np.linspace(0.33, 0.43, 4001)
    cosine, angle = np.linspace(-1, 1, 4001), np.linspace(-np.pi, np.pi, 4001)
    bonds = _drawn(generator, length, length**2 * np.exp(-0.5 * BOND[1] * (length - BOND[0]) ** 2), (count, 4))
    cosines = _drawn(generator, cosine, np.exp(-0.5 * COSINE[1] * (cosine - COSINE[0]) ** 2), (count, 3))
    a1, b1, a2, b2 = SERIES
    energy = a1 * np.cos(angle) + b1 * np.sin(angle) + a2 * np.cos(2 * angle) + b2 * np.sin(2 * angle)
    dihedrals = _drawn(generator, angle, np.exp(-energy), (count, 2))
    frames = np.zeros((count, 5, 3))
    for frame, bond, turn, dihedral in zip(frames, bonds, np.arccos(cosines), dihedrals, strict=True):
        frame[1] = [bond[0], 0.0, 0.0]
        frame[2] = frame[1] + bond[1] * np.array([-np.cos(turn[0]), np.sin(turn[0]), 0.0])
        for bead in (3, 4):
            places = frame[bead - 3], frame[bead - 2], frame[bead - 1]
            frame[bead] = _place(*places, bond[bead - 1], turn[bead - 2], dihedral[bead - 3])
    return frames


def test_terms_of_a_chain_and_of_a_branch():
    angles, dihedrals, pairs = chain_terms(BONDS, 5)
    assert angles == [(0, 1, 2), (1, 2, 3), (2, 3, 4)]
    assert dihedrals == [(0, 1, 2, 3), (1, 2, 3, 4)]
    assert pairs == [(0, 4)]
    assert len(chain_terms([(0, 1), (0, 2), (0, 3)], 4)[0]) == 3
    assert chain_terms([(0, 1), (1, 2), (0, 2)], 3)[1:] == ([], [])


def test_fit_recovers_the_prior_that_made_the_data(chains):
    """Errors: sqrt(2/n) of a normal density's variance, and about sqrt(4/n) of the coefficients of the series."""
    settings = ChainPrior(terms=["bonds", "angles", "dihedrals"], dihedral_order=2)
    fit = fit_prior(chains, BONDS, NAMES, settings)
    error = 1 / np.sqrt(len(chains))
    for term in fit.terms:
        assert term.divergence < 0.01, term
        if term.kind == "bonds":
            assert term.numbers[0] == pytest.approx(BOND[0], abs=4 * error * BOND[1] ** -0.5)
            assert term.numbers[1] == pytest.approx(BOND[1], rel=4 * 2**0.5 * error)
        elif term.kind == "angles":
            assert term.numbers[0] == pytest.approx(COSINE[0], abs=6 * error * COSINE[1] ** -0.5)
            assert term.numbers[1] == pytest.approx(COSINE[1], rel=6 * 2**0.5 * error)
        else:
            assert np.abs(np.subtract(term.numbers, SERIES)).max() < 4 * 2.0 * error


def test_prior_alone_samples_the_data(chains):
    """From starts drawn from it: 400 independent replicas diverge by 60 bins / (8 n) = 0.02 by chance."""
    fit = fit_prior(chains, BONDS, NAMES, ChainPrior(terms=["bonds", "angles", "dihedrals"], dihedral_order=2))
    settings = CGSimulation(replicas=400, timestep=0.004, friction=5.0, duration=3.0, frame_interval=1.0, seed=3)
    found = simulate_prior(fit, chains[:400], np.full(5, 12.0), THERMAL_ENERGY, settings)
    assert found.stable_replicas == 400
    assert found.time == pytest.approx(3.0, rel=0.1)
    assert found.divergence.max() < 0.025
    assert prior_plot(fit, found.histograms).startswith(b"\x89PNG")


def test_a_soft_repulsion_alone_keeps_ends_apart(chains):
    fit = fit_prior(chains, BONDS, NAMES, ChainPrior())
    (term,) = [term for term in fit.terms if term.kind == "repulsion"]
    ends = np.linalg.norm(chains[:, 0] - chains[:, 4], axis=1)
    assert (ends < term.numbers[0]).mean() == pytest.approx(0.001, abs=0.0005)
    module = PriorAlone(ChainPriorModule({"repulsion": [[0, 4, *term.numbers]]}), THERMAL_ENERGY)
    place = torch.zeros(1, 5, 3)
    place[0, 4, 0] = term.numbers[0]
    energy, forces = module.energy_and_forces(place)
    assert float(energy) == pytest.approx(THERMAL_ENERGY, rel=1e-5)
    assert float(forces[0, 4, 0]) == pytest.approx(6 * THERMAL_ENERGY / term.numbers[0], rel=1e-4)


def test_density_with_missing_data_stays_bounded():
    """All data at one angle: the series of largest likelihood would be infinite."""
    grid = np.linspace(-np.pi, np.pi, 2401)
    waves = np.stack([np.cos(grid), np.sin(grid), np.cos(2 * grid), np.sin(2 * grid)])
    coefficients = most_likely(waves, np.array([1.0, 0.0, 1.0, 0.0]))
    assert np.isfinite(coefficients).all()
    assert np.abs(coefficients).max() < 100


def test_bad_data_are_refused_or_left_out(chains):
    with pytest.raises(TrainingError, match="fitted to 50 frames"):
        fit_prior(chains[:50], BONDS, NAMES, ChainPrior())
    with pytest.raises(TrainingError, match="no two beads are bonded"):
        fit_prior(chains, [], NAMES, ChainPrior())
    rigid = chains.copy()
    leg = rigid[:, 0] - rigid[:, 1]
    rigid[:, 0] = rigid[:, 1] + 0.38 * leg / np.linalg.norm(leg, axis=1, keepdims=True)
    with pytest.raises(TrainingError, match="bond 1:CA - 2:CA never changes"):
        fit_prior(rigid, BONDS, NAMES, ChainPrior())
    # two states of an angle, further apart than a free joint would go: no harmonic term has a positive constant
    generator = np.random.default_rng(1)
    jumpy = chains.copy()
    cosine = np.where(generator.random(len(jumpy)) < 0.5, -0.95, 0.95) + generator.normal(0, 0.02, len(jumpy))
    cosine = np.clip(cosine, -1, 1)
    length = 0.38 + generator.normal(0, 0.004, (len(jumpy), 2, 1))
    jumpy[:, 0] = jumpy[:, 1] + length[:, 0] * np.stack([cosine, np.sqrt(1 - cosine**2), np.zeros(len(jumpy))], axis=1)
    jumpy[:, 2] = jumpy[:, 1] + length[:, 1] * np.array([1.0, 0.0, 0.0])
    fit = fit_prior(jumpy, BONDS[:2], NAMES, ChainPrior(terms=["bonds", "angles"]))
    (angle,) = [term for term in fit.terms if term.kind == "angles"]
    assert angle.numbers == ()
    assert "left out" in angle.note
    assert "angles" not in fit.config()
    with pytest.raises(ValueError, match="each once"):
        ChainPrior(terms=["bonds", "bonds"])


def test_a_network_without_prior_hashes_as_before():
    network = MessagePassingNetwork(type="message_passing")
    assert "prior" not in network.model_dump(mode="json")
    assert (
        MessagePassingNetwork(type="message_passing", prior={}).model_dump(mode="json")["prior"]["dihedral_order"] == 3
    )


def test_network_learns_what_the_prior_lacks(chains):
    """Labels are the prior's forces: on delta forces, which are zero, a short training leaves little of them."""
    fit = fit_prior(chains, BONDS, NAMES, ChainPrior(terms=["bonds", "angles", "dihedrals"], dihedral_order=2))
    config = {"type": "message_passing", "bead_types": list(range(5)), "features": 16, "interactions": 1}
    config |= {"basis_functions": 3, "cutoff": None, "thermal_energy": THERMAL_ENERGY, "prior": fit.config()}
    positions = chains.astype(np.float32)
    alone = PriorAlone(ChainPriorModule(fit.config()), THERMAL_ENERGY)
    forces = alone.energy_and_forces(torch.as_tensor(positions))[1].numpy()
    group = np.arange(len(positions)) // 400
    training = Training(epochs=3, batch_size=200, learning_rate=0.01)
    with_prior = train(config, training, TrainingData(positions, forces, group), seed=0)
    without = train(config | {"prior": None}, training, TrainingData(positions, forces, group), seed=0)
    square = float((forces.astype(np.float64) ** 2).mean())
    assert with_prior.held_out_loss < 5e-3 * square
    assert with_prior.held_out_loss < 0.2 * without.held_out_loss
    # the potential that is stored and simulated is the sum
    copy = build_network(config)
    copy.load_state_dict(with_prior.module.state_dict())
    place = torch.as_tensor(positions[:9])
    torch.testing.assert_close(energy_and_forces(copy, place)[1], energy_and_forces(with_prior.module, place)[1])


def test_an_exploding_prior_is_reported(chains):
    fit = fit_prior(chains, BONDS, NAMES, ChainPrior())
    ladder = {"temperatures": [300.0, 400.0], "pace": 2.0}  # the prior alone is not tempered
    settings = CGSimulation(
        replicas=4, timestep=0.2, friction=1.0, duration=400.0, frame_interval=2.0, tempering=ladder
    )
    found = simulate_prior(fit, chains[:4], np.full(5, 12.0), THERMAL_ENERGY, settings)
    assert (found.replicas, found.stable_replicas) == (4, 0)
    assert found.histograms == []
    assert np.isnan(found.divergence).all()
