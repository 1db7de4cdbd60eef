"""Biases: energy and gradient agree, splines are those of SciPy and OpenMM, definitions survive JSON."""

import json
import math

import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from cg_assets.biases import FormulaBias, GridBias, Windows, bias_from_definition
from cg_assets.core.errors import ExpressionError, SamplingError


def _grid_1d(periodic):
    limits = (-math.pi, math.pi)
    nodes = np.linspace(*limits, 40, endpoint=not periodic)
    return GridBias(["phi"], [limits], [periodic], np.sin(nodes) + 0.3 * np.cos(3 * nodes)), nodes


def _grid_2d(periodic):
    limits = [(-math.pi, math.pi), (0.0, 2.0)]
    first = np.linspace(*limits[0], 30, endpoint=not periodic[0])
    second = np.linspace(*limits[1], 25, endpoint=not periodic[1])
    values = np.sin(first)[:, None] * np.cos(math.pi * second)[None, :] + 0.2 * np.cos(2 * first)[:, None]
    return GridBias(["phi", "d"], limits, periodic, values)


BIASES = {
    "grid": _grid_1d(False)[0],
    "periodic grid": _grid_1d(True)[0],
    "grid of two": _grid_2d([False, False]),
    "periodic grid of two": _grid_2d([True, False]),
    "torus": _grid_2d([True, True]),
    "static": FormulaBias("-4*exp(-(phi-1)**2/0.5) + d**3*cos(phi) - sqrt(d+1)*tanh(phi)*abs(phi)"),
    "umbrella": Windows([{"phi": 1.0, "d": 0.7}], 12.0),
    "periodic umbrella": Windows([{"phi": 3.0}], 12.0, periodic=["phi"]),
}


def _points(n=200, seed=3):
    rng = np.random.default_rng(seed)
    return {"phi": rng.uniform(-3.1, 3.1, n), "d": rng.uniform(0.05, 1.95, n)}


@pytest.mark.parametrize("bias", BIASES.values(), ids=BIASES.keys())
def test_gradient_is_the_derivative_of_the_energy(bias):
    points, step = _points(), 1e-5
    _, gradient = bias.energy_and_slopes(points)
    assert set(gradient) == set(bias.collective_variables)
    for name in bias.collective_variables:
        ahead = bias.energy(points | {name: points[name] + step})
        behind = bias.energy(points | {name: points[name] - step})
        np.testing.assert_allclose(gradient[name], (ahead - behind) / (2 * step), atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("bias", BIASES.values(), ids=BIASES.keys())
def test_definition_survives_json(bias):
    again = bias_from_definition(json.loads(json.dumps(bias.definition())))
    points = _points()
    np.testing.assert_array_equal(again.energy(points), bias.energy(points))
    assert again.definition() == bias.definition()
    assert bias.energy(points).shape == (200,)


@pytest.mark.parametrize("periodic", [False, True])
def test_grid_is_the_cubic_spline_of_scipy(periodic):
    bias, nodes = _grid_1d(periodic)
    values = bias.spline.values
    if periodic:
        nodes, values = np.append(nodes, math.pi), np.append(values, values[0])
    spline = CubicSpline(nodes, values, bc_type="periodic" if periodic else "natural")
    x = np.linspace(-3.14, 3.14, 1000)
    np.testing.assert_allclose(bias.energy({"phi": x}), spline(x), atol=1e-12)
    np.testing.assert_allclose(bias.energy_and_slopes({"phi": x})[1]["phi"], spline(x, 1), atol=1e-11)


@pytest.mark.parametrize("periodic", [[False, False], [True, True]])
def test_grid_of_two_is_the_product_spline_of_scipy(periodic):
    bias = _grid_2d(periodic)
    limits, values = bias.spline.limits, bias.spline.values
    axes = [np.linspace(*limits[i], values.shape[i], endpoint=not periodic[i]) for i in range(2)]
    if periodic[0]:
        axes = [np.append(axes[i], limits[i][1]) for i in range(2)]
        values = np.pad(values, ((0, 1), (0, 1)), mode="wrap")
    kind = "periodic" if periodic[0] else "natural"
    points = _points(20)
    along_second = CubicSpline(axes[1], values, axis=1, bc_type=kind)(points["d"])
    expected = [CubicSpline(axes[0], along_second[:, i], bc_type=kind)(phi) for i, phi in enumerate(points["phi"])]
    np.testing.assert_allclose(bias.energy(points), expected, atol=1e-12)


def test_grid_is_periodic_and_constant_outside_its_limits():
    periodic, plain = _grid_1d(True)[0], _grid_1d(False)[0]
    x = np.array([-3.0, 0.1, 3.13])
    np.testing.assert_allclose(periodic.energy({"phi": x + 4 * math.pi}), periodic.energy({"phi": x}), atol=1e-12)
    outside = {"phi": np.array([-9.0, 9.0])}
    np.testing.assert_allclose(plain.energy(outside), plain.spline.values[[0, -1]])
    np.testing.assert_array_equal(plain.energy_and_slopes(outside)[1]["phi"], 0.0)
    assert plain.outside({"phi": np.array([-9.0, 0.1, 9.0])}).tolist() == [True, False, True]
    assert periodic.outside(outside) is None


@pytest.mark.parametrize("periodic", [[True, True], [False, False]])
def test_grid_of_two_agrees_with_openmm(periodic):
    import openmm

    bias = _grid_2d(periodic)
    values = np.pad(bias.spline.values, ((0, 1), (0, 1)), mode="wrap") if periodic[0] else bias.spline.values
    flat = [value for limit in bias.spline.limits for value in limit]
    table = openmm.Continuous2DFunction(*values.shape, values.T.ravel().tolist(), *flat, periodic[0])
    force = openmm.CustomCompoundBondForce(1, "table(x1, y1)")
    force.addTabulatedFunction("table", table)
    system = openmm.System()
    system.addParticle(1.0)
    force.addBond([0])
    system.addForce(force)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    points = _points(10)
    energy, gradient = bias.energy_and_slopes(points)
    for i, (phi, d) in enumerate(zip(points["phi"], points["d"], strict=True)):
        context.setPositions([(phi, d, 0.0)])
        state = context.getState(getEnergy=True, getForces=True)
        assert state.getPotentialEnergy()._value == pytest.approx(energy[i], abs=1e-5)
        x_force, y_force, _ = state.getForces()[0]._value
        assert x_force == pytest.approx(-gradient["phi"][i], abs=1e-4)
        assert y_force == pytest.approx(-gradient["d"][i], abs=1e-4)


def test_umbrella_uses_each_frames_window_and_the_nearest_image():
    bias = Windows([{"phi": 3.0}, {"phi": -3.0}], 2.0, periodic=["phi"])
    energy = bias.energy({"phi": np.array([-3.0, -3.0])}, window=np.array([0, 1]))
    np.testing.assert_allclose(energy, [(2 * math.pi - 6.0) ** 2, 0.0], atol=1e-12)
    with pytest.raises(SamplingError, match="2 windows"):
        bias.energy({"phi": np.zeros(2)})
    with pytest.raises(SamplingError, match="window 2 does not exist"):
        bias.energy({"phi": np.zeros(2)}, window=np.array([0, 2]))


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ({"type": "wall"}, "'wall' is not known; allowed are grid, static"),
        ({"type": "static"}, "lacks the field 'expression'"),
        ({"type": "grid", "values": [1, 2, 3], "shape": [4]}, "cannot be used"),
        ({"type": "umbrella", "centers": [], "force_constant": 1}, "no centers"),
    ],
)
def test_wrong_definitions_name_the_field(definition, message):
    with pytest.raises(SamplingError, match=message):
        bias_from_definition(definition)


def test_wrong_grids_and_missing_variables_are_refused():
    with pytest.raises(SamplingError, match="finite"):
        GridBias(["x"], [(0, 1)], [False], [0.0, np.nan, 1.0])
    with pytest.raises(SamplingError, match=r"limits \[1.0, 0.0\]"):
        GridBias(["x"], [(1, 0)], [False], [0.0, 0.0, 1.0])
    with pytest.raises(SamplingError, match="values of shape"):
        GridBias(["x", "y"], [(0, 1)], [False], [0.0, 0.0, 1.0])
    with pytest.raises(SamplingError, match="needs the collective variable x"):
        FormulaBias("x**2").energy({"y": np.zeros(3)})
    with pytest.raises(ExpressionError):
        FormulaBias("import os")
