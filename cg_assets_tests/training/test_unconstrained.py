"""Labels from ordinary dynamics: their noise, what they teach, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from thermal_models import CONFIG, EDGE, ORIGIN, dynamics, fit_splines, known_potential, labels, liquid

from cg_assets.core.errors import TrainingError
from cg_assets.core.units import BOLTZMANN
from cg_assets.training.response import deviations, method_dependence
from cg_assets.training.response_fit import fit_response
from cg_assets.training.settings import ResponsePotential
from cg_assets.training.thermal_targets import ThermalTargets
from cg_assets.training.unconstrained import largest_noise, unconstrained_targets, with_product_labels

TEMPERATURES = [300.0, ORIGIN, 600.0]
SD = 30.0


@pytest.fixture(scope="module")
def known():
    return known_potential()


def learnt(frames, number=10_000, capacity=2.0):
    """Targets of frames with the noise of `SD` at all temperatures."""
    at = np.array(TEMPERATURES)
    return unconstrained_targets(frames, number, at, np.full(3, SD**2), np.full(3, capacity))


def test_frames_are_evenly_spread_and_their_noise_is_that_at_their_temperature(known):
    frames = dynamics(known, liquid(20), TEMPERATURES)
    found = unconstrained_targets(
        frames, 12, np.repeat([300.0, 600.0], 2), np.array([90.0, 110.0, 395.0, 405.0]), np.array([1.0, 3.0, 4.0, 4.0])
    )
    assert np.unique(found.temperature, return_counts=True)[1].tolist() == [4, 4, 4]
    variance = {300.0: 100.0, ORIGIN: 100.0 + 300.0 * (ORIGIN - 300) / 300, 600.0: 400.0}
    for kelvin, expected in variance.items():
        here = found.temperature == kelvin
        np.testing.assert_allclose(found.forces_error[here] ** 2, expected)
    capacity = np.interp(found.temperature, [300.0, 600.0], [2.0, 4.0])
    np.testing.assert_allclose(found.mean_energy_error**2, BOLTZMANN * capacity * found.temperature**2)
    assert np.isinf(found.first_order_error).all() and np.isinf(found.heat_capacity_error).all()
    assert len(unconstrained_targets(frames, 1000, np.array([300.0]), np.ones(1), np.ones(1))) == len(frames)


def test_many_noisy_frames_teach_what_few_labels_do_not(known):
    """With the noise of single samples, 400 frames and 2 labelled ones; the errors are those that the fit states.

    No frame has beads closer than those on which the splines of the known potential begin: the grids are the same.
    """
    few = labels(known, 2, TEMPERATURES, seed=1)
    places = np.concatenate([liquid(40, seed=100), liquid(600, seed=3)])
    gaps = places[:, :, None] - places[:, None]
    gaps = np.linalg.norm(gaps - EDGE * np.rint(gaps / EDGE), axis=3) + 9 * np.eye(27)
    places = places[gaps.min(axis=(1, 2)) >= float(known.low)][:400]
    many = learnt(dynamics(known, places, TEMPERATURES, seed=4))
    both = fit_splines(CONFIG, ThermalTargets.concatenate([few, many]))
    alone = fit_splines(CONFIG, few)
    exact = labels(known, 10, TEMPERATURES, seed=9, noise=0.0)
    error = {
        name: deviations(fit.module, exact)["forces"].excess.value for name, fit in (("both", both), ("few", alone))
    }
    assert 3 * error["both"] < error["few"], error
    assert float(both.module.low) == pytest.approx(float(known.low), abs=1e-6)
    places, box = torch.as_tensor(liquid(4, seed=50)), torch.full((3,), EDGE).double()
    with torch.no_grad():
        _, designs, _ = both.module.force_functions(places, box)
        mine, theirs = (each.response(places, ORIGIN, box).forces for each in (both.module, known))
    covariance = torch.as_tensor(both.covariance).reshape(3, both.module.n_functions, 3, -1)
    weights = both.module.dependence.coefficients(torch.tensor([ORIGIN]))[0, 0]
    spread = torch.einsum("p,paqb,q->ab", weights, covariance, weights)
    z = (mine - theirs) / torch.einsum("fnxa,ab,fnxb->fnx", designs, spread, designs).sqrt()
    assert 0.5 < float(z.square().mean().sqrt()) < 1.6


def test_the_greatest_noise_is_all_of_the_scatter(known):
    """Forces of variance `SD`² about zero mean forces, energies of a known variance."""
    frames = dynamics(known, liquid(30), TEMPERATURES)
    kelvin, squares, capacity = largest_noise(frames)
    assert kelvin.tolist() == TEMPERATURES
    for row, temperature in enumerate(TEMPERATURES):
        here = frames.temperature == temperature
        assert squares[row] == pytest.approx(np.mean(frames.forces[here].astype(float) ** 2))
        variance = np.var(frames.potential_energy[here].astype(float))
        assert capacity[row] * BOLTZMANN * temperature**2 == pytest.approx(variance)
    with pytest.raises(TrainingError, match="need forces and energies; sample them again"):
        largest_noise(replace(frames, potential_energy=None))


def test_frames_without_forces_are_refused(known):
    frames = dynamics(known, liquid(3), TEMPERATURES)
    with pytest.raises(TrainingError, match="need forces, energies and a box; sample the reference again"):
        learnt(replace(frames, forces=None))


def test_products_are_labels_of_the_first_order(known):
    """At 4 configurations 800 samples each: means of the labels are dF/dT, with the error that the labels state.

    With a potential that is wrong in forces and energy the mean errs by the product of both errors over kT², and only
    by it. Root mean squares of 324 z have a standard error of 0.04.
    """
    places, draws = liquid(4, seed=20), 800
    targets = learnt(dynamics(known, np.repeat(places, draws, axis=0), [ORIGIN], seed=6))
    box = torch.full((3,), EDGE).double()
    with torch.no_grad():
        exact = known.response(torch.as_tensor(places), ORIGIN, box)
    forces, energy = (np.repeat(values.numpy(), draws, axis=0) for values in (exact.forces, exact.mean_energy))
    for force_error, energy_error in ((0.0, 0.0), (15.0, 0.0), (0.0, 3.0), (15.0, 3.0)):
        found = with_product_labels(targets, forces + force_error, energy + energy_error)
        bias = force_error * energy_error / (BOLTZMANN * ORIGIN**2)
        labels_of = found.first_order.reshape(4, draws, 27, 3)
        z = (labels_of.mean(axis=1) - exact.first_order.numpy() - bias) / (found.first_order_error[0] / draws**0.5)
        assert 0.85 < np.sqrt(np.mean(z**2)) < 1.15, (force_error, energy_error)


def test_dynamics_at_one_temperature_tell_forces_at_others(known):
    """`product_response` against forces of T_0 alone, from the same frames; exact forces at the ends of the range."""
    frames = dynamics(known, liquid(400, seed=3), [ORIGIN], seed=4, sd=5.0)
    few = labels(known, 2, TEMPERATURES)
    many = unconstrained_targets(frames, 400, np.array([ORIGIN]), np.full(1, 25.0), np.full(1, 1.47))
    ends = labels(known, 10, [300.0, 600.0], seed=8, noise=0.0)
    error = {}
    for name in ("force_matching", "product_response"):
        settings = ResponsePotential(
            type="response",
            method=name,
            temperature_dependence={"form": "constant_heat_capacity", "origin": ORIGIN},
            network={
                key: value for key, value in CONFIG.items() if key not in {"bead_types", "temperature_dependence"}
            },
            unconstrained_frames=400,
        )
        form = method_dependence(name, CONFIG["temperature_dependence"])
        result = fit_response(settings, CONFIG | {"temperature_dependence": form}, few, many)
        error[name] = deviations(result.module, ends)["forces"].excess.value
        assert set(result.held_out) == set(TEMPERATURES)
        alone = fit_response(
            settings.model_copy(update={"labels": "trajectories"}),
            CONFIG | {"temperature_dependence": form},
            None,
            unconstrained_targets(frames, 400, *largest_noise(frames)),
        )
        error[f"{name} alone"] = deviations(alone.module, ends)["forces"].excess.value
        found = alone.held_out[ORIGIN]["forces"]
        assert (
            set(alone.held_out) == {ORIGIN} and found.explained > 0.5 and "second_order" not in alone.held_out[ORIGIN]
        )
    assert 2 * error["product_response alone"] < error["force_matching alone"], error
    assert 2 * error["product_response"] < error["force_matching"], error
    with pytest.raises(TrainingError, match="give unconstrained frames"):
        fit_response(settings, CONFIG, few)
