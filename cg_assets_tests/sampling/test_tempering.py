"""Replica exchange: the ensemble of the lowest temperature, crossings of barriers, exact resumption."""

import itertools

import numpy as np
import pytest

from cg_assets.core.errors import SystemSpecError, TrainingError
from cg_assets.core.frames import Frames
from cg_assets.core.replica_exchange import TemperatureLadders
from cg_assets.core.units import BOLTZMANN
from cg_assets.labels.kernels.sources import NoiseKernel
from cg_assets.labels.source import LabelInputs
from cg_assets.mapping.run import fit_force_map, map_frames
from cg_assets.sampling.molecule.sampler import MoleculeSampler
from cg_assets.systems import load_system
from cg_assets.systems.spec import SystemSpec
from cg_assets.training.data import TrainingData

LADDER = [300.0, 380.0, 480.0, 610.0, 770.0]


def tempered(**changes) -> SystemSpec:
    """Capped alanine in implicit solvent on ladders of temperatures."""
    content = load_system("capped_alanine_quick").model_dump()
    content["sampling"]["unbiased"] |= {
        "replicas": 2 * len(LADDER),
        "burn_in": 10.0,
        "duration": 400.0,
        "frame_interval": 0.2,
        "tempering": {"temperatures": LADDER, "pace": 0.4, "kept_rungs": "all"},
    } | changes
    return SystemSpec.model_validate(content)


def all_frames(sampler: MoleculeSampler) -> Frames:
    parts = [sampler.next_chunk() for _ in range(sampler.n_chunks)]
    return Frames.concatenate([part for part in parts if part is not None])


@pytest.fixture(scope="module")
def ladder():
    system = tempered()
    sampler = system.sampler(system.sampling.unbiased, seed=3)
    return sampler, all_frames(sampler)


@pytest.fixture(scope="module")
def run(ladder):
    sampler, frames = ladder
    return sampler, frames.at_temperature(300.0)


def boltzmann_slope(cold: Frames, hot: Frames) -> tuple[float, float]:
    """Slope [mol/kJ] of ln(p_hot(u)/p_cold(u)) in u by logistic regression, and its error from blocks of 40 ps.

    It is 1/kT_cold - 1/kT_hot whatever the density of states (Shirts, J. Chem. Theory Comput. 9, 909 (2013)).
    """
    energy = np.concatenate([cold.potential_energy, hot.potential_energy])
    centre, label = energy.mean(), np.repeat([0.0, 1.0], [len(cold), len(hot)])
    block = np.concatenate([part.replica * 10 + (part.time - 1e-6) // 40 for part in (cold, hot)]).astype(int)

    def fitted(kept: np.ndarray) -> float:
        design, theta = np.stack([np.ones(kept.sum()), energy[kept] - centre], axis=1), np.zeros(2)
        for _ in range(30):
            chance = 1.0 / (1.0 + np.exp(-design @ theta))
            curvature = design.T @ (design * (chance * (1.0 - chance))[:, None])
            theta = theta + np.linalg.solve(curvature, design.T @ (label[kept] - chance))
        return float(theta[1])

    numbers = np.unique(block)
    parts = np.array([fitted(block != number) for number in numbers])
    return fitted(np.ones(len(energy), bool)), float(np.sqrt((len(parts) - 1) * parts.var()))


def test_every_rung_keeps_frames_of_its_own_ensemble(ladder):
    sampler, frames = ladder
    assert len(frames) == 2 * 5 * 2000 == sampler._plan.frames and set(frames.replica) == {0, 1}
    assert sorted(set(frames.temperature)) == LADDER == sorted(sampler.summary().kinetic)
    for kelvin, kinetic in sampler.summary().kinetic.items():
        assert abs(kinetic.value - kelvin) < 4 * kinetic.standard_error + 0.01 * kelvin, kinetic
    for low, high in itertools.pairwise(LADDER):
        slope, error = boltzmann_slope(frames.at_temperature(low), frames.at_temperature(high))
        expected = (1.0 / low - 1.0 / high) / BOLTZMANN
        assert error < 0.15 * expected
        assert abs(slope - expected) < 4 * error + 0.04 * expected, (low, slope, error, expected)  # 4 fs: some per cent


def test_energy_and_forces_are_those_of_the_same_frame(ladder):
    """Of frames of all rungs, calculated again from their stored positions in single precision."""
    import openmm

    sampler, frames = ladder
    context = openmm.Context(
        openmm.XmlSerializer.clone(sampler.molecule.system),
        openmm.VerletIntegrator(0.001),
        openmm.Platform.getPlatformByName("Reference"),
    )
    for row in range(37, len(frames), 1999):
        context.setPositions(frames.positions[row].astype(float))
        state = context.getState(energy=True, forces=True)
        assert state.getPotentialEnergy()._value == pytest.approx(frames.potential_energy[row], abs=0.05)
        np.testing.assert_allclose(state.getForces(asNumpy=True)._value, frames.forces[row], rtol=0.01, atol=2.0)


SHORT = {"duration": 4.0, "burn_in": 0.8}


@pytest.fixture(scope="module")
def short():
    system = tempered(**SHORT)
    return all_frames(system.sampler(system.sampling.unbiased, seed=5))


def test_a_long_burn_in_is_cut_into_pieces(short, monkeypatch):
    """A ladder can need nanoseconds of it: a killed run repeats a piece only; frames are the same."""
    system = tempered(**SHORT)
    monkeypatch.setattr("cg_assets.sampling.molecule.sampler._PIECE_SECONDS", 1e-6)
    monkeypatch.setattr("cg_assets.sampling.molecule.sampler._MAX_PIECES", 2)
    sampler = system.sampler(system.sampling.unbiased, seed=5)
    assert [(piece.kind, piece.amount) for piece in sampler._pieces][:3] == [
        ("start", 0),
        ("burn_in", 200),
        ("sample", 10),
    ]
    monkeypatch.setattr("cg_assets.sampling.molecule.sampler._MAX_PIECES", 10)
    sampler = system.sampler(system.sampling.unbiased, seed=5)
    kinds = [piece.kind for piece in sampler._pieces]
    assert kinds.count("burn_in") == 2 and kinds.count("sample") == 10
    frames = all_frames(sampler)
    for name in ("positions", "forces", "potential_energy", "time", "replica", "temperature"):
        one, other = (
            getattr(item, name)[np.lexsort((item.time, item.temperature, item.replica))] for item in (short, frames)
        )
        np.testing.assert_array_equal(one, other)


def test_lowest_rung_is_the_same_whether_others_are_kept(short):
    system = tempered(**SHORT, tempering={"temperatures": LADDER, "pace": 0.4})
    lowest = all_frames(system.sampler(system.sampling.unbiased, seed=5))
    own = system.at_own_temperature(short)
    assert len(short) == 5 * len(lowest) and set(lowest.temperature) == {300.0}
    for name in ("positions", "forces", "potential_energy", "time", "replica", "start"):
        np.testing.assert_array_equal(getattr(own, name), getattr(lowest, name))


def test_ladders_from_before_the_choice_are_the_same():
    """Plans without it are dumped as they were, so that unfinished runs and hashes stay as they are."""
    plan = tempered(tempering={"temperatures": LADDER, "pace": 0.4}).sampling.unbiased
    assert plan.model_dump(mode="json")["tempering"] == {"temperatures": LADDER, "pace": 0.4}
    assert tempered().sampling.unbiased.model_dump(mode="json")["tempering"]["kept_rungs"] == "all"


def test_frames_of_all_rungs_are_not_taken_for_those_of_one(short):
    """Training and references at one temperature refuse them, or are given those of their own; kernels label each."""
    system = tempered()
    beads = system.beads()
    mapped = map_frames(beads, short, fit_force_map(system.mapping, beads, short.at_temperature(300.0)))
    with pytest.raises(TrainingError, match="frames are at 5 temperatures, 300 to 770"):
        TrainingData.from_frames([mapped])
    assert len(TrainingData.from_frames([system.at_own_temperature(mapped)])) == 2 * 20
    kernel = NoiseKernel(type="noise", noise=0.005, labels="clean")
    labels = kernel.label(LabelInputs(mapped, beads, None, 0)).frames
    size = {kelvin: labels.at_temperature(kelvin).forces.astype(float).std() for kelvin in (300.0, 770.0)}
    assert size[770.0] / size[300.0] == pytest.approx(770 / 300, rel=0.05)  # k_B T times the same noise
    content = system.model_dump()
    content["evaluation"]["reference"] = {"type": "long_runs", "plan": content["sampling"]["unbiased"]}
    with pytest.raises(ValueError, match="kept_rungs\n  is all, but a reference is at one temperature"):
        SystemSpec.model_validate(content)


def test_frames_are_those_of_the_lowest_temperature(run):
    sampler, frames = run
    summary = sampler.summary()
    assert len(frames) == 2 * 2000 and set(frames.replica) == {0, 1}
    assert abs(summary.kinetic_temperature.value - 300.0) < 4 * summary.kinetic_temperature.standard_error + 3.0
    assert all(0.1 < item < 0.8 for item in summary.exchange_acceptance)
    assert summary.journeys_up_the_ladder > 4
    assert summary.sampled_time >= 10 * 410.0


def test_potential_energy_is_that_of_plain_dynamics(run):
    """The mean potential energy at 300 K, within a basin that both visit, by two methods."""
    _, frames = run
    system = tempered(tempering=None, replicas=4, duration=400.0)
    plain = all_frames(system.sampler(system.sampling.unbiased, seed=4))

    def mean(part: Frames) -> tuple[float, float]:
        inside = part.collective_variables["phi"] < 0
        energy, block = part.potential_energy[inside], (part.replica * 10 + part.time // 40)[inside]
        means = np.array([energy[block == number].mean() for number in np.unique(block)])
        return float(means.mean()), float(means.std(ddof=1) / np.sqrt(len(means)))

    (one, error), (two, other) = mean(frames), mean(plain)
    assert abs(one - two) < 4 * np.hypot(error, other), f"{one:.2f} ± {error:.2f} and {two:.2f} ± {other:.2f} kJ/mol"


def test_barriers_are_crossed(run):
    """In 400 ps at 300 K a replica crosses to positive phi once in hundreds; ladders do so many times."""
    _, frames = run
    positive = frames.collective_variables["phi"] > 0
    assert 0 < positive.mean() < 0.25


def test_resumed_run_is_the_same_bit_for_bit():
    system = tempered(replicas=len(LADDER), duration=8.0, burn_in=0.8)
    plan = system.sampling.unbiased
    whole = all_frames(system.sampler(plan, seed=5))
    first = system.sampler(plan, seed=5)
    parts = [first.next_chunk() for _ in range(first.n_chunks - 1)]
    second = system.sampler(plan, seed=5)
    second.restore(first.state())
    parts.append(second.next_chunk())
    resumed = Frames.concatenate([part for part in parts if part is not None])
    np.testing.assert_array_equal(resumed.positions, whole.positions)
    np.testing.assert_array_equal(resumed.potential_energy, whole.potential_energy)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"tempering": {"temperatures": [310.0, 400.0], "pace": 0.4}}, "must begin with the temperature of the system"),
        ({"tempering": {"temperatures": [300.0, 300.0], "pace": 0.4}}, "does not rise"),
        ({"replicas": 7}, "is not a multiple of the 5 temperatures"),
        ({"tempering": {"temperatures": LADDER, "pace": 0.3}}, "is not a multiple of 0.2"),
    ],
)
def test_wrong_ladders_are_refused(changes, message):
    with pytest.raises((SystemSpecError, ValueError), match=message):
        tempered(**changes)


def test_exchanges_draw_permutations_by_their_boltzmann_weights():
    """From any order, one exchange leads to each order with its exact probability: within 4 standard errors."""
    temperatures, energies, n_ladders = np.array([300.0, 320.0, 345.0]), np.array([-20.0, -17.0, -24.0]), 20_000
    ladders = TemperatureLadders(temperatures, n_ladders, seed=3)
    ladders.exchange(np.tile(energies, n_ladders))
    orders = list(itertools.permutations(range(3)))  # the rung of each replica
    weights = np.array([np.exp(-(energies / (BOLTZMANN * temperatures[list(order)])).sum()) for order in orders])
    expected = weights / weights.sum()
    found = np.array([(ladders.rung.reshape(-1, 3) == order).all(axis=1).mean() for order in orders])
    error = np.sqrt(expected * (1 - expected) / n_ladders)
    assert expected.min() > 0.01
    np.testing.assert_array_less(np.abs(found - expected) / error, 4.0)
    scales = np.array([scale for _, scale in ladders.heat()]).reshape(-1, 3)
    np.testing.assert_allclose(scales, np.sqrt(temperatures[ladders.rung.reshape(-1, 3)] / temperatures))
