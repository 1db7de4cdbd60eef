"""Priors of chains: fits against exact distributions, the prior alone in a simulation, bad data, delta forces."""

import numpy as np
import pytest
import torch

from cg_assets.core.errors import TrainingError
from cg_assets.core.settings import Training
from cg_assets.figures.training import prior_plot
from cg_assets.mapping.chains import chain_terms
from cg_assets.mapping.peptides import _place
from cg_assets.potentials.chain_prior.module import ChainPrior
from cg_assets.potentials.chain_prior.settings import ChainPriorSettings
from cg_assets.potentials.settings import build_potential
from cg_assets.simulation.settings import CGSimulation
from cg_assets.training.data import TrainingData
from cg_assets.training.prior_simulation import simulate_prior
from cg_assets.training.priors import fit_prior, most_likely
from cg_assets.training.train import train

BONDS = [(0, 1), (1, 2), (2, 3), (3, 4)]
NAMES = [f"{number}:CA" for number in range(1, 6)]
BOND, COSINE, SERIES = (0.38, 15_000.0), (-0.4, 14.0), (0.8, -1.1, 0.3, 0.4)
TWO_PEAKS = np.array([12.0, 115.0, 300.0, 230.0])
"""Coefficients of the energy of an angle in powers of its cosine: minima at 94 and 127 degrees, 0.9 and 1.3 kT deep."""
THERMAL_ENERGY = 2.5


def _drawn(generator, grid, weight, count):
    sums = np.cumsum(weight)
    return np.interp(generator.random(count), (sums - 0.5 * weight) / sums[-1], grid)


def chain_frames(generator, count, stiffness, angle_stiffness, series):
    """Independent chains whose bonds, cosines and dihedrals have exactly the density of a known prior."""
    length = np.linspace(0.33, 0.43, 4001)
    cosine, angle = np.linspace(-1, 1, 4001), np.linspace(-np.pi, np.pi, 4001)
    bonds = _drawn(generator, length, length**2 * np.exp(-0.5 * stiffness * (length - BOND[0]) ** 2), (count, 4))
    weight = np.exp(-0.5 * angle_stiffness * (cosine - COSINE[0]) ** 2)
    cosines = _drawn(generator, cosine, weight, (count, 3))
    a1, b1, a2, b2 = series
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


@pytest.fixture(scope="module")
def chains():
    """Chains of one prior."""
    return chain_frames(np.random.default_rng(7), 4000, BOND[1], COSINE[1], SERIES)


def test_terms_of_a_chain_and_of_a_branch():
    angles, dihedrals, pairs = chain_terms(BONDS, 5)
    assert angles == [(0, 1, 2), (1, 2, 3), (2, 3, 4)]
    assert dihedrals == [(0, 1, 2, 3), (1, 2, 3, 4)]
    assert pairs == [(0, 4)]
    assert len(chain_terms([(0, 1), (0, 2), (0, 3)], 4)[0]) == 3
    assert chain_terms([(0, 1), (1, 2), (0, 2)], 3)[1:] == ([], [])


def test_fit_recovers_the_prior_that_made_the_data(chains):
    """Errors: sqrt(2/n) of a normal density's variance, and about sqrt(4/n) of the coefficients of the series."""
    settings = ChainPriorSettings(terms=["bonds", "angles", "dihedrals"], dihedral_order=2)
    fit = fit_prior(chains, BONDS, NAMES, settings)
    error, term_grid = 1 / np.sqrt(len(chains)), np.linspace(-1, 1, 4001)
    for term in fit.terms:
        assert term.divergence < 0.01, term
        if term.kind == "bonds":
            assert term.numbers[0] == pytest.approx(BOND[0], abs=4 * error * BOND[1] ** -0.5)
            assert term.numbers[1] == pytest.approx(BOND[1], rel=4 * 2**0.5 * error)
        elif term.kind == "angles":  # one peak of the harmonic kind, up to what two more coefficients make of noise
            energy = 0.5 * COSINE[1] * (term_grid - COSINE[0]) ** 2
            excess = sum(number * term_grid**power for power, number in enumerate(term.numbers, 1)) - energy
            weight = np.exp(-energy) / np.exp(-energy).sum()
            excess = excess - weight @ excess
            # n times the mean square of a likelihood's excess is chi squared with four degrees of freedom
            assert len(chains) * (weight @ excess**2) < 20.0
        else:
            assert np.abs(np.subtract(term.numbers, SERIES)).max() < 4 * 2.0 * error


def test_prior_alone_samples_the_data(chains):
    """From starts drawn from it: 400 independent replicas diverge by 60 bins / (8 n) = 0.02 by chance."""
    fit = fit_prior(chains, BONDS, NAMES, ChainPriorSettings(terms=["bonds", "angles", "dihedrals"], dihedral_order=2))
    settings = CGSimulation(replicas=400, timestep=0.004, friction=5.0, duration=3.0, frame_interval=1.0, seed=3)
    found = simulate_prior(fit, chains[:400], np.full(5, 12.0), THERMAL_ENERGY, settings)
    assert found.stable_replicas == 400
    assert found.time == pytest.approx(3.0, rel=0.1)
    assert found.divergence.max() < 0.025
    assert prior_plot(fit, found.histograms).startswith(b"\x89PNG")


def test_a_soft_repulsion_alone_keeps_ends_apart(chains):
    fit = fit_prior(chains, BONDS, NAMES, ChainPriorSettings())
    (term,) = [term for term in fit.terms if term.kind == "repulsion"]
    ends = np.linalg.norm(chains[:, 0] - chains[:, 4], axis=1)
    assert (ends < term.numbers[0]).mean() == pytest.approx(0.001, abs=0.0005)
    module = ChainPrior({"repulsion": [[0, 4, *term.numbers]]}, THERMAL_ENERGY)
    place = torch.zeros(1, 5, 3)
    place[0, 4, 0] = term.numbers[0]
    energy, forces = module.energy_and_forces(place)
    assert float(energy) == pytest.approx(THERMAL_ENERGY, rel=1e-5)
    assert float(forces[0, 4, 0]) == pytest.approx(6 * THERMAL_ENERGY / term.numbers[0], rel=1e-4)


def _angles(cosine):
    """Three beads with these cosines of their angle."""
    frames = np.zeros((len(cosine), 3, 3))
    frames[:, 0] = 0.38 * np.stack([cosine, np.sqrt(1 - cosine**2), np.zeros(len(cosine))], axis=1)
    frames[:, 2, 0] = 0.38 + 0.004 * np.sin(np.arange(len(cosine)))
    return frames


def _fitted_angle(cosine):
    return fit_prior(_angles(np.clip(cosine, -1, 1)), BONDS[:2], NAMES, ChainPriorSettings(terms=["angles"])).terms[0]


def test_angles_of_two_peaks_are_recovered_within_their_standard_errors():
    """z RMS 1.00(5) over 200 independent combinations of coefficients; errors are those of Fisher's information."""
    cosine, powers = np.linspace(-1, 1, 20_001), np.arange(1, 5)[:, None]
    weight = np.exp(-TWO_PEAKS @ cosine**powers)
    weight /= weight.sum()
    centred = cosine**powers - (cosine**powers @ weight)[:, None]
    information = 4000 * (centred * weight) @ centred.T
    generator = np.random.default_rng(3)
    terms = [_fitted_angle(_drawn(generator, cosine, weight, 4000)) for _ in range(50)]
    z = np.array([np.linalg.cholesky(information).T @ (term.numbers - TWO_PEAKS) for term in terms])
    assert np.sqrt((z**2).mean()) == pytest.approx(1.0, abs=4 * 0.05)
    assert max(term.divergence for term in terms) < 0.01  # 60 bins / (8 n) = 0.002 by chance
    assert not any(term.note for term in terms)


@pytest.mark.parametrize("states", [(-0.95, 0.95), (-0.6, -0.1), (-1.0, -1.0), (0.3, 0.3)])
def test_an_angle_has_no_minimum_where_it_has_no_data(states):
    """Peaks far apart, near together, at straight legs, and one; few of these data have the tails of the family."""
    generator = np.random.default_rng(1)
    cosine = np.where(generator.random(2000) < 0.4, *states) + 0.02 * generator.standard_t(4, 2000)
    term = _fitted_angle(cosine)
    energy = np.polynomial.Polynomial([0.0, *term.numbers])
    assert np.isfinite(term.numbers).all()
    low, high = np.clip([cosine.min(), cosine.max()], -1, 1)
    for way in (np.linspace(low, -1, 500), np.linspace(high, 1, 500)):
        assert (np.diff(energy(way)) > -0.001).all()
    if states[0] != states[1]:
        between = energy(np.linspace(*states, 500))
        assert between.max() > max(energy(np.array(states))) + 1.0


def test_an_angle_that_would_fall_beyond_its_data_has_one_peak():
    """A narrow peak with heavy tails: the most likely polynomial of fourth order falls again towards straight legs."""
    cosine = -0.4 + 0.01 * np.random.default_rng(1).standard_t(2.5, 2000)
    term = _fitted_angle(cosine)
    assert "one peak" in term.note
    assert term.numbers[1] == pytest.approx(0.5 / np.clip(cosine, -1, 1).var(), rel=0.01)
    assert term.numbers[2:] == (0.0, 0.0)


def test_forces_of_angles_are_the_gradient_also_of_nearly_straight_legs():
    """Central differences of the energy in double precision, relative error 1e-6."""
    module = ChainPrior({"angles": [[0, 1, 2, *TWO_PEAKS]]}, 1.0).double()
    cosine = np.array([-1 + 1e-9, -0.999, -0.6, -0.3, 0.0, 0.5, 0.999, 1 - 1e-9])
    positions = torch.as_tensor(_angles(cosine))
    energy, forces = module.energy_and_forces(positions)
    expected = TWO_PEAKS @ cosine ** np.arange(1, 5)[:, None]
    np.testing.assert_allclose(energy.numpy(), expected, rtol=1e-9, atol=1e-9)
    step = 1e-6
    for bead, axis in np.ndindex(3, 3):
        shift = torch.zeros_like(positions)
        shift[:, bead, axis] = step
        difference = (module(positions + shift) - module(positions - shift)) / (2 * step)
        torch.testing.assert_close(forces[:, bead, axis], -difference, rtol=1e-6, atol=1e-3)
    with pytest.raises(ValueError, match="fit the prior again"):
        ChainPrior({"angles": [[0, 1, 2, -0.4, 14.0]]}, 1.0)  # the harmonic terms of earlier versions


def test_density_with_missing_data_stays_bounded():
    """All data at one angle: the series of largest likelihood would be infinite."""
    grid = np.linspace(-np.pi, np.pi, 2401)
    waves = np.stack([np.cos(grid), np.sin(grid), np.cos(2 * grid), np.sin(2 * grid)])
    coefficients = most_likely(waves, np.array([1.0, 0.0, 1.0, 0.0]))
    assert np.isfinite(coefficients).all()
    assert np.abs(coefficients).max() < 100


def test_bad_data_are_refused_or_left_out(chains):
    with pytest.raises(TrainingError, match="fitted to 50 frames"):
        fit_prior(chains[:50], BONDS, NAMES, ChainPriorSettings())
    with pytest.raises(TrainingError, match="no two beads are bonded"):
        fit_prior(chains, [], NAMES, ChainPriorSettings())
    rigid = chains.copy()
    leg = rigid[:, 0] - rigid[:, 1]
    rigid[:, 0] = rigid[:, 1] + 0.38 * leg / np.linalg.norm(leg, axis=1, keepdims=True)
    with pytest.raises(TrainingError, match="bond 1:CA - 2:CA never changes"):
        fit_prior(rigid, BONDS, NAMES, ChainPriorSettings())
    straight = chains[:, :3].copy()
    straight[:, 2] = 2 * straight[:, 1] - straight[:, 0]
    with pytest.raises(TrainingError, match="angle 1:CA - 2:CA - 3:CA never changes"):
        fit_prior(straight, BONDS[:2], NAMES, ChainPriorSettings(terms=["bonds", "angles"]))
    with pytest.raises(ValueError, match="each once"):
        ChainPriorSettings(terms=["bonds", "bonds"])


def test_network_learns_what_the_prior_lacks(chains):
    """Labels are the prior's forces: on delta forces, which are zero, a short training leaves little of them."""
    fit = fit_prior(chains, BONDS, NAMES, ChainPriorSettings(terms=["bonds", "angles", "dihedrals"], dihedral_order=2))
    config = {"type": "message_passing", "bead_types": list(range(5)), "features": 16, "interactions": 1}
    config |= {"basis_functions": 3, "cutoff": None, "thermal_energy": THERMAL_ENERGY, "prior": fit.config()}
    positions = chains.astype(np.float32)
    alone = ChainPrior(fit.config(), THERMAL_ENERGY)
    forces = alone.energy_and_forces(torch.as_tensor(positions))[1].numpy()
    group = np.arange(len(positions)) // 400
    training = Training(epochs=3, batch_size=200, learning_rate=0.01)
    with_prior = train(config, training, TrainingData(positions, forces, group), seed=0)
    without = train(config | {"prior": None}, training, TrainingData(positions, forces, group), seed=0)
    square = float((forces.astype(np.float64) ** 2).mean())
    assert with_prior.held_out_loss < 5e-3 * square
    assert with_prior.held_out_loss < 0.2 * without.held_out_loss
    # the potential that is stored and simulated is the sum
    copy = build_potential(config)
    copy.load_state_dict(with_prior.module.state_dict())
    copy.requires_grad_(False)
    place = torch.as_tensor(positions[:9])
    torch.testing.assert_close(copy.energy_and_forces(place)[1], with_prior.module.energy_and_forces(place)[1])


def test_an_exploding_prior_is_reported(chains):
    fit = fit_prior(chains, BONDS, NAMES, ChainPriorSettings())
    ladder = {"temperatures": [300.0, 400.0], "pace": 2.0}  # the prior alone is not tempered
    settings = CGSimulation(
        replicas=4, timestep=0.2, friction=1.0, duration=400.0, frame_interval=2.0, tempering=ladder
    )
    found = simulate_prior(fit, chains[:4], np.full(5, 12.0), THERMAL_ENERGY, settings)
    assert (found.replicas, found.stable_replicas) == (4, 0)
    assert found.histograms == []
    assert np.isnan(found.divergence).all()
