"""What every bias must do: exact slopes, one energy in NumPy, torch and OpenMM, a definition, exact resumption."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
import toys.toy_bias  # noqa: F401  (a bias that is found by being defined)
from small_systems import SMALL_WELLS
from test_pipeline import materialize, verdicts_of

from cg_assets.biases import Bias, bias_from_definition
from cg_assets.biases.bead_bias import BeadBias
from cg_assets.core.errors import SamplingError
from cg_assets.core.settings import Scope
from cg_assets.mapping.atom_variables import AtomVariables
from cg_assets.mapping.collective_variables import Distance
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

WINDOWS = [{"phi": 1.0, "psi": 3.0}, {"phi": -3.0}, {"psi": 0.4, "d": 0.3}]
ON_TWO = {"collective_variables": ["phi", "d"], "width": {"phi": 0.4, "d": 0.05}, "grid_range": {"d": [0.1, 0.7]}}
DEPOSITED = ON_TWO | {"pace": 1.0, "deposition": 1.0}
CASES = {
    "static": {"expression": "3*cos(phi - 0.3)*exp(-d) + tanh(psi)**2/2"},
    "umbrella": {"centers": WINDOWS, "force_constant": 7.0},
    "adaptive": {"collective_variables": ["phi", "psi"], "windows": 3, "force_constant": 7.0},
    "metadynamics": DEPOSITED | {"height": 1.5, "bias_factor": 6.0},
    "opes": DEPOSITED | {"barrier": 20.0},
    "toy_pull": {"variable": "d", "strength": -4.0},
}
NAME = {"static": "expression", "umbrella": "centers", "toy_pull": "variable"}
"""The field that names collective variables, where it has another name than `collective_variables`."""


@pytest.fixture(scope="module")
def molecule():
    """Capped alanine with two angles and a distance: beads, atoms' variables, and 40 random structures."""
    system = load_system("capped_alanine_quick")
    variables = {**system.collective_variables, "d": Distance(type="distance", atoms=("1:C", "3:N"), range=(0.1, 0.7))}
    built = system.structure()
    beads = replace(system.beads(), collective_variables=variables)
    positions = built.positions + np.random.default_rng(1).normal(scale=0.02, size=(40, built.n_atoms, 3))
    return beads, AtomVariables.of(variables, built), positions


def settings_of(kind):
    return Bias.model_validate({"type": kind} | CASES[kind])


def walk(grid, seed, steps=5):
    """Let four walkers deposit, each feeling what the grid says."""
    generator = np.random.default_rng(seed)
    for _ in range(steps):
        points = np.stack([generator.uniform(-3.1, 3.1, 4), generator.uniform(0.15, 0.65, 4)], axis=1)
        grid.deposit(points, grid.energies(points))


@pytest.fixture(params=CASES)
def function(request, molecule):
    """Each bias as a function; those that walkers build after some hills, adaptive windows once they are placed."""
    settings, beads = settings_of(request.param), molecule[0]
    if settings.deposited is not None:
        grid = settings.deposited.grid(beads)
        walk(grid, seed=2)
        return grid.bias()
    return (settings if settings.adaptive is None else settings.adaptive.placed(WINDOWS)).function(beads)


def values_of(molecule):
    _, variables, positions = molecule
    columns = dict(zip(variables.names, variables.evaluate(positions).T, strict=True))
    return {name: np.random.default_rng(3).permutation(column) for name, column in columns.items()}


def test_every_bias_is_tried():
    """Those that other tests define for themselves aside."""
    shared = {name for name, member in Bias.members().items() if not member.__module__.startswith("test_")}
    assert set(CASES) >= shared


def test_slopes_are_the_derivatives_of_the_energy(function, molecule):
    values, step = values_of(molecule), 1e-5
    window = np.arange(40) % function.n_windows
    energy, slopes = function.energy_and_slopes(values, window)
    assert energy.shape == (40,) and energy.std() > 0.01 and set(slopes) == set(function.collective_variables)
    for name, slope in slopes.items():
        ahead, behind = (function.energy(values | {name: values[name] + sign * step}, window) for sign in (1, -1))
        np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), atol=1e-5, rtol=1e-5)


def test_definition_survives_json(function, molecule):
    again = bias_from_definition(json.loads(json.dumps(function.definition())))
    window = np.arange(40) % function.n_windows
    np.testing.assert_array_equal(
        again.energy(values_of(molecule), window), function.energy(values_of(molecule), window)
    )
    assert again.definition() == function.definition()
    assert (again.n_windows, again.windowed) == (function.n_windows, function.windowed)


def test_beads_feel_the_bias_of_the_atoms(function, molecule):
    """Energies in torch are those of NumPy; forces on beads are the derivatives along a random direction."""
    beads, _, positions = molecule
    points = np.einsum("ba,fad->fbd", beads.cg_map.matrix, positions)
    window = np.arange(40) % function.n_windows
    expected = function.energy(beads.variables(points), window)
    bias = BeadBias(beads, function.definition())
    energy, forces = bias.energy_and_forces(torch.tensor(points))
    np.testing.assert_allclose(energy.numpy(), expected, rtol=1e-10, atol=1e-10)
    direction = np.random.default_rng(4).normal(size=points.shape)
    ahead, behind = (bias.energy_and_forces(torch.tensor(points + step * direction))[0] for step in (1e-6, -1e-6))
    slope = -(forces.numpy() * direction).sum(axis=(1, 2))
    np.testing.assert_allclose(((ahead - behind) / 2e-6).numpy(), slope, rtol=1e-4, atol=1e-3)


def test_openmm_computes_the_same_energy_and_its_forces(function, molecule):
    """On the Reference platform, whose splines are in double precision."""
    _, variables, positions = molecule
    system = openmm.System()
    for _ in range(positions.shape[1]):
        system.addParticle(1.0)
    for force in function.openmm_forces(variables):
        system.addForce(force)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    direction = np.random.default_rng(5).normal(size=positions.shape[1:])

    def energy(points, window):
        for name, value in function.openmm_parameters(window).items():
            context.setParameter(name, value)
        context.setPositions(points)
        state = context.getState(energy=True, forces=True)
        forces = np.array(state.getForces(asNumpy=True)._value)
        return state.getPotentialEnergy()._value, -float((forces * direction).sum())

    for number, points in enumerate(positions[:12]):
        window = number % function.n_windows
        columns = dict(zip(variables.names, variables.evaluate(points[None]).T, strict=True))
        found, slope = energy(points, window)
        assert found == pytest.approx(function.energy(columns, np.array([window]))[0], rel=1e-6, abs=1e-6)
        ahead, behind = (energy(points + step * direction, window)[0] for step in (1e-6, -1e-6))
        assert (ahead - behind) / 2e-6 == pytest.approx(slope, rel=1e-3, abs=1e-2)


@pytest.mark.parametrize("kind", CASES)
def test_an_unknown_variable_is_refused(kind, molecule):
    text = json.dumps(CASES[kind]).replace('"d"', '"far"').replace("phi", "near").replace("exp(-d)", "exp(-far)")
    settings = Bias.model_validate({"type": kind} | json.loads(text))
    scope = Scope("molecule", "molar", 300.0, Path(), ("phi", "psi", "d"), frozenset({"phi", "psi"}))
    fields = {fault.field: fault.reason for fault in settings.faults(scope)}
    assert "known are ['d', 'phi', 'psi']" in fields[NAME.get(kind, "collective_variables")]
    assert not list(settings_of(kind).faults(scope))


def test_a_bias_of_what_beads_lack_is_refused(function, molecule):
    with pytest.raises(SamplingError, match="needs the collective variable"):
        function.energy({"chi": np.zeros(3)}, np.zeros(3, dtype=int))
    few = replace(molecule[0], collective_variables={"psi2": molecule[0].collective_variables["psi"]})
    with pytest.raises(SamplingError, match=r"the bias needs \["):
        BeadBias(few, function.definition())


@pytest.mark.parametrize("kind", [kind for kind in CASES if settings_of(kind).deposited])
def test_deposition_resumes_exactly(kind, molecule):
    bias, beads = settings_of(kind).deposited, molecule[0]
    whole, first, second = (bias.grid(beads) for _ in range(3))
    for seed in (1, 2):
        walk(whole, seed)
    walk(first, 1)
    second.restore({name: values.copy() for name, values in first.state().items()})
    walk(second, 2)
    np.testing.assert_array_equal(second.values, whole.values)
    assert whole.values.std() > 0.1 and not np.array_equal(whole.values, first.values)


def test_a_bias_of_one_file_is_sampled_trained_on_and_judged(tmp_path, monkeypatch):
    """`toys/toy_bias.py` from the specification to the evaluation, with a CG simulation under it."""
    import dagster as dg

    home = tmp_path / "home"
    (home / "systems").mkdir(parents=True)
    text = SMALL_WELLS.replace(
        'bias: {type: static, expression: "2*exp(-x**2)"}', "bias: {type: toy_pull, variable: x, strength: 0.4}"
    ).replace("duration: 20, frame_interval: 1}", "duration: 20, frame_interval: 1, enhanced_duration: 10}")
    (home / "systems" / "small_wells.yaml").write_text(text)
    for name, value in (("CG_ASSETS_HOME", str(home)), ("CG_DEVICE", "cpu")):
        monkeypatch.setenv(name, value)
    system = load_system("small_wells")
    stages = ["biased_samples", "relabelled_forces", "reference", "potential_biased"]
    stages += ["cg_simulation_biased", "evaluation_biased"]
    result = materialize(system, home, dg.DagsterInstance.ephemeral(), stages=stages)
    assert result.success and all(verdicts_of(result).values()), verdicts_of(result)
    samples = ParquetStore(home).read_frames(system.name, "biased_samples", ["0000"])
    np.testing.assert_allclose(samples.bias_energy, 0.4 * samples.collective_variables["x"], atol=1e-6)
    simulated = ParquetStore(home).read_frames(system.name, "cg_simulation_biased", None)
    under = simulated.window == 1
    np.testing.assert_allclose(simulated.bias_energy[under], 0.4 * simulated.positions[under, 0, 0], atol=1e-5)
