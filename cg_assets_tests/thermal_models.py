"""Labels of known potentials W(R, T) with known noise, for tests of whatever learns from thermal response targets."""

import numpy as np
import torch

from cg_assets.core.frames import Frames
from cg_assets.core.units import BOLTZMANN
from cg_assets.potentials.settings import build_potential
from cg_assets.potentials.thermal_splines.module import SplinePotential
from cg_assets.potentials.thermal_splines.solve import solve_splines
from cg_assets.training.response import ResponseData, ResponseWeights
from cg_assets.training.thermal_targets import ThermalTargets
from cg_assets.training.training_run import take_statistics

ORIGIN = 420.0
EDGE = 1.2
CONFIG = {
    "type": "spline",
    "bead_types": [0] * 27,
    "temperature_dependence": {"form": "constant_heat_capacity", "origin": ORIGIN},
    "pair_cutoff": 0.58,
    "pair_functions": 10,
    "triple_cutoff": 0.5,
    "triple_functions": 3,
    "triple_degree": 2,
}
NOISE = {"forces": 8.0, "first_order": 0.05, "second_order": 1e-4, "mean_energy": 2.0, "heat_capacity": 0.05}


def liquid(frames, seed=0, spread=0.045):
    """27 beads on a jittered grid `(frames, 27, 3)` in a box of 1.2 nm, none closer than 0.2 nm."""
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), axis=3).reshape(-1, 3) * EDGE / 3
    return grid + (spread * np.random.default_rng(seed).standard_normal((frames, 27, 3))).clip(-0.1, 0.1)


def known_potential(seed=1):
    """Splines with pairs and triples of a liquid's size, a falling dependence on temperature and C > 0."""
    module = build_potential(CONFIG)
    assert isinstance(module, SplinePotential)
    box = torch.full((3,), EDGE, dtype=torch.float64)
    module.fit_statistics(torch.as_tensor(liquid(40, seed=100)), box, torch.tensor([60.0]))
    generator = np.random.default_rng(seed)
    step = np.arange(10)
    pair = 12.0 * np.exp(-step / 1.2) - 4.0 * np.exp(-(((step - 4.0) / 1.5) ** 2))
    for term, size in enumerate((1.0, -0.6, -0.4)):
        module.coefficients[term, 0] = (-40.0, -20.0, -25.0)[term]
        module.coefficients[term, 1:11] = torch.as_tensor(size * pair)
        rest = module.n_functions - 11
        module.coefficients[term, 11:] = torch.as_tensor(4.0 * size * generator.standard_normal(rest))
    return module


def labels(module, frames, temperatures, seed=0, noise=1.0):
    """Targets of a potential at each frame and temperature, with Gaussian errors of differing, known size."""
    generator = np.random.default_rng(seed)
    positions = np.repeat(liquid(frames, seed), len(temperatures), axis=0)
    temperature = np.tile(np.asarray(temperatures, float), frames)
    box = np.full((len(positions), 3), EDGE)
    with torch.no_grad():
        response = module.response(*(torch.as_tensor(array) for array in (positions, temperature, box)))
    exact = {
        "forces": response.forces,
        "first_order": response.first_order,
        "second_order": response.second_order,
        "mean_energy": response.mean_energy,
        "heat_capacity": response.heat_capacity,
    }
    columns = {}
    for name, values in exact.items():
        values = values.double().numpy()
        error = noise * NOISE[name] * generator.uniform(0.5, 2.0, values.shape)
        columns[name] = values + error * generator.standard_normal(values.shape)
        columns[f"{name}_error"] = error
    return ThermalTargets(
        positions=positions,
        box=box,
        temperature=temperature,
        frame=np.repeat(np.arange(frames), len(temperatures)),
        origin_temperature=temperature,
        **columns,
    )


def dynamics(module, positions, temperatures, seed=0, sd=30.0):
    """Atoms as ordinary dynamics sees them, one sample for each configuration and temperature, as `Frames`.

    Energy and forces are jointly normal at given beads, with the exact means, C_W and dF/dT of the potential; `sd` is
    the standard deviation of a force component, apart from what follows the energy.
    """
    generator = np.random.default_rng(seed)
    count, levels = len(positions), len(temperatures)
    positions = np.tile(np.asarray(positions, np.float32), (levels, 1, 1))
    kelvin = np.repeat(np.asarray(temperatures, float), count)
    box = np.full((len(positions), 3), EDGE, np.float32)
    with torch.no_grad():
        exact = module.response(*(torch.as_tensor(array).double() for array in (positions, kelvin, box)))
    forces, first, energy, capacity = (
        getattr(exact, name).numpy() for name in ("forces", "first_order", "mean_energy", "heat_capacity")
    )
    deviation = np.sqrt(BOLTZMANN * capacity) * kelvin * generator.standard_normal(len(kelvin))
    together = first * (deviation / capacity)[:, None, None]
    return Frames(
        positions=positions,
        time=np.tile(0.05 * np.arange(1.0, count + 1), levels),
        replica=np.repeat(np.arange(levels, dtype=np.int32), count),
        temperature=kelvin,
        start=np.zeros(len(kelvin), np.int32),
        probe=np.zeros(len(kelvin), bool),
        forces=(forces + together + sd * generator.standard_normal(forces.shape)).astype(np.float32),
        potential_energy=energy + deviation,
        box=box,
    )


@torch.no_grad()
def fit_splines(config, targets, weights=None):
    """Splines solved from targets, with everything that the solution says of itself."""
    data, module = ResponseData(targets, weights or ResponseWeights()), build_potential(config)
    take_statistics(module, data)
    return solve_splines(module, data.labels())
