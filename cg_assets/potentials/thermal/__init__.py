"""Potentials W(R, T) of beads that depend on temperature, and their exact forces.

This folder is self-contained: it imports nothing but torch and the standard library and refers to itself by relative
imports only, so that it can travel inside a stored model and run where this package is not installed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .base import ThermalPotential
from .splines import SplinePotential
from .tensor_network import TensorNetwork

POTENTIALS: dict[str, type[ThermalPotential]] = {"spline": SplinePotential, "tensor_network": TensorNetwork}


def build_potential(config: dict[str, Any], generator: torch.Generator | None = None) -> ThermalPotential:
    """Build a potential from its config, with initial weights from `generator` (seed 0 where None).

    Args:
        config: `type` (`POTENTIALS`), `bead_types`, `temperature_dependence` (`TemperatureDependence`) and what the
            class of the type asks for. Further keys are kept by whoever stores the config and ignored here.
        generator: source of the initial weights.

    Raises:
        ValueError: a key is missing or out of range.
    """
    if config.get("type") not in POTENTIALS:
        raise ValueError(f"type is {config.get('type')!r}; it must be one of {', '.join(sorted(POTENTIALS))}")
    return POTENTIALS[config["type"]](config, generator or torch.Generator().manual_seed(0))


def energy_and_forces(
    module: ThermalPotential, positions: Tensor, temperature: Any = None, box: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Energy `(f,)` and forces `(f, n, 3)`, the exact negative gradient, of positions `(f, n, 3)` at temperatures."""
    return module.energy_and_forces(positions, temperature, box)
