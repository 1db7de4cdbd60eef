"""Two wells along x with a coupled y that potentials along x leave out, at any temperature: exact by quadrature.

The mean force along x and its derivatives by temperature are of the same size, and the energy at given x is far from
harmonic: on the left y has two wells, on the right one.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cg_assets.core.frames import Frames
from cg_assets.sampling.model_potential.landscape import Landscape
from cg_assets.sampling.model_potential.quadrature import equilibrium_draws, exact_pmf

EXPRESSION = "3*(x**2 - 1)**2 - 1.3*x + 0.25*y**4 + 1.5*x*y**2 + 0.5*x*y"
DOMAIN = {"x": [-2.6, 2.6], "y": [-5.0, 5.0]}
HEIGHT = 4.0
BIAS = f"-{HEIGHT}*exp(-x**2/0.3)"
ORIGIN = 1.2
SYSTEM = f"""
name: coupled_wells
title: Two wells with a coupled coordinate
temperature: {ORIGIN}
model:
  type: model_potential
  coordinates: [x, y]
  expression: {EXPRESSION}
  domain: {{x: [-2.6, 2.6], y: [-5, 5]}}
mapping: {{type: linear, coordinates: {{x: {{x: 1.0}}}}}}
sampling:
  biased: {{replicas: 4000, starts: equilibrium, timestep: 0.01, friction: 1.0, burn_in: 0.2, duration: 3.0,
           frame_interval: 0.5, bias: {{type: static, expression: "{BIAS}"}}}}
labels:
  products: {{type: product, of: biased}}
network:
  type: thermal_curve
  range: [-2.4, 2.4]
  spacing: 0.12
  temperature_dependence: {{form: taylor_temperature, origin: {ORIGIN}}}
training: {{epochs: 1, batch_size: 256, learning_rate: 0.01}}
cg_simulation: {{replicas: 200, timestep: 0.02, friction: 1.0, burn_in: 5, duration: 20, frame_interval: 1}}
potentials:
  products: {{labels: products_labels}}
evaluation:
  reference: {{type: quadrature, range: [-1.5, 1.4]}}
  collective_variables: [x]
  basins:
    left: {{limits: {{x: [-2.6, 0]}}}}
    right: {{limits: {{x: [0, 2.6]}}}}
  max_pmf_error: 0.5
"""


def landscape(temperature=ORIGIN):
    """The potential at a temperature."""
    bounds = tuple((float(low), float(high)) for low, high in DOMAIN.values())
    return Landscape(("x", "y"), EXPRESSION, ("x",), ((1.0, 0.0),), bounds, temperature)


def bias_force(x):
    """-dV/dx of `BIAS`."""
    return -HEIGHT * np.exp(-(x**2) / 0.3) * 2 * x / 0.3


def drawn(count, seed, temperature=ORIGIN, bias=BIAS):
    """CG frames at independent points, with forces and energies without the bias."""
    model = landscape(temperature)
    points = equilibrium_draws(model, count, np.random.default_rng(seed), bias=bias).astype(np.float32)
    energy, forces = model.energy_and_forces(points)
    return Frames(
        positions=points[:, None, :1],
        time=np.ones(count),
        replica=np.arange(count, dtype=np.int32),
        temperature=np.full(count, temperature),
        start=np.zeros(count, np.int32),
        probe=np.zeros(count, bool),
        forces=forces[:, None, :1].astype(np.float32),
        potential_energy=energy,
        bias_energy=-HEIGHT * np.exp(-(points[:, 0].astype(float) ** 2) / 0.3) if bias else None,
        collective_variables={"x": points[:, 0]},
    )


@dataclass(frozen=True)
class Exact:
    """F, dF/dT and d²F/dT² at places `(n,)`, from exact mean forces at temperatures that are 0.02 apart."""

    forces: np.ndarray
    first_order: np.ndarray
    second_order: np.ndarray


@lru_cache(maxsize=16)
def _exact(places, temperature):
    low, middle, high = (
        exact_pmf(landscape(kelvin), np.array(places)).mean_force
        for kelvin in (temperature - 0.02, temperature, temperature + 0.02)
    )
    return Exact(middle, (high - low) / 0.04, (high - 2 * middle + low) / 0.02**2)


def exact(places, temperature=ORIGIN):
    """Exact responses at places."""
    return _exact(tuple(np.asarray(places, float).tolist()), temperature)
