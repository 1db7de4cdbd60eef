"""Errors of W(s, T) at other temperatures, and errors that the scatter of a committee gives, against exact answers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from coupled_wells import SYSTEM

from cg_assets.assets.evaluations import judge
from cg_assets.cli import main
from cg_assets.core.frames import Frames
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.statistics.metrics import pmf_rmse
from cg_assets.labels.thermal.product_labels import product_labels
from cg_assets.sampling.model_potential.quadrature import equilibrium_draws, exact_pmf
from cg_assets.simulation.run import Run
from cg_assets.systems import load_system
from cg_assets.systems.spec import SystemSpec
from cg_assets.training.setup import potential_config, training_data
from cg_assets.training.train import train

OTHERS = (0.6, 1.6)
RANGE = (-1.5, 1.5)


@pytest.fixture(scope="module")
def system():
    return load_system("melting_wells")


def surface(system, temperature):
    return system.model.landscape(system.beads().at_temperature(temperature))


@pytest.fixture(scope="module")
def frames(system):
    """Independent biased frames with labels of the response."""
    model, count = surface(system, system.temperature), 8_000
    points = equilibrium_draws(model, count, np.random.default_rng(1), bias=system.sampling.biased.bias.expression)
    energy, forces = model.energy_and_forces(points)
    labels = product_labels(points[:, 0], forces[:, 0], energy, np.arange(count) % 200, 1.0, 1.0, 0)
    orders = {name: getattr(labels, name).reshape(-1, 1, 1) for name in ("first_order", "second_order")}
    vectors = {"positions": points[:, None, :1], "forces": forces[:, None, :1], **orders}
    return Frames(
        time=np.ones(count),
        replica=np.arange(count, dtype=np.int32),
        temperature=np.ones(count),
        start=np.zeros(count, np.int32),
        probe=np.zeros(count, bool),
        window=np.zeros(count, np.int32),
        potential_energy=energy,
        collective_variables={"x": points[:, 0]},
        **{name: values.astype(np.float32) for name, values in vectors.items()},
    )


def judged(system, frames):
    """The evaluation of a potential of these frames, which stand for those of its simulation, too."""
    fit = system.fit
    config = potential_config(system.network, system.beads(), fit.committee, [frames])
    module = train(config, fit, training_data(system.network, [frames], None, 0), seed=0).module
    reference = system.compute_reference(0, Path("unused"))
    run = Run(1.0, False, 100, 100, Estimate(1.0, 0.01), 0.0)
    return judge(system, module, reference, frames, [run], frames)


def unchanged(system, temperature):
    """Error of the exact PMF at the system's temperature in the place of that at another [kT]."""
    grid = np.linspace(*RANGE, 101)
    mine, other = (exact_pmf(surface(system, kelvin), grid).pmf for kelvin in (system.temperature, temperature))
    return pmf_rmse(grid, mine, other, RANGE).value / temperature


def test_labels_of_the_response_give_the_pmf_at_other_temperatures(system, frames):
    """Forces alone leave W as it is, so that the error is what the PMF changes by; with the response it is small."""
    forces = judged(system, replace(frames, first_order=None, second_order=None))
    products = judged(system, frames)
    for temperature in OTHERS:
        shown = f"T = {temperature:g}"
        alone, response = (
            found[f"pmf_rmse_at.{shown.replace(' = ', '_').replace('.', '_')}"].value for found in (forces, products)
        )
        assert alone.value == pytest.approx(unchanged(system, temperature), abs=0.05)
        assert 0 < response.standard_error < 0.05
        assert response.value < 0.1
        line = products.profile("pmf", f"x at {shown}")
        assert np.isfinite(line.standard_error).all()
        np.testing.assert_allclose(line.reference, exact_pmf(surface(system, temperature), line.grid).pmf)


def test_wrong_temperatures_are_refused(home, capsys):
    content = yaml.safe_load(SYSTEM)
    reference = content["evaluation"]["reference"]
    for temperatures, message in (([0.9, 0.9], "twice"), ([0.0], "greater than 0")):
        reference["temperatures"] = temperatures
        with pytest.raises(ValueError, match=message):
            SystemSpec.model_validate(content)
    reference["temperatures"] = [60.0]
    (home / "systems" / "coupled_wells.yaml").write_text(yaml.safe_dump(content))
    assert main(["check", "coupled_wells"]) == 1
    assert "domain" in capsys.readouterr().err
