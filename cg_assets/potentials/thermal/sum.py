"""Sums of potentials of which some depend on temperature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cg_assets.potentials.base import Labels, Potential
from cg_assets.potentials.composite import Sum
from cg_assets.potentials.thermal.dependent import TemperatureDependent
from cg_assets.potentials.thermal.temperature import DependenceConfig


class ThermalSum(Sum, TemperatureDependent):
    """A sum whose parts without a temperature dependence belong to W_0. The first part has the constants."""

    def __init__(self, parts: Mapping[str, Potential], form: DependenceConfig) -> None:
        """Join parts, in this order.

        Args:
            parts: the first depends on temperature.
            form: of the dependence, the same for all parts that have one.
        """
        Sum.__init__(self, parts)
        self.depend_on(form)

    def terms(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """The energies W_k `(f, n_terms)` of positions `(f, n, 3)` [kJ/mol]."""
        found = []
        for part in self._at_work():
            if isinstance(part, TemperatureDependent):
                found.append(part.terms(positions, box))
            else:
                energy = part.energy(positions, None, box)[:, None]
                found.append(energy * self.is_value.to(energy))
        return torch.stack(found).sum(dim=0)

    def forces_and_mean_energy(
        self, positions: Tensor, temperature: Any, box: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Forces `(f, n, 3)` [kJ/mol/nm] and U `(f,)` [kJ/mol] of positions `(f, n, 3)`, differentiable."""
        found, of_values = [], self.energy_shares(temperature, positions) @ self.is_value.double()
        for part in self._at_work():
            if isinstance(part, TemperatureDependent):
                found.append(part.forces_and_mean_energy(positions, temperature, box))
            else:
                energy, forces = self._evaluated(part, positions, None, box)
                found.append((forces, energy * of_values.to(energy)))
        (forces, energy), *others = found
        for more_forces, more_energy in others:
            forces, energy = forces + more_forces, energy + more_energy
        return forces, energy

    def add_constants(self, values: Tensor) -> None:
        """Add energies `(n_terms,)` per bead, which have no forces [kJ/mol]."""
        first = self._parts()[0]
        if isinstance(first, TemperatureDependent):
            first.add_constants(values)

    def solve(self, labels: Labels) -> dict[str, float]:
        """Of each part in turn, then the constants of the whole (`TemperatureDependent.solve`)."""
        return Sum.solve(self, labels) | TemperatureDependent.solve(self, labels)
