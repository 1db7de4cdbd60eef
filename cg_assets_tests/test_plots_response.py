"""Figures of temperature-dependent potentials are drawn from what the estimators give."""

import numpy as np

from cg_assets.analysis.estimates import Estimate
from cg_assets.analysis.liquid import Distribution
from cg_assets.analysis.plots_response import (
    accuracy_against_speed_plot,
    diffusion_plot,
    response_training_plot,
    slope_plot,
    structure_plot,
)
from cg_assets.training.response import Deviation

KELVIN = (250.0, 300.0, 400.0, 550.0, 700.0)


def curve(shift=0.0, size=1.0):
    grid = np.linspace(0.02, 0.78, 40)
    values = size * (1 - np.exp(-((grid / 0.27) ** 20))) * (1 + np.exp(-((grid - 0.28 - shift) ** 2) / 0.0008))
    return Distribution(grid, values, np.full(40, 0.02 * size))


def figures():
    """Name to PNG of every figure."""

    def deviation(kelvin, scale):
        excess = Estimate(scale**2 * (4 + ((kelvin - 420) / 60) ** 2), 2.0 * scale**2)
        return Deviation(50 * scale**2 + excess.value, 50 * scale**2, excess, 1.1, 0.97 - abs(kelvin - 420) / 2000)

    names = {"forces": 1.0, "first_order": 0.02, "second_order": 1e-4}
    held_out = {kelvin: {name: deviation(kelvin, scale) for name, scale in names.items()} for kelvin in KELVIN}
    angles = Distribution(np.linspace(0.05, 3.1, 40), np.sin(np.linspace(0.05, 3.1, 40)) / 2, np.full(40, 0.01))
    more = Distribution(angles.grid, angles.values * (1 + 0.1 * np.cos(angles.grid)), np.full(40, 0.01))
    diffusion = {
        name: {
            kelvin: Estimate(scale * np.exp(-1800 / kelvin), 0.05 * scale * np.exp(-1800 / kelvin)) for kelvin in KELVIN
        }
        for name, scale in (("atoms", 1.0), ("splines", 4.0), ("HIP-NN-TS", 4.6))
    }
    radial = {"atoms": curve(), "splines": curve(0.003), "only at 420 K": curve(0.01)}
    angular = {"atoms": angles, "splines": more, "only at 420 K": angles}
    return {
        "training": response_training_plot(held_out, "Water: splines"),
        "structure": structure_plot(radial, angular, "atoms", "Water at 300 K"),
        "diffusion": diffusion_plot(diffusion, "atoms", "Water"),
        "slope": slope_plot(curve(size=0.002), curve(0.004, 0.002), 420.0, "Water"),
        "speed": accuracy_against_speed_plot(
            {"splines": 3000.0, "HIP-NN-TS": 150.0},
            {"splines": Estimate(12.0, 0.5), "HIP-NN-TS": Estimate(9.0, 0.5)},
            900.0,
            "Water, 64 molecules",
        ),
    }


def test_figures_are_drawn():
    for name, png in figures().items():
        assert png.startswith(b"\x89PNG"), name
        assert len(png) > 10_000, name
