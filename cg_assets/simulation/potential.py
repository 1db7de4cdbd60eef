"""A trained potential at the conditions of a simulation, as one function of the positions of all replicas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from cg_assets.core.errors import SamplingError
from cg_assets.potentials.networks import energy_and_forces
from cg_assets.potentials.thermal import SplinePotential
from cg_assets.potentials.thermal.base import ThermalPotential
from cg_assets.simulation.spline_engine import SplineEngine

BEADS_AT_ONCE = 2048
"""Beads of a temperature-dependent network evaluated at once; more would leave the cache."""


def potential_at(
    module: Any, temperature: float | None, box: ArrayLike | None, device: torch.device
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Energy `(r,)` and forces `(r, n, d)` of positions `(r, n, d)`, by the fastest way there is.

    Args:
        module: a potential of `cg_assets.potentials`.
        temperature: [K]; potentials that depend on temperature need it.
        box: edges `(3,)` of the periodic box [nm], or None.
        device: where it is evaluated.

    Raises:
        SamplingError: the potential needs a temperature, or its cutoff is beyond half the box.
    """
    edges = None if box is None else np.array(box, dtype=np.float64)
    if not isinstance(module, ThermalPotential):
        of_network = None if edges is None else torch.as_tensor(edges, dtype=torch.float32, device=device)
        return lambda positions: energy_and_forces(module, positions, box=of_network)
    if temperature is None:
        raise SamplingError("this potential depends on temperature; give `temperature` [K]")
    try:
        if isinstance(module, SplinePotential) and device.type == "cpu":
            return SplineEngine(module, temperature, edges)
    except ValueError as error:
        raise SamplingError(f"this potential cannot be simulated: {error}") from error
    of_module = None if edges is None else torch.as_tensor(edges, device=device)
    count = max(1, BEADS_AT_ONCE // module.n_beads)

    def evaluate(positions: Tensor) -> tuple[Tensor, Tensor]:
        parts = [module.energy_and_forces(part, temperature, of_module) for part in positions.split(count)]
        return torch.cat([energy for energy, _ in parts]).to(positions), torch.cat([force for _, force in parts])

    return evaluate
