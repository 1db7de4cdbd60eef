"""Curves W(s, T): exact recovery, errors of coefficients, and what lies beyond the data."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cg_assets.potentials.base import Labels
from cg_assets.potentials.settings import build_potential
from cg_assets.potentials.thermal_curve.solve import solve_curve

CONFIG = {
    "type": "thermal_curve",
    "range": [-2.0, 2.0],
    "spacing": 0.4,
    "temperature_dependence": {"form": "taylor_temperature", "origin": 1.0, "order": 2},
}
QUANTITIES = ("forces", "first_order", "second_order", "mean_energy")


def known_curve():
    curve = build_potential(CONFIG)
    step = torch.linspace(-2.2, 2.2, curve.n_functions, dtype=torch.float64)
    for term, row in enumerate([(step**2 - 1) ** 2, 0.5 * torch.sin(2 * step), -0.3 * step**2]):
        curve.coefficients[term] = row
    return curve


def labels_of(curve, count, temperatures, noise, seed=0, emphasis=QUANTITIES):
    """Labels with Gaussian noise, a part of which all labels of a frame share."""
    generator = np.random.default_rng(seed)
    place = np.repeat(generator.uniform(-1.9, 1.9, count), len(temperatures))
    positions = torch.as_tensor(place[:, None, None])
    kelvin = torch.as_tensor(np.tile(temperatures, count))
    exact = curve.response(positions, kelvin)
    shared = np.repeat(generator.standard_normal(count), len(temperatures))
    values, errors = {}, {}
    for name in QUANTITIES:
        clean = getattr(exact, name).detach()
        own = torch.as_tensor(0.8 * generator.standard_normal(len(place)) + 0.6 * shared).reshape(clean.shape)
        values[name], errors[name] = clean + noise * own, torch.full_like(clean, noise)
    return Labels(
        positions=positions,
        forces=values["forces"],
        temperature=kelvin,
        frame=torch.arange(count).repeat_interleave(len(temperatures)),
        values=values,
        errors=errors,
        emphasis=dict.fromkeys(emphasis, 1.0),
    )


def solved(labels):
    curve = build_potential(CONFIG)
    curve.fit_statistics(labels.positions)
    return solve_curve(curve, labels)


@pytest.mark.parametrize("emphasis, temperatures", [(QUANTITIES[:3], [1.0]), (QUANTITIES[:1], [0.8, 1.0, 1.3])])
def test_a_curve_is_recovered_from_what_determines_it(emphasis, temperatures):
    """From responses at one temperature, or from forces at three; energies then fix the constants."""
    known = known_curve()
    labels = labels_of(known, 300, temperatures, 1e-6, emphasis=emphasis)
    fit = solved(labels)
    places = torch.linspace(-1.7, 1.7, 30, dtype=torch.float64)[:, None, None]
    for kelvin in (0.7, 1.0, 1.6):
        mine, theirs = (curve.response(places, kelvin) for curve in (fit.module, known))
        for name in ("forces", "first_order", "second_order", "heat_capacity"):
            one, two = (getattr(item, name).detach() for item in (mine, theirs))
            if name == "heat_capacity":  # known up to a constant
                one, two = one - one.mean(), two - two.mean()
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)
    energy = (fit.module.response(places, 1.0).mean_energy - known.response(places, 1.0).mean_energy).detach()
    assert float(energy.abs().max()) < 1e-3
    assert fit.held_out_loss == pytest.approx(1e-12, rel=0.2)


def test_errors_of_coefficients_are_those_of_frames():
    """Labels of a frame share a part of their noise; z of forces and responses over 40 data sets is normal."""
    known, places = known_curve(), torch.linspace(-1.6, 1.6, 9, dtype=torch.float64)
    design = -known.basis(places)[1].numpy()
    z = []
    for seed in range(40):
        fit = solved(labels_of(known, 400, [1.0, 1.2], 0.5, seed, QUANTITIES[:3]))
        blocks = fit.covariance.reshape(3, known.n_functions, 3, known.n_functions)
        for term in range(3):
            error = np.sqrt(np.einsum("xa,ab,xb->x", design, blocks[term, :, term], design))
            missed = (fit.module.coefficients[term] - known.coefficients[term]).numpy() @ design.T
            z.append(missed / error)
    assert 0.93 < np.sqrt(np.mean(np.square(z))) < 1.07
    curves = fit.drawn(4000, seed=1)
    drawn = np.array([(curve.coefficients - fit.module.coefficients).numpy().ravel() for curve in curves])
    np.testing.assert_allclose(drawn.std(axis=0), np.sqrt(np.diag(fit.covariance)), rtol=0.06)


def test_beyond_the_data_the_curve_goes_on_along_its_tangent_and_a_wall():
    known = known_curve()
    known.fit_statistics(torch.tensor([[[-1.5]], [[1.2]]]).double())
    edge = torch.tensor([1.2 - 1e-7, 1.2 + 1e-7, 1.6]).double()[:, None, None]
    with torch.no_grad():
        energy, forces = known.energy_and_forces(edge, 1.1)
    assert abs(float(energy[0] - energy[1])) < 1e-5 and abs(float(forces[0] - forces[1])) < 1e-4
    wall = 2.0 * (0.4 / 0.4) ** 2
    assert float(energy[2]) == pytest.approx(float(energy[1] - 0.4 * forces[1]) + wall, abs=1e-5)
    assert float(forces[2]) == pytest.approx(float(forces[1]) - 2 * wall / 0.4, abs=1e-4)
    slope = known.response(edge[1:], 1.1).first_order.detach().ravel()
    assert float(slope[1]) == pytest.approx(float(slope[0]), abs=1e-4)  # the wall does not depend on temperature


def test_what_cannot_be_solved_is_refused():
    labels = labels_of(known_curve(), 20, [1.0], 0.1)
    with pytest.raises(ValueError, match="with temperatures and numbers of frames"):
        solve_curve(known_curve(), replace(labels, temperature=None))
    exact = labels.errors | {"first_order": torch.zeros_like(labels.errors["first_order"])}
    with pytest.raises(ValueError, match="an error of first_order is zero"):
        solve_curve(known_curve(), replace(labels, errors=exact))
    with pytest.raises(ValueError, match=r"range is \[-2, 2\], but the frames reach from -1 to 2.5; widen it"):
        known_curve().fit_statistics(torch.tensor([[[-1.0]], [[2.5]]]))
    with pytest.raises(ValueError, match="must rise and spacing"):
        build_potential(CONFIG | {"spacing": 0.0})
