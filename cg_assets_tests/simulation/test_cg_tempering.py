"""Replica exchange of beads: exact populations behind a barrier, explosions, settings that are refused."""

import math

import numpy as np
import pytest
import torch

from cg_assets.core.replica_exchange import ReplicaExchange
from cg_assets.potentials.base import Potential
from cg_assets.simulation.langevin import simulate
from cg_assets.simulation.settings import CGSimulation

BARRIER, TILT = 10.0, 0.6
LADDER = {"temperatures": [1.0, 1.7, 2.9, 5.0], "pace": 0.5}


class _DoubleWell(Potential):
    """Ten k_B T between two wells, of which the right one is deeper; beyond `edge` nothing is a number."""

    def __init__(self, edge=math.inf):
        torch.nn.Module.__init__(self)
        self.edge = edge

    def energy(self, positions, temperature=None, box=None):
        return self.evaluate(positions)[0]

    def evaluate(self, positions, temperature=None, box=None):
        x = positions[:, 0, 0]
        well = x.square() - 1.0
        energy = BARRIER * well.square() - TILT * x
        forces = torch.where(x > self.edge, torch.nan, TILT - 4.0 * BARRIER * well * x)
        return energy, forces[:, None, None]


def _settings(**changes):
    defaults = {"replicas": 256, "timestep": 0.05, "friction": 1.0, "burn_in": 60.0, "duration": 240.0}
    return CGSimulation(**(defaults | {"frame_interval": 2.0, "tempering": LADDER} | changes))


def _exact():
    grid = np.linspace(-2.5, 2.5, 20001)
    energy = BARRIER * (grid**2 - 1) ** 2 - TILT * grid
    weight = np.exp(-(energy - energy.min()))
    weight /= weight.sum()
    return float(weight[grid > 0].sum()), float(weight @ energy)


def test_populations_are_exact_from_starts_in_one_well():
    """Standard errors from the 64 ladders, 0.006 of the population 0.77; without exchange no replica crosses."""
    population, energy = _exact()
    starts = np.full((256, 1, 1), -1.0)
    result = simulate(_DoubleWell(), starts, [1.0], 1.0, _settings(), seed=4)
    frames = result.frames
    assert sorted(np.unique(frames.replica)) == list(range(64))
    right = (frames.positions[:, 0, 0] > 0).reshape(-1, 64).mean(axis=0)
    error = right.std(ddof=1) / 8.0
    assert error < 0.02
    assert abs(right.mean() - population) < 4 * error
    per_ladder = frames.potential_energy.reshape(-1, 64).mean(axis=0)
    assert abs(per_ladder.mean() - energy) < 4 * per_ladder.std(ddof=1) / 8.0
    assert abs(result.kinetic_temperature - 1.0) < 4 * result.kinetic_temperature_error
    assert all(0.3 < share < 0.95 for share in result.exchange_acceptance)
    plain = simulate(_DoubleWell(), starts[:64], [1.0], 1.0, _settings(replicas=64, tempering=None), seed=4)
    assert (plain.frames.positions > 0).mean() < 0.1
    assert plain.exchange_acceptance == ()


def test_exchanges_draw_orders_by_their_boltzmann_weights():
    """Two configurations of known energies take either order with its exact probability, within 4 standard errors."""
    n, levels, energies = 20_000, np.array([2.5, 2.5 * 4 / 3]), np.array([1.0, 4.0])
    exchange = ReplicaExchange(levels, n, seed=1)
    source = exchange.attempt(np.tile(energies, (n, 1)))
    x = (1 / levels[0] - 1 / levels[1]) * (energies[0] - energies[1])
    expected = 1 / (1 + math.exp(-x))
    assert (source[:, 0] == 1).mean() == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / n))
    assert (np.sort(source, axis=1) == [0, 1]).all()
    assert exchange.acceptance == pytest.approx([math.exp(x)])


def test_a_ladder_exchanges_alike_whatever_the_others_do():
    energies = np.random.default_rng(2).normal(size=(5, 4))
    whole, part = (ReplicaExchange([1.0, 1.2, 1.5, 2.0], 5, seed=3) for _ in range(2))
    some = np.array([1, 4])
    for _ in range(3):
        np.testing.assert_array_equal(whole.attempt(energies)[some], part.attempt(energies[some], some))


def test_a_ladder_explodes_as_a_whole():
    starts = np.full((12, 1, 1), -1.0)
    starts[6] = 2.5  # third rung of the second ladder, at once beyond the edge
    result = simulate(_DoubleWell(edge=2.2), starts, [1.0], 1.0, _settings(burn_in=0.0, duration=4.0), seed=0)
    assert result.exploded.tolist() == [False, True, False]
    assert np.isnan(result.explosion_time).tolist() == [True, False, True]
    assert np.isnan(result.replica_temperatures).tolist() == [False, True, False]
    assert sorted(np.unique(result.stable_frames.replica)) == [0, 2]


def test_settings_are_checked():
    assert _settings().kept_replicas == 64
    assert _settings(enhanced_duration=4.0).enhanced.tempering is None
    with pytest.raises(ValueError, match="not a multiple of the 4 temperatures"):
        _settings(replicas=255)
    with pytest.raises(ValueError, match=r"tempering.pace 0.42 is not a whole number"):
        _settings(tempering=LADDER | {"pace": 0.42})
