"""One potential for all temperatures of two wells, against quadrature, from data that one run each would give.

From biased frames at one temperature with product labels, and from kernel labels of biased frames at three
temperatures, with the forces of the atoms or from configurations alone: mean forces F and their derivatives F_1 and
F_2, W(T), populations, and their change with temperature from Cov(A, U_W)/(kT²). Deviations are compared with the
errors that the fit states: z of right errors has a root mean square of 1. Labels of a noise kernel are those of the
smoothed density, which quadrature gives as well.
"""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
import yaml
from coupled_wells import HEIGHT, ORIGIN, SYSTEM, bias_force, drawn, landscape
from scipy.special import logsumexp

from cg_assets.core.frames import Frames
from cg_assets.labels.kernels.flow_training import train_flow
from cg_assets.labels.kernels.run import flow_config
from cg_assets.labels.kernels.sources import FlowKernel, NoiseKernel
from cg_assets.labels.source import LabelInputs
from cg_assets.potentials.settings import build_potential
from cg_assets.potentials.thermal_curve.solve import solve_curve
from cg_assets.systems.spec import SystemSpec
from cg_assets.training.response import ResponseData, ResponseWeights
from cg_assets.training.thermal_targets import ThermalTargets
from cg_assets.training.unconstrained import product_targets

SPEC = SystemSpec.model_validate(yaml.safe_load(SYSTEM))
BEADS = SPEC.beads()
DEFINITION = SPEC.sampling.biased.bias.function(BEADS).definition()
PLACES = np.linspace(-1.45, 1.3, 12)
GRID = np.linspace(-2.4, 2.4, 961)
NOISE = 0.1
"""Standard deviation of the kernel's noise."""
WIDE = (0.95, ORIGIN, 1.45)
"""Temperatures of the kernel labels."""
NEAR = (1.1, ORIGIN, 1.3)
"""Temperatures where W from labels at one temperature is compared: a second order in T misses less than a tenth of its
error there."""
FIELDS = ("F", "F_1", "F_2", "W")


def quantities(potential, temperatures):
    """Everything that is compared, from W `(2 or more, n)` on `GRID` by temperature: a function of T gives W(x, T)."""
    step = 0.02
    slope = {kelvin: -np.gradient(potential(kelvin), GRID) for kelvin in (ORIGIN - step, ORIGIN, ORIGIN + step)}
    low, middle, high = (np.interp(PLACES, GRID, slope[kelvin]) for kelvin in slope)
    found = {"F": middle, "F_1": (high - low) / (2 * step), "F_2": (high - 2 * middle + low) / step**2}
    energies = {kelvin: np.interp(PLACES, GRID, potential(kelvin)) for kelvin in temperatures}
    found["W"] = np.concatenate([values - values.mean() for values in energies.values()])
    found["population"] = np.array([_left(potential(kelvin), kelvin)[0] for kelvin in temperatures])
    found["its slope"] = np.array([_slope(potential, kelvin) for kelvin in temperatures])
    return found


def _left(energy, kelvin):
    """Population of the left well, and the weight of each node."""
    weight = np.exp(-(energy - energy.min()) / kelvin)
    weight /= weight.sum()
    return float(weight[GRID < 0].sum()), weight


def _slope(potential, kelvin):
    """dA/dT = Cov(A, U_W)/T² of the population of the left well, with U_W = W - T dW/dT."""
    step = 1e-3
    energy = potential(kelvin)
    inner = energy - kelvin * (potential(kelvin + step) - potential(kelvin - step)) / (2 * step)
    population, weight = _left(energy, kelvin)
    return float((weight * ((GRID < 0) - population) * inner).sum()) / kelvin**2


def of_curve(curve):
    """W of a curve on `GRID` as a function of temperature."""
    with torch.no_grad():
        terms = curve.terms(torch.as_tensor(GRID)[:, None, None])
        return lambda kelvin: (terms @ curve.dependence.coefficients(torch.tensor([kelvin]))[0, 0]).numpy()


@lru_cache(maxsize=2)
def _energies(nodes):
    """The potential on a mesh of so many x, and of y, over the domain."""
    x, y = np.linspace(-2.6, 2.6, nodes), np.linspace(-5.0, 5.0, 801)
    return x, landscape().energy(np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1))


def exact_energy(kelvin):
    """W by quadrature on `GRID`."""
    x, energy = _energies(1041)
    return np.interp(GRID, x, -kelvin * logsumexp(-energy / kelvin, axis=1))


def smoothed_energy(kelvin):
    """W of the biased density that the kernel has smoothed, less the bias."""
    x, energy = _energies(1041)
    density = np.exp(logsumexp(-energy / kelvin, axis=1) + HEIGHT * np.exp(-(x**2) / 0.3) / kelvin)
    kernel = np.exp(-((GRID[:, None] - x) ** 2) / (2 * NOISE**2))
    return -kelvin * np.log(kernel @ density) + HEIGHT * np.exp(-(GRID**2) / 0.3)


def fitted(targets, weights, spacing=0.2):
    curve = build_potential(
        {
            **{"type": "thermal_curve", "range": [-2.6, 2.6], "spacing": spacing},
            "temperature_dependence": {"form": "taylor_temperature", "origin": ORIGIN, "order": 2},
        }
    )
    labels = ResponseData(targets, weights).labels()
    curve.fit_statistics(labels.positions)
    return solve_curve(curve, labels)


def from_products(count, seed):
    """From biased frames at one temperature, labelled by the source of a system's file."""
    made = SPEC.labels["products"].label(LabelInputs(drawn(count, seed), BEADS, DEFINITION, seed))
    assert all(item.passed for item in made.judge(made.frames))
    return fitted(product_targets([made.frames]), ResponseWeights())


def wide_frames(count, seed):
    """Independent biased frames at each of three temperatures."""
    parts = [drawn(count, 1000 * number + seed, kelvin) for number, kelvin in enumerate(WIDE)]
    numbered = [replace(part, replica=part.replica + count * number) for number, part in enumerate(parts)]
    return Frames.concatenate(numbered)


def labelled(kernel, frames, seed, flow=None):
    """Frames with labels of a kernel, and its verdicts."""
    made = kernel.label(LabelInputs(frames, BEADS, DEFINITION, seed, flow))
    return made, {item.check.name: item.passed for item in made.judge(made.frames)}


def from_noise(count, seed):
    """From a noise kernel on biased frames, the force of the bias taken out at R'."""
    made, verdicts = labelled(NoiseKernel(type="noise", of="biased", noise=NOISE), wide_frames(count, seed), seed)
    assert verdicts["stein_identity"], verdicts
    return of_frames(made.frames)


def from_configurations(count, seed):
    """From configurations of biased frames alone: a flow of all temperatures, and its clean labels.

    Errors of the fit are those of the labels. Here the flow learns from sixty times as many frames, so that its own
    error is small against them.
    """
    frames = replace(wide_frames(count, seed), forces=None, potential_energy=None)
    kernel = FlowKernel(type="flow", of="biased", noise=NOISE, labels="clean", hidden=64, training={"epochs": 1})
    made, verdicts = labelled(kernel, frames, seed, flow_of(wide_frames(60 * count, seed + 50), kernel, seed))
    assert all(verdicts.values()), verdicts
    return of_frames(made.frames)


def flow_of(frames, kernel, seed):
    """The trained flow."""
    config = flow_config(BEADS, kernel.noise, kernel.hidden, frames.temperature)
    group = np.arange(len(frames)) // 200
    return train_flow(config, kernel.training, frames.positions, group, seed, temperature=frames.temperature).module


def of_frames(frames):
    """The potential of labelled frames at three temperatures."""
    parts = [_targets(frames.select(frames.temperature == kelvin), kelvin) for kelvin in WIDE]
    return fitted(ThermalTargets.concatenate(parts), ResponseWeights(first_order=0.0, second_order=0.0))


def _targets(frames, kelvin):
    """Rows with forces alone."""
    positions, forces = frames.positions.astype(float), frames.forces.astype(float)
    rows, nothing = len(positions), np.zeros(len(positions))
    unknown, size = np.full(rows, np.inf), np.full(forces.shape, forces.std())
    return ThermalTargets(
        positions=positions,
        box=np.full((rows, 3), np.inf),
        temperature=np.full(rows, kelvin),
        frame=np.arange(rows),
        origin_temperature=np.full(rows, kelvin),
        forces=forces,
        forces_error=size,
        first_order=np.zeros(forces.shape),
        first_order_error=np.full(forces.shape, np.inf),
        second_order=np.zeros(forces.shape),
        second_order_error=np.full(forces.shape, np.inf),
        mean_energy=nothing,
        mean_energy_error=unknown,
        heat_capacity=nothing,
        heat_capacity_error=unknown,
    )


def deviations(made, exact, temperatures, count, seeds):
    """z of each quantity `(n_seeds, n)`: deviation from the exact values over the error that the fit states."""
    known = quantities(exact, temperatures)
    z = {name: [] for name in known}
    for seed in seeds:
        fit = made(count, seed)
        found = quantities(of_curve(fit.module), temperatures)
        scatter = [quantities(of_curve(curve), temperatures) for curve in fit.drawn(100, seed)]
        for name in z:
            error = np.std([item[name] for item in scatter], axis=0)
            z[name].append((found[name] - known[name]) / error)
    return {name: np.array(values) for name, values in z.items()}


def root_mean_squares(z):
    return {name: round(float(np.sqrt(np.mean(values**2))), 3) for name, values in z.items()}


CASES = {
    "products": (from_products, exact_energy, NEAR, 60_000),
    "kernels": (from_noise, smoothed_energy, WIDE, 20_000),
    "configurations": (from_configurations, exact_energy, WIDE, 10_000),
}
"""How they are made, what is exact, temperatures, and frames at each temperature. Labels of F_2 are products of three
deviations with heavy tails: with a third of the frames their errors are too small where frames are rare, by up to 1.4.
"""


@pytest.mark.parametrize("case", list(CASES))
def test_potentials_of_all_temperatures_are_exact_within_their_errors(case):
    """Three seeds."""
    made, exact, temperatures, count = CASES[case]
    z = deviations(made, exact, temperatures, count, range(3))
    found = root_mean_squares(z)
    assert all(0.8 < found[name] < 1.2 for name in FIELDS), found
    assert all(np.abs(z[name]).max() < 3.5 for name in ("population", "its slope")), z


@pytest.mark.slow
@pytest.mark.parametrize("case", list(CASES))
def test_errors_are_right_over_many_data_sets(case):
    """Twenty seeds with twice the frames: populations and their slopes have right errors, too. Four minutes each, but
    ten with a flow.
    """
    made, exact, temperatures, count = CASES[case]
    found = root_mean_squares(deviations(made, exact, temperatures, 2 * count, range(100, 120)))
    assert all(0.8 < found[name] < 1.2 for name in FIELDS), found
    assert all(0.65 < found[name] < 1.35 for name in ("population", "its slope")), found


@pytest.mark.parametrize("labels", ["clean", "mixed"])
def test_labels_with_a_wrong_temperature_are_caught(labels):
    """Labels of all frames with kT of the lowest, and frames that carry the temperature of others."""
    frames = wide_frames(25_000, 5)
    made, verdicts = labelled(NoiseKernel(type="noise", of="biased", noise=NOISE, labels=labels), frames, 5)
    assert verdicts["stein_identity"]
    pull = bias_force(made.frames.positions.astype(float))
    one = WIDE[0] / made.frames.temperature[:, None, None]
    wrong = replace(made.frames, forces=((made.frames.forces + pull) * one - pull).astype(np.float32))
    swapped = replace(made.frames, temperature=np.roll(made.frames.temperature, len(made.frames) // 3))
    for changed in (wrong, swapped):
        (verdict,) = (item for item in made.judge(changed) if item.check.name == "stein_identity")
        assert not verdict.passed
