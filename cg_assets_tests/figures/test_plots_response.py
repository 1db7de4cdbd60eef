"""Figures of temperature-dependent potentials are drawn from what the estimators give."""

import numpy as np

from cg_assets.core.statistics.estimates import Estimate
from cg_assets.figures.comparison import accuracy_against_speed_plot
from cg_assets.figures.temperatures import diffusion_plot
from cg_assets.figures.training import response_training_plot
from cg_assets.training.response import Deviation

KELVIN = (250.0, 300.0, 400.0, 550.0, 700.0)


def figures():
    """Name to PNG of every figure."""

    def deviation(kelvin, scale):
        excess = Estimate(scale**2 * (4 + ((kelvin - 420) / 60) ** 2), 2.0 * scale**2)
        return Deviation(50 * scale**2 + excess.value, 50 * scale**2, excess, 1.1, 0.97 - abs(kelvin - 420) / 2000)

    names = {"forces": 1.0, "first_order": 0.02, "second_order": 1e-4}
    held_out = {kelvin: {name: deviation(kelvin, scale) for name, scale in names.items()} for kelvin in KELVIN}
    diffusion = {
        name: {
            kelvin: Estimate(scale * np.exp(-1800 / kelvin), 0.05 * scale * np.exp(-1800 / kelvin)) for kelvin in KELVIN
        }
        for name, scale in (("atoms", 1.0), ("splines", 4.0), ("HIP-NN-TS", 4.6))
    }
    return {
        "training": response_training_plot(held_out, "Water: splines"),
        "diffusion": diffusion_plot(diffusion, "atoms", "Water"),
        "speed": accuracy_against_speed_plot(
            {"splines": 3000.0, "HIP-NN-TS": 150.0},
            {"splines": Estimate(12.0, 0.5), "HIP-NN-TS": Estimate(9.0, 0.5)},
            "force error [kJ/mol/nm]",
            900.0,
            "Water, 64 molecules",
        ),
    }


def test_figures_are_drawn():
    for name, png in figures().items():
        assert png.startswith(b"\x89PNG"), name
        assert len(png) > 10_000, name
