"""CG dynamics: exact distributions of harmonic and double-well potentials, biases, explosions."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from exact_potential import ExactPotential

from cg_assets.biases import bias_from_definition
from cg_assets.biases.bead_bias import BeadBias
from cg_assets.core.errors import ExplosionError, SamplingError
from cg_assets.core.frames import Frames
from cg_assets.mapping.maps import CGMap
from cg_assets.simulation.langevin import simulate
from cg_assets.simulation.run import run_cg_simulation
from cg_assets.simulation.settings import CGSimulation
from cg_assets.systems.load import load_system


def _settings(**changes):
    defaults = {"replicas": 1, "timestep": 0.1, "friction": 1.0, "burn_in": 5.0, "duration": 30.0}
    return CGSimulation(**(defaults | {"frame_interval": 2.0} | changes))


def _z(replica_means, exact):
    return (replica_means.mean() - exact) / (replica_means.std(ddof=1) / math.sqrt(len(replica_means)))


def _by_replica(frames, values):
    return values.reshape(-1, len(np.unique(frames.replica))).mean(axis=0)


@pytest.mark.parametrize("timestep", [0.1, 0.8])
def test_harmonic_dimer_is_exact_at_any_time_step(timestep):
    stiffness, thermal_energy = 2.0, 1.5
    module = ExactPotential(lambda x: 0.5 * stiffness * (x[:, 0] - x[:, 1]).square().sum(dim=1))
    settings = _settings(timestep=timestep, duration=64.0, frame_interval=1.6, burn_in=16.0)
    starts = np.zeros((1500, 2, 3))
    result = simulate(module, starts, [1.0, 3.0], thermal_energy, settings, seed=1)
    frames = result.frames
    difference = (frames.positions[:, 0] - frames.positions[:, 1]).astype(float)
    z = _z(_by_replica(frames, (difference**2).mean(axis=1)), thermal_energy / stiffness)
    assert abs(z) < 4, z
    assert abs(result.kinetic_temperature - thermal_energy) < 4 * result.kinetic_temperature_error
    assert result.kinetic_temperature_error < 0.01 * thermal_energy
    assert not result.exploded.any()
    assert result.replica_steps_per_second > result.steps_per_second > 0
    np.testing.assert_allclose(
        frames.potential_energy, stiffness / 2 * (difference**2).sum(axis=1), rtol=1e-4, atol=1e-4
    )
    center = (frames.positions * np.array([1.0, 3.0])[:, None]).sum(axis=1) / 4.0
    assert np.abs(center).max() < 1e-5


def test_kinetic_temperature_is_written_in_kelvin():
    module = ExactPotential(lambda x: 100.0 * x.square().sum(dim=(1, 2)))
    settings = _settings(timestep=0.01, duration=4.0, frame_interval=0.1, burn_in=1.0)
    result = simulate(module, np.zeros((400, 1, 3)), [12.0], 2.494, settings, seed=2, temperature=300.0)
    assert abs(result.kinetic_temperature - 300.0) < 4 * result.kinetic_temperature_error
    assert (result.frames.temperature == 300.0).all()


def _double_well(s):
    return 0.5 * (s * s / 2 - 2) ** 2


@pytest.fixture(scope="module")
def diagonal():
    system = load_system("muller_brown_diagonal")
    weights = np.array([[math.sqrt(0.5), -math.sqrt(0.5)]])
    cg_map = CGMap(weights, ["s"], [0], np.ones(1), ["x", "y"], [], [])
    return replace(system.beads(), cg_map=cg_map)


def _distribution_z(values, weights, replica, bins=12):
    """Per-bin z of a weighted histogram against the exact double well, errors from replicas."""
    edges = np.linspace(-3.2, 3.2, bins + 1)
    fine = np.linspace(-6, 6, 6001)
    density = np.exp(-_double_well(fine))
    exact = np.histogram(fine, edges, weights=density)[0] / density.sum()
    n_replicas = replica.max() + 1
    total = np.bincount(replica, weights, n_replicas)
    index = np.digitize(values, edges) - 1
    z = []
    for number in range(bins):
        inside = np.bincount(replica, weights * (index == number), n_replicas)
        ratio = inside.sum() / total.sum()
        error = math.sqrt(((inside - ratio * total) ** 2).sum()) / total.sum()
        z.append((ratio - exact[number]) / error)
    return np.array(z)


@pytest.mark.parametrize("biased", [False, True])
def test_reweighted_distribution_is_exact(diagonal, biased):
    module = ExactPotential(lambda x: _double_well(x[:, 0, 0]))
    bias = None
    if biased:
        nodes = np.linspace(-4, 4, 81)
        values = -0.8 * _double_well(np.clip(nodes, -2.4, 2.4))
        definition = {"type": "grid", "collective_variables": ["s"], "limits": [[-4, 4]], "periodic": [False]}
        bias = BeadBias(diagonal, definition | {"shape": [81], "values": values.tolist()})
    # starts in both wells, well equilibrated by the low barrier of 2 kT
    starts = np.where(np.arange(2000) % 2, 2.0, -2.0)[:, None, None]
    settings = _settings(timestep=0.2, duration=60.0, burn_in=40.0, frame_interval=3.0)
    frames = simulate(module, starts, [1.0], 1.0, settings, seed=3, bias=bias).frames
    weights = np.ones(len(frames)) if bias is None else np.exp(frames.bias_energy)
    z = _distribution_z(frames.positions[:, 0, 0].astype(float), weights, frames.replica)
    # the well's anharmonicity leaves a time-step error of 1e-3 of a bin at most, below these errors
    assert np.abs(z).max() < 4.5, z
    assert np.sqrt((z**2).mean()) < 1.8, z
    if biased:
        middle = np.abs(frames.positions[:, 0, 0]) < 0.5
        assert middle.mean() > 0.1


def test_bias_forces_are_those_of_the_sampling_code(diagonal):
    system = load_system("capped_alanine_implicit")
    beads = ["1:CH3", "1:C", "1:O", "2:N", "2:CA", "2:C", "2:O", "2:CB", "3:N", "3:C"]
    cg_map = CGMap(np.eye(10), beads, list(range(10)), np.full(10, 12.0), beads, ["C"] * 10, [])
    of_beads = replace(system.beads(), cg_map=cg_map)
    rng = np.random.default_rng(0)
    positions = 0.12 * np.arange(10)[:, None] * np.array([1, 0.2, 0]) + 0.1 * rng.standard_normal((50, 10, 3))
    turn = [-math.pi, math.pi]
    definitions = [
        {"type": "grid", "collective_variables": ["phi", "psi"], "limits": [turn, turn], "periodic": [True, True]}
        | {"shape": [20, 30], "values": rng.standard_normal(600).tolist()},
        {"type": "static", "expression": "3*cos(phi) + sin(2*psi)"},
        {"type": "umbrella", "centers": [{"phi": 1.0}, {"phi": -1.0, "psi": 2.0}], "force_constant": 3.0}
        | {"periodic": ["phi", "psi"]},
    ]
    for definition in definitions:
        numpy_bias = bias_from_definition(definition)
        values, gradients = of_beads.variable_gradients(positions)
        window = np.arange(50) % 2
        exact, slopes = numpy_bias.energy_and_slopes(values, window)
        expected = -sum(slope[:, None, None] * gradients[name] for name, slope in slopes.items())
        bias = BeadBias(of_beads, definition)
        energy, forces = bias.energy_and_forces(torch.tensor(positions))
        np.testing.assert_allclose(energy.numpy(), exact, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(forces.numpy(), expected, rtol=1e-7, atol=1e-7)
    with pytest.raises(SamplingError, match="needs \\['phi'\\]"):
        BeadBias(diagonal, {"type": "static", "expression": "cos(phi)"})


def test_distance_bias_is_the_gradient_of_its_energy():
    system = load_system("capped_alanine_implicit")
    variable = {"type": "distance", "atoms": ["1:C", "3:N"], "range": [0.2, 0.8]}
    content = system.model_dump() | {
        "collective_variables": system.model_dump()["collective_variables"] | {"d": variable}
    }
    system = type(system).model_validate(content | {"folder": system.folder})
    cg_map = CGMap(np.eye(2), ["1:C", "3:N"], [0, 1], np.ones(2), ["1:C", "3:N"], ["C", "N"], [])
    bias = BeadBias(replace(system.beads(), cg_map=cg_map), {"type": "static", "expression": "50*(d - 0.4)**2"})
    positions = torch.tensor([[[0.0, 0, 0], [0.3, 0.1, 0.2]]], dtype=torch.float64)
    energy, forces = bias.energy_and_forces(positions)
    length = float(positions[0, 1].norm())
    assert math.isclose(float(energy), 50 * (length - 0.4) ** 2)
    expected = -100 * (length - 0.4) * positions[0, 1] / length
    torch.testing.assert_close(forces[0, 1], expected)
    torch.testing.assert_close(forces[0, 0], -expected)


def _falling_off(x):
    # harmonic near zero and falling for ever beyond 5
    r = x[:, 0, 0]
    return torch.where(r < 5, 0.5 * r.square(), 12.5 - 50.0 * (r - 5).square())


def test_exploded_replicas_are_reported_and_disturb_no_other():
    starts = np.zeros((20, 1, 1))
    calm = simulate(ExactPotential(_falling_off), starts, [1.0], 1.0, _settings(), seed=5)
    starts[[3, 11]] = 6.0
    wild = simulate(ExactPotential(_falling_off), starts, [1.0], 1.0, _settings(), seed=5)
    assert np.flatnonzero(wild.exploded).tolist() == [3, 11]
    assert np.isfinite(wild.explosion_time[[3, 11]]).all()
    assert np.isnan(np.delete(wild.explosion_time, [3, 11])).all()
    stable = wild.stable_frames
    assert not np.isin(stable.replica, [3, 11]).any()
    same = calm.frames.select(~np.isin(calm.frames.replica, [3, 11]))
    np.testing.assert_array_equal(stable.positions, same.positions)
    assert np.isfinite(wild.frames.positions).all()
    assert math.isfinite(wild.kinetic_temperature)


def test_a_potential_that_gives_no_number_explodes():
    def broken(x):
        return torch.where(x[:, 0, 0] > 1.5, float("nan"), 0.5) * x[:, 0, 0].square()

    result = simulate(ExactPotential(broken), np.zeros((50, 1, 1)), [1.0], 1.0, _settings(), seed=6)
    assert 0 < result.exploded.sum() <= 50
    assert np.isfinite(result.stable_frames.positions).all()
    hopeless = ExactPotential(lambda x: x.sum(dim=(1, 2)) * float("nan"))
    with pytest.raises(SamplingError, match="all 3 replicas exploded before the first frame"):
        simulate(hopeless, np.zeros((3, 1, 1)), [1.0], 1.0, _settings(), 1)


def test_an_explosion_under_the_bias_is_reported_and_judged_without_it():
    system = load_system("muller_brown")
    content = {"replicas": 20, "duration": 20.0, "burn_in": 2.0, "timestep": 0.1, "enhanced_duration": 20.0}
    settings = system.cg_simulation.model_copy(update=content | {"frame_interval": 1.0, "enhanced_frame_interval": 0.5})
    beads = system.beads()
    data = Frames(
        positions=np.full((20, 1, 1), 25.0, np.float32),
        time=np.arange(20.0),
        replica=np.arange(20, dtype=np.int32),
        temperature=np.ones(20),
        start=np.zeros(20, np.int32),
        probe=np.zeros(20, bool),
    )

    def known_below_62(x):
        return (0.5 * (x - 25) ** 2 - 1e6 * torch.relu(x - 62) ** 3).sum(dim=(1, 2))

    for force, stable in ((2.0, 20), (40.0, 0)):
        bias = {"type": "static", "expression": f"-{force}*x"}
        result = run_cg_simulation(ExactPotential(known_below_62), beads, settings, data, bias=bias)
        assert [(run.biased, run.stable_replicas, run.replicas) for run in result.runs] == [
            (False, 20, 20),
            (True, stable, 20),
        ]
        assert np.bincount(result.frames.window).tolist() == ([400, 800] if stable else [400])
        assert result.stability == f"20 of 20 replicas stable, under the bias {stable} of 20"
    hopeless = ExactPotential(lambda x: -1e6 * x.abs().sum(dim=(1, 2)) ** 3)
    with pytest.raises(ExplosionError, match=r"0 of 20 replicas .* stayed stable"):
        run_cg_simulation(hopeless, beads, settings, data)


def test_replicas_of_a_molecule_start_where_they_are_told_to():
    """From a frame as it is, or displaced by 0.05 nm along each axis; one step at 300 K moves a bead by 0.001 nm."""
    system = load_system("capped_alanine_implicit")
    frame = np.random.default_rng(3).normal(size=(1, 10, 3)).astype(np.float32)
    frame -= np.average(frame, axis=1, weights=system.beads().cg_map.bead_masses).astype(np.float32)[:, None]
    data = Frames(
        positions=frame,
        time=np.zeros(1),
        replica=np.zeros(1, np.int32),
        temperature=np.full(1, 300.0),
        start=np.zeros(1, np.int32),
        probe=np.zeros(1, bool),
    )
    content = {"burn_in": 0.0, "duration": 0.002, "frame_interval": 0.002, "enhanced_duration": 0.0}
    for displacement, least, most in ((0.0, 0.0005, 0.002), (0.05, 0.045, 0.052)):
        settings = system.cg_simulation.model_copy(update=content | {"displacement": displacement})
        result = run_cg_simulation(ExactPotential(lambda x: 0.0 * x.sum(dim=(1, 2))), system.beads(), settings, data)
        assert least < (result.frames.positions - frame).std() < most


def test_same_seed_same_trajectory():
    module = ExactPotential(lambda x: 0.5 * x.square().sum(dim=(1, 2)))
    starts = np.zeros((5, 2, 3))
    one, two, other = (simulate(module, starts, [1.0, 2.0], 1.0, _settings(), seed=s).frames for s in (1, 1, 2))
    np.testing.assert_array_equal(one.positions, two.positions)
    assert not np.array_equal(one.positions, other.positions)
    assert one.time[0] == 2.0
    assert one.time[-1] == 30.0
    np.testing.assert_array_equal(one.replica[:5], np.arange(5))


def test_progress_starts_and_duration():
    seen = []
    module = ExactPotential(lambda x: 0.5 * x.square().sum(dim=(1, 2)))
    result = simulate(
        module,
        np.zeros((4, 1, 3)),
        [1.0],
        1.0,
        _settings(duration=8.0),
        seed=1,
        start=[2, 2, 3, 3],
        progress=lambda done, total, what: seen.append((done, total, what)),
    )
    assert seen[-1] == (130, 130, "steps")
    np.testing.assert_array_equal(result.frames.start[:4], [2, 2, 3, 3])
    assert len(result.frames) == 16


@pytest.mark.parametrize(
    ("starts", "masses", "duration", "message"),
    [
        (np.zeros((2, 3)), [1.0], 10.0, "must be"),
        (np.zeros((2, 3, 3)), [1.0], 10.0, "must be"),
        (np.full((2, 1, 3), np.nan), [1.0], 10.0, "finite"),
        (np.zeros((2, 1, 3)), [0.0], 10.0, "positive"),
        (np.zeros((2, 1, 3)), [1.0], 1.0, "shorter than frame_interval"),
    ],
)
def test_wrong_input_is_explained(starts, masses, duration, message):
    module = ExactPotential(lambda x: x.square().sum(dim=(1, 2)))
    with pytest.raises(SamplingError, match=message):
        simulate(module, starts, masses, 1.0, _settings().model_copy(update={"duration": duration}), seed=1)
