"""What all potentials W(R, T) have: energies W_k(R), a temperature dependence, and exact derivatives by temperature."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cg_assets.potentials.base import Labels, Potential, PotentialConfig
from cg_assets.potentials.thermal.loss import QUANTITIES
from cg_assets.potentials.thermal.temperature import DependenceConfig, TemperatureDependence

ROWS_AT_ONCE = 32
"""Frames whose response to temperature is evaluated at once."""


class Response(NamedTuple):
    """What a potential predicts at temperatures; `(f, n, 3)` forces and `(f,)` energies."""

    forces: Tensor
    """-grad W [kJ/mol/nm]."""
    first_order: Tensor
    """Their derivative by T [kJ/mol/nm/K]."""
    second_order: Tensor
    """And again [kJ/mol/nm/K²]."""
    energy: Tensor
    """W [kJ/mol]."""
    mean_energy: Tensor
    """U = W - T dW/dT, the mean energy of the atoms at frozen beads [kJ/mol]."""
    heat_capacity: Tensor
    """C = -T d²W/dT², their heat capacity at frozen beads [kJ/mol/K]."""


class ThermalConfig(PotentialConfig, total=False):
    """With its dependence on temperature."""

    temperature_dependence: DependenceConfig


class TemperatureDependent(Potential):
    """W(R, T) = sum_k s_k(T) W_k(R); a class needs `terms`, the energies W_k.

    Attributes:
        dependence: the functions s_k.
        rows_at_once: frames whose response is evaluated at once.
    """

    is_value: Tensor
    rows_at_once: int = ROWS_AT_ONCE

    def __init__(self, config: ThermalConfig, generator: torch.Generator) -> None:
        """Take the dependence on temperature.

        Args:
            config: with `temperature_dependence` (`TemperatureDependence`).
            generator: of the initial weights.

        Raises:
            ValueError: a key is missing or out of range.
        """
        super().__init__(config, generator)
        self.depend_on(config["temperature_dependence"])

    def depend_on(self, form: DependenceConfig) -> None:
        """Take a form of the dependence.

        Raises:
            ValueError: a key is missing or out of range.
        """
        self.conditions |= frozenset({"temperature"})
        self.dependence = TemperatureDependence(form)
        self.n_terms = self.dependence.n_terms
        value = self.n_terms // 2 if self.dependence.form == "anchored" else 1
        self.register_buffer("is_value", (torch.arange(self.n_terms) < value).double(), persistent=False)

    @abstractmethod
    def terms(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """The energies W_k `(f, n_terms)` of positions `(f, n, d)` [kJ/mol or reduced]."""

    @abstractmethod
    def add_constants(self, values: Tensor) -> None:
        """Add energies `(n_terms,)` per bead, which have no forces [kJ/mol or reduced]."""

    def coefficients_at(self, temperature: Any, like: Tensor) -> Tensor:
        """s_k and their derivatives `(3, f, n_terms)` for positions `like` `(f, n, 3)`.

        Raises:
            ValueError: a temperature is not positive.
        """
        kelvin = torch.as_tensor(temperature, device=like.device).double().expand(len(like))
        return self.dependence.coefficients(kelvin)

    def energy(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> Tensor:
        """W `(f,)` of positions `(f, n, 3)` [kJ/mol]."""
        terms = self.terms(positions, box)
        return (self.coefficients_at(temperature, positions)[0].to(terms) * terms).sum(dim=1)

    def shares(self, temperature: Tensor) -> dict[str, NDArray[np.float64]]:
        """For each of `QUANTITIES`, the weight of each W_k `(f, n_terms)` at temperatures `(f,)`."""
        kelvin = temperature.double().cpu()
        values, slopes, curvatures = self.dependence.coefficients(kelvin)
        every = values, slopes, curvatures, values - kelvin[:, None] * slopes
        return {name: share.numpy() for name, share in zip(QUANTITIES, every, strict=True)}

    def energy_shares(self, temperature: Any, like: Tensor) -> Tensor:
        """s_k - T ds_k/dT `(f, n_terms)`, the shares of W_k in U, for positions `like` `(f, n, 3)`."""
        values, slopes, _ = self.coefficients_at(temperature, like)
        return values - torch.as_tensor(temperature, device=like.device).double().expand(len(like))[:, None] * slopes

    def mean_energy(self, positions: Tensor, temperature: Any, box: Tensor | None = None) -> Tensor:
        """U = W - T dW/dT `(f,)` of positions `(f, n, 3)` [kJ/mol], differentiable."""
        terms = self.terms(positions, box)
        return (self.energy_shares(temperature, positions).to(terms) * terms).sum(dim=1)

    def forces_and_mean_energy(
        self, positions: Tensor, temperature: Any, box: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Forces `(f, n, 3)` [kJ/mol/nm] and U `(f,)` [kJ/mol] of positions `(f, n, 3)`, differentiable."""
        forces = self.energy_and_forces(positions, temperature, box)[1]
        return forces, self.mean_energy(positions, temperature, box)

    @torch.no_grad()
    def energies(self, positions: Tensor, temperature: Any, box: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """W, U = W - T dW/dT [kJ/mol] and C = -T d²W/dT² [kJ/mol/K], each `(f,)`, without forces."""
        self.check(positions, temperature, box)
        terms = self.terms(positions, box)
        kelvin = torch.as_tensor(temperature, device=positions.device).to(terms).expand(len(positions))
        energy, slope, curvature = (self.coefficients_at(temperature, positions).to(terms) * terms).sum(dim=2)
        return energy, energy - kelvin * slope, -kelvin * curvature

    def response(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> Response:
        """Forces with their derivatives by temperature, and mean energy and heat capacity at frozen beads."""
        self.check(positions, temperature, box)
        create_graph = torch.is_grad_enabled()
        with torch.enable_grad():
            points = positions.detach().requires_grad_(True)
            terms = self.terms(points, box)
            coefficients = self.coefficients_at(temperature, positions).to(terms)
            energies = (coefficients * terms).sum(dim=2)
            first, second, third = (
                -torch.autograd.grad(energy.sum(), points, create_graph=create_graph, retain_graph=True)[0]
                for energy in energies
            )
            kelvin = torch.as_tensor(temperature, device=points.device).to(terms).expand(len(points))
            energy, slope, curvature = energies if create_graph else energies.detach()
        return Response(first, second, third, energy, energy - kelvin * slope, -kelvin * curvature)

    @torch.no_grad()
    def predict(self, positions: Tensor, temperature: Tensor, box: Tensor | None) -> Response:
        """`response` of many frames `(f, n, 3)` at temperatures `(f,)` in boxes `(f, 3)`, in double precision."""
        return Response(*self._in_parts(self.response, self.rows_at_once, positions, temperature, box))

    def mean_energies(self, positions: Tensor, temperature: Tensor, box: Tensor | None) -> Tensor:
        """U of many frames `(f, n, 3)` at temperatures `(f,)` in boxes `(f, 3)`, in double precision."""
        return self._in_parts(self.energies, self.frames_at_once, positions, temperature, box)[1]

    def _in_parts(
        self,
        evaluate: Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, ...]],
        at_once: int,
        positions: Tensor,
        temperature: Tensor,
        box: Tensor | None,
    ) -> list[Tensor]:
        """What a function of positions, temperatures and boxes gives of many frames, a few at a time."""
        place = next(self.buffers())
        dtype = next((weight.dtype for weight in self.parameters()), torch.float64)
        parts = []
        for first in range(0, len(positions), at_once):
            rows = slice(first, first + at_once)
            point, kelvin = (array[rows].to(place.device, dtype) for array in (positions, temperature))
            edges = None if box is None else box[rows].to(place.device, dtype)
            parts.append([part.double().cpu() for part in evaluate(point, kelvin, edges)])
        return [torch.cat(column) for column in zip(*parts, strict=True)]

    def solve(self, labels: Labels) -> dict[str, float]:
        """Set the energies per bead that make mean energies right on average, as far as the form can.

        Forces do not determine them, and W itself is left open by any multiple of T, which no observable sees: least
        squares take the solution of least size. Without energies they stay as they are.

        Raises:
            ValueError: labels have no temperatures.
        """
        if labels.temperature is None:
            raise ValueError("this potential depends on temperature, and its labels have none")
        if "mean_energy" not in labels.values:
            return {}
        found = self.mean_energies(labels.positions, labels.temperature, labels.box).numpy()
        energies = labels.values["mean_energy"].cpu().numpy()
        missing, known = energies - found, np.isfinite(energies)
        design = self.n_beads * self.shares(labels.temperature)["mean_energy"]
        self.add_constants(torch.as_tensor(np.linalg.lstsq(design[known], missing[known], rcond=1e-8)[0]))
        return {}
