"""Sampling of model potentials: random numbers, dynamics, biases, starts and resuming, against exact answers.

Statistical tests compare z scores (difference over standard error, walkers being independent) with 4, or the mean
square of many z scores with 1; seeds are fixed.
"""

import math

import numba
import numpy as np
import pytest
from scipy import stats
from small_systems import landscape_of

from cg_assets.biases import BiasFormula, GridBias, MetadynamicsBias, bias_from_definition
from cg_assets.core import single_precision
from cg_assets.core.errors import SamplingError
from cg_assets.core.frames import Frames
from cg_assets.sampling.model_potential import sampler as sampler_module
from cg_assets.sampling.model_potential.landscape import Landscape
from cg_assets.sampling.model_potential.sampler import cut_plan
from cg_assets.sampling.model_potential.walkers import GridTable, Walkers
from cg_assets.sampling.settings import SamplingPlan
from cg_assets.systems import load_system
from cg_assets.systems.spec import SystemSpec

DOUBLE_WELL = "4*((x/2)**2 - 1)**2 + 0.5*x"
LEFT, RIGHT = {"x": -2.0}, {"x": 2.0}
METADYNAMICS = {
    "type": "metadynamics",
    "collective_variables": ["x"],
    "height": 0.004,
    "width": {"x": 0.25},
    "bias_factor": 8,
    "pace": 0.5,
    "deposition": 100,
    "grid_range": {"x": [-4, 4]},
}


def _system(expression=DOUBLE_WELL, domain=None, weights=None, temperature=1.0, mass=1.0):
    domain = domain or {"x": [-4.5, 4.5]}
    content = load_system("muller_brown").model_dump(mode="json") | {"name": "toy", "temperature": temperature}
    content["model"] = {
        "type": "model_potential",
        "coordinates": list(domain),
        "expression": expression,
        "domain": domain,
        "mass": mass,
    }
    name = next(iter(domain))
    content["mapping"] = {"type": "linear", "coordinates": {"s": weights} if weights else {name: {name: 1.0}}}
    variable = "s" if weights else name
    content["sampling"] = {"unbiased": content["sampling"]["unbiased"]}
    content["potentials"] = {"unbiased": {"labels": "mapped_forces"}}
    content["evaluation"] |= {"collective_variables": [variable], "basins": {}}
    return SystemSpec.model_validate(content)


def _plan(**changes):
    plan = {
        "replicas": 256,
        "starts": [LEFT],
        "timestep": 0.05,
        "friction": 1.0,
        "burn_in": 20,
        "duration": 40,
        "frame_interval": 1.0,
    }
    return SamplingPlan.model_validate(plan | changes)


def _run(system, plan, seed=1):
    sampler = system.sampler(plan, seed)
    pieces = [sampler.next_chunk() for _ in range(sampler.n_chunks)]
    return Frames.concatenate([piece for piece in pieces if piece is not None]), sampler.summary()


def _mean_and_error(values, replica):
    """Mean over all frames and its standard error over replicas."""
    means = np.bincount(replica, values) / np.bincount(replica)
    return means.mean(), means.std(ddof=1) / math.sqrt(len(means))


def _exact_density(system, grid, bias=None):
    energy = landscape_of(system).energy_and_forces(grid[:, None])[0]
    weight = np.exp(-(energy + (0.0 if bias is None else bias)) / system.thermal_energy)
    return weight / np.trapezoid(weight, grid)


# --------------------------------------------------------------------------------------- random numbers


def _over(function, x):
    """Run a scalar function over an array, compiled as the dynamics is."""

    @numba.njit(fastmath=single_precision.FLAGS, error_model="numpy")
    def loop(values, result):
        for i in range(values.size):
            result[i] = function(values[i])

    values = x.astype(np.float32)
    result = np.empty_like(values)
    loop(values, result)
    return result


@pytest.mark.parametrize(
    ("name", "low", "high", "relative", "absolute"),
    [
        ("exp", -80, 88, 2e-7, 0),
        ("log", 1e-30, 1e30, 2e-7, 1e-7),
        ("sin", -1000, 1000, 0, 3e-7),
        ("cos", -1000, 1000, 0, 3e-7),
        ("tan", -1.5, 1.5, 4e-6, 1e-7),
        ("tanh", -20, 20, 4e-7, 0),
        ("sign", -1, 1, 0, 0),
    ],
)
def test_single_precision_functions(name, low, high, relative, absolute):
    x = np.geomspace(low, high, 100_001) if name == "log" else np.linspace(low, high, 100_001)
    x = x.astype(np.float32)
    expected = getattr(np, name)(x.astype(np.float64))
    np.testing.assert_allclose(_over(getattr(single_precision, f"{name}32"), x), expected, rtol=relative, atol=absolute)


def test_exponential_and_logarithm_at_their_limits():
    with np.errstate(all="ignore"):
        exponential = _over(single_precision.exp32, np.array([-np.inf, -200.0, 0.0, 200.0, np.nan]))
        logarithm = _over(single_precision.log32, np.array([-1.0, 0.0, 1.0, np.nan]))
    assert exponential[:3].tolist() == [0.0, 0.0, 1.0]
    assert exponential[3] > 1e38
    assert np.isnan(exponential[4])
    assert np.isnan(logarithm[[0, 3]]).all()
    assert logarithm[1:3].tolist() == [-np.inf, 0.0]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0), 0, (0xFF1DAE59, 0x6CD10DF2)),
        ((0xFFFFFFFF, 0xFFFFFFFF), 0xFFFFFFFF, (0x2C3F628B, 0xAB4FD7AD)),
        ((0x243F6A88, 0x85A308D3), 0x13198A2E, (0xDD7CE038, 0xF62A4C12)),
    ],
)
def test_philox_gives_the_known_answers_of_its_authors(counter, key, expected):
    words = single_precision.philox(np.uint64(counter[0]), np.uint64(counter[1]), np.uint64(key))
    assert tuple(int(word) & 0xFFFFFFFF for word in words) == expected


@pytest.fixture(scope="module")
def normals():
    """`(n_steps, n_walkers, 2)` numbers as the dynamics draws them."""

    @numba.njit(fastmath=single_precision.FLAGS, error_model="numpy")
    def draw(n_steps, n_walkers, key):
        result = np.empty((n_steps, n_walkers, 2), np.float32)
        for step in range(n_steps):
            for walker in range(n_walkers):
                one, two = single_precision.philox(np.uint64(walker), np.uint64(step), key)
                pair = single_precision.normal_pair(np.uint32(one), np.uint32(two))
                result[step, walker, 0], result[step, walker, 1] = pair
        return result

    return draw(2000, 512, np.uint64(12345)).astype(np.float64)


def test_normal_numbers_have_the_moments_and_the_distribution(normals):
    sample = normals.ravel()
    for order, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)):
        assert abs((sample**order).mean() - mean) < 4 * math.sqrt(variance / sample.size), order
    assert stats.kstest(sample[:200_000], "norm").pvalue > 1e-3
    for threshold in (3.0, 4.0):
        expected = 2 * stats.norm.sf(threshold) * sample.size
        assert abs((np.abs(sample) > threshold).sum() - expected) < 4 * math.sqrt(expected)


def test_normal_numbers_are_not_correlated_between_steps_walkers_and_coordinates(normals):
    pairs = [
        (normals[:-1], normals[1:]),
        (normals[:-2], normals[2:]),
        (normals[:, :-1], normals[:, 1:]),
        (normals[:, :-8], normals[:, 8:]),
        (normals[..., 0], normals[..., 1]),
    ]
    for first, second in pairs:
        for power in (1, 2):
            a, b = first**power - (power - 1), second**power - (power - 1)
            z = (a * b).mean() * math.sqrt(a.size) / (a.std() * b.std())
            assert abs(z) < 4


# --------------------------------------------------------------------------------------- dynamics


def _landscape(expression, weights):
    names = ("x", "y", "z")[: len(weights)]
    return Landscape(names, expression, ("s",), (weights,), ((-5.0, 5.0),) * len(names), 1.0)


def _one_step(landscape, points, **settings):
    """Displacement per timestep squared of resting walkers without friction: the compiled force."""
    step = 2.0**-6
    walkers = Walkers(landscape, points, mass=1.0, thermal_energy=1.0, timestep=step, friction=0.0, seed=0, **settings)
    walkers.velocity[:] = 0.0
    walkers.advance(0, 1)
    return walkers.velocity[:, : walkers.n].T.astype(np.float64) / step


def _hill_grid(walkers=20):
    """Hills of walkers along `s`; `tempering` is 5."""
    bias = MetadynamicsBias(
        **{"type": "metadynamics", "collective_variables": ["s"], "width": {"s": 0.4}, "height": 0.5},
        **{"bias_factor": 6.0, "pace": 1.0, "deposition": 1.0, "grid_range": {"s": (-3.0, 4.0)}},
    )
    grid = bias.grid(_system().beads())
    points = np.random.default_rng(2).normal(0.0, 1.0, (walkers, 1))
    grid.deposit(points, grid.energies(points))
    return grid


def _table(grid):
    return GridTable.of(grid.spline(), grid.spacing[0])


EVERYTHING = (
    "exp(-x**2)*cos(y) + tanh(x*z) + log(2 + x**2) + sqrt(1 + y**2)*sin(z) + abs(x - y) + tan(z/5) + (2+y)**1.7"
)


@pytest.mark.parametrize("kind", ["none", "static", "umbrella", "grid"])
def test_compiled_forces_are_those_of_the_formula_and_the_bias(kind):
    landscape = _landscape(EVERYTHING, (0.6, -0.8, 0.3))
    points = np.random.default_rng(5).uniform(-1.5, 1.5, (100, 3)).astype(np.float32)
    center = np.random.default_rng(6).normal(size=100)
    settings = {
        "none": {},
        "static": {"bias": BiasFormula("sin(3*s)*s")},
        "umbrella": {"bias": BiasFormula("1.5*(s - c)**2", {"c": center}), "window": np.arange(100)},
        "grid": {"table": _table(_hill_grid())},
    }[kind]
    force = landscape.energy_and_forces(points)[1]
    s = landscape.coordinate(points)
    slope = {
        "none": np.zeros(100),
        "static": np.sin(3 * s) + 3 * s * np.cos(3 * s),
        "umbrella": 3.0 * (s - center),
        "grid": _hill_grid().bias().energy_and_slopes({"s": s})[1]["s"],
    }[kind]
    expected = force - slope[:, None] * np.array(landscape.weights)
    np.testing.assert_allclose(_one_step(landscape, points, **settings), expected, rtol=2e-5, atol=2e-5)


def test_grid_force_outside_the_grid_is_zero():
    landscape = _landscape("0*x", (1.0,))
    points = np.array([[-50.0], [-3.001], [4.001], [1e6]])
    assert (_one_step(landscape, points, table=_table(_hill_grid())) == 0.0).all()


def test_forces_in_double_precision_are_the_derivatives_of_the_energy():
    landscape = _landscape(EVERYTHING, (1.0, 0.0, 0.0))
    points = np.random.default_rng(5).uniform(-1.5, 1.5, (50, 3))
    forces = landscape.energy_and_forces(points)[1]
    for axis, step in enumerate(np.eye(3) * 1e-6):
        ahead, behind = (landscape.energy_and_forces(points + sign * step)[0] for sign in (1, -1))
        np.testing.assert_allclose(forces[:, axis], -(ahead - behind) / 2e-6, atol=1e-7)


def test_harmonic_wells_have_exact_variances_and_kinetic_temperature_at_a_long_timestep():
    stiffness = {"x": 4.0, "y": 1.0, "z": 0.25}
    expression = "2*(x-1)**2 + 0.5*y**2 + 0.125*(z+2)**2"
    system = _system(
        expression, {"x": [-12, 14], "y": [-25, 25], "z": [-50, 50]}, {"x": 1.0, "y": 1.0}, temperature=2.0, mass=2.0
    )
    # the stiffest mode: angular frequency sqrt(2), 0.7 rad a step
    starts = [{"x": 1.0, "y": 0.0, "z": -2.0}]
    plan = _plan(replicas=512, starts=starts, timestep=0.5, burn_in=50, duration=500, frame_interval=2.5)
    frames, summary = _run(system, plan)
    z = (summary.kinetic_temperature.value - 2.0) / summary.kinetic_temperature.standard_error
    assert summary.kinetic_temperature.standard_error < 0.01
    assert abs(z) < 4
    for axis, (k, center) in enumerate(zip(stiffness.values(), (1.0, 0.0, -2.0), strict=True)):
        square = (frames.positions[:, 0, axis].astype(np.float64) - center) ** 2
        mean, error = _mean_and_error(square, frames.replica)
        assert error < 0.02 * 2.0 / k
        assert abs(mean - 2.0 / k) < 4 * error


@pytest.mark.parametrize("bias", [None, {"type": "static", "expression": "-2*exp(-x**2/0.8)"}])
def test_double_well_has_the_boltzmann_histogram(bias):
    system = _system()
    plan = _plan(replicas=512, starts="equilibrium", burn_in=5, duration=60, frame_interval=0.5, bias=bias)
    frames, summary = _run(system, plan)
    grid = np.linspace(-4.5, 4.5, 4001)
    density = _exact_density(system, grid, -2 * np.exp(-(grid**2) / 0.8) if bias else None)
    cumulative = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(grid))])
    edges = np.linspace(-3, 3, 25)
    expected = np.diff(np.interp(edges, grid, cumulative))
    x = frames.positions[:, 0, 0]
    z = []
    for low, high, probability in zip(edges[:-1], edges[1:], expected, strict=True):
        mean, error = _mean_and_error(((x >= low) & (x < high)).astype(float), frames.replica)
        if probability * len(x) > 200:
            z.append((mean - probability) / error)
    assert len(z) > 15
    assert np.sqrt(np.mean(np.square(z))) < 1.6
    assert np.abs(z).max() < 4
    assert abs(summary.kinetic_temperature.value - 1.0) < 4 * summary.kinetic_temperature.standard_error


def test_forces_and_energies_are_unbiased_although_a_bias_acts():
    system = _system("x**4/8 - x**2 + 0.5*y**2 + 0.3*x*y", {"x": [-6, 6], "y": [-8, 8]}, {"x": 0.8, "y": -0.6})
    bias = {"type": "static", "expression": "3*cos(2*s)"}
    frames, summary = _run(system, _plan(starts=[{"x": 0, "y": 0}], burn_in=1, duration=5, bias=bias))
    x, y = frames.positions.astype(np.float64)[:, 0].T
    s = 0.8 * x - 0.6 * y
    assert frames.forces.dtype == np.float32
    force = -np.stack([x**3 / 2 - 2 * x + 0.3 * y, y + 0.3 * x], axis=1)
    np.testing.assert_allclose(frames.forces[:, 0], force, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(frames.potential_energy, x**4 / 8 - x**2 + 0.5 * y**2 + 0.3 * x * y, atol=1e-12)
    np.testing.assert_allclose(frames.bias_energy, 3 * np.cos(2 * s), atol=1e-12)
    np.testing.assert_allclose(frames.collective_variables["s"], s, atol=1e-6)
    assert summary.bias == bias


# --------------------------------------------------------------------------------------- metadynamics


@pytest.mark.parametrize("walkers", [3, 200])
def test_hills_add_up_to_gaussians_of_tempered_height(walkers):
    grid = _hill_grid(walkers=0)
    nodes = np.linspace(-3.0, 4.0, len(grid.values))
    first, second = np.linspace(-2.0, 3.0, walkers), np.linspace(-2.1, 2.6, walkers)

    def gaussians(centers, heights):
        return (heights * np.exp(-0.5 * ((nodes[:, None] - centers) / 0.4) ** 2)).sum(axis=1)

    grid.deposit(first[:, None], grid.energies(first[:, None]))
    expected = gaussians(first, np.full(walkers, 0.5))
    np.testing.assert_allclose(grid.values, expected, atol=1e-7 * walkers)
    energy = GridBias(["s"], [(-3.0, 4.0)], [False], expected).energy({"s": second})
    grid.deposit(second[:, None], grid.energies(second[:, None]))
    heights = 0.5 * np.exp(-energy / 5.0)
    np.testing.assert_allclose(grid.values, expected + gaussians(second, heights), atol=2e-7 * walkers)
    assert grid.inside(np.array([[-3.1], [-3.0], [0.2], [4.0], [9.0]])).tolist() == [False, True, True, True, False]


def test_table_of_the_dynamics_is_the_slope_of_the_grid_bias():
    grid = _hill_grid()
    table, s = _table(grid), np.linspace(-2.99, 3.99, 500)
    cell, part = np.divmod((s - table.low) * table.per_spacing, 1.0)
    slope = grid.bias().energy_and_slopes({"s": s})[1]["s"]
    c = table.coefficients[cell.astype(int)].T
    np.testing.assert_allclose(c[0] + part * (c[1] + part * c[2]), slope, atol=1e-5)


@pytest.fixture(scope="module")
def metadynamics():
    plan = _plan(replicas=256, burn_in=10, duration=100, frame_interval=1, bias=METADYNAMICS)
    plan = SamplingPlan.model_validate(plan.model_dump() | {"probe": {"replicas": 64, "starts": [RIGHT, {"x": 1.9}]}})
    return plan, *_run(_system(), plan)


def test_metadynamics_recovers_the_pmf_of_a_double_well(metadynamics):
    plan, frames, summary = metadynamics
    grid = np.linspace(-2.8, 2.6, 200)
    exact = -np.log(_exact_density(_system(), grid))
    bias = bias_from_definition(summary.bias)
    # V = -(1 - 1/gamma) F, up to a constant, within the noise of its last hills
    estimate = -bias.energy({"x": grid}) / (1 - 1 / plan.bias.bias_factor)
    assert (estimate - exact).std() < 0.25
    # reweighted frames of the frozen bias are exact; walkers cross, so all agree with the exact population
    main = frames.select(~frames.probe)
    x, weight = main.positions[:, 0, 0], np.exp(main.bias_energy - main.bias_energy.max())
    wide = np.linspace(-4.5, 4.5, 4001)
    density = _exact_density(_system(), wide)
    expected = np.trapezoid(np.where(wide > 0, density, 0.0), wide)
    right, total = (np.bincount(main.replica, weight * value) for value in (x > 0, np.ones(len(x))))
    ratio = right.sum() / total.sum()
    error = np.sqrt(((right - ratio * total) ** 2).sum()) / total.sum()
    assert error < 0.1 * expected
    assert abs(ratio - expected) < 4 * error
    assert abs(summary.kinetic_temperature.value - 1.0) < 4 * summary.kinetic_temperature.standard_error


def test_probes_join_the_frozen_bias_with_their_own_starts(metadynamics):
    plan, frames, summary = metadynamics
    assert len(frames) == (256 + 64) * 100
    assert np.array_equal(frames.probe, frames.replica >= 256)
    assert set(frames.start[~frames.probe]) == {0}
    assert np.array_equal(frames.start[frames.probe], 1 + (frames.replica[frames.probe] - 256) % 2)
    assert frames.time.min() == 1.0
    assert frames.time.max() == 100.0
    assert summary.sampled_time == 256 * (100 + 10 + 100) + 64 * 110
    assert summary.steps == round(summary.sampled_time / plan.timestep)
    expected = bias_from_definition(summary.bias).energy({"x": frames.positions[:, 0, 0]})
    np.testing.assert_allclose(frames.bias_energy, expected, atol=1e-12)


def test_umbrella_windows_shift_and_narrow_a_harmonic_well():
    system = _system("0.5*x**2", {"x": [-10, 10]})
    centers = [{"x": -4.0}, {"x": 0.0}, {"x": 4.0}]
    bias = {"type": "umbrella", "centers": centers, "force_constant": 3.0}
    frames, summary = _run(system, _plan(replicas=300, starts="equilibrium", bias=bias))
    assert np.array_equal(frames.window, frames.replica % 3)
    assert summary.bias == bias | {"periodic": []}
    for window, center in enumerate((-4.0, 0.0, 4.0)):
        here = frames.select(frames.window == window)
        x, replica = here.positions[:, 0, 0].astype(np.float64), here.replica // 3
        for values, expected in ((x, 0.75 * center), ((x - 0.75 * center) ** 2, 0.25)):
            mean, error = _mean_and_error(values, replica)
            assert abs(mean - expected) < 4 * error
        np.testing.assert_allclose(here.bias_energy, 1.5 * (x - center) ** 2, rtol=1e-12)


# --------------------------------------------------------------------------------------- starts and resuming


def test_listed_starts_are_taken_in_turn_and_equilibrium_starts_carry_their_basin():
    system = _system()
    listed, _ = _run(system, _plan(replicas=5, starts=[LEFT, RIGHT], burn_in=0, duration=0.05, frame_interval=0.05))
    assert listed.start.tolist() == [0, 1, 0, 1, 0]
    assert np.array_equal(listed.positions[:, 0, 0] > 0, listed.start == 1)
    drawn, _ = _run(system, _plan(replicas=2000, starts="equilibrium", burn_in=0, duration=0.05, frame_interval=0.05))
    assert set(drawn.start) == {0, 1}
    assert (drawn.positions[drawn.start == 0, 0, 0] < 0.5).all()


def _same(first, second):
    one, two = first.arrays(), second.arrays()
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def test_interrupted_and_cut_otherwise_it_gives_the_same_bits(metadynamics, monkeypatch):
    plan, frames, summary = metadynamics
    monkeypatch.setattr(sampler_module, "WALKER_STEPS_PER_PIECE", 1e5)
    sampler, pieces = _system().sampler(plan, 1), []
    phases = [piece.kind for piece in cut_plan(plan)]
    assert phases.count("deposition") > 1
    assert phases.count("frames") > 1
    assert sampler.n_chunks == len(phases) < 100
    for _ in range(sampler.n_chunks):
        state = sampler.state()
        sampler = _system().sampler(plan, 1)
        sampler.restore(state)
        pieces.append(sampler.next_chunk())
    _same(Frames.concatenate([piece for piece in pieces if piece is not None]), frames)
    assert sampler.summary() == summary


def test_the_same_seed_gives_the_same_bits_and_another_seed_other_walkers():
    system, plan = _system(), _plan(replicas=3, burn_in=1, duration=2)
    first, summary = _run(system, plan, seed=5)
    _same(first, _run(system, plan, seed=5)[0])
    assert not np.isin(_run(system, plan, seed=6)[0].positions, first.positions).any()
    assert summary.kinetic_temperature.standard_error > 0
    assert len(np.unique(first.positions)) == 6


def test_a_checkpoint_of_another_plan_is_refused():
    system = _system()
    sampler = system.sampler(_plan(), 1)
    sampler.next_chunk()
    state = sampler.state()
    with pytest.raises(SamplingError, match=r"stored state is of .*\"replicas\": 256.*this run is .*\"replicas\": 64"):
        system.sampler(_plan(replicas=64), 1).restore(state)
    with pytest.raises(SamplingError, match="this run is system toy, seed 2"):
        system.sampler(_plan(), 2).restore(state)
    with pytest.raises(SamplingError, match="not finished: 1 of 2 pieces"):
        sampler.summary()
    sampler.next_chunk()
    with pytest.raises(StopIteration, match="every piece of this plan is done"):
        sampler.next_chunk()


# --------------------------------------------------------------------------------------- errors


def test_a_walker_that_leaves_is_reported_with_timestep_and_remedy():
    with pytest.raises(SamplingError, match=r"left the potential within .* timestep 1\.0 is too long.*try 0\.25"):
        _run(_system(), _plan(timestep=1.0, frame_interval=1.0))
    with pytest.raises(SamplingError, match="left the potential"):
        _run(_system("-x**2 + 0*x", {"x": [-3, 3]}), _plan())


def test_plans_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"bias\.pace 0\.52 is not a whole number of timesteps of 0\.05"):
        _plan(bias=METADYNAMICS | {"pace": 0.52})
    with pytest.raises(ValueError, match=r"bias\.deposition 100\.3 is not a whole number of paces"):
        _plan(bias=METADYNAMICS | {"deposition": 100.3})


def test_long_plans_stay_below_a_hundred_pieces():
    for replicas, duration, interval in ((1, 1e6, 0.05), (4096, 2e5, 50.0), (100_000, 100.0, 1.0)):
        plan = _plan(replicas=replicas, duration=duration, frame_interval=interval, burn_in=duration)
        pieces = cut_plan(plan)
        assert len(pieces) < 100
        assert sum(piece.amount for piece in pieces if piece.kind == "frames") == plan.frames_per_replica
        assert sum(piece.amount for piece in pieces if piece.kind == "burn_in") == plan.burn_in_steps
