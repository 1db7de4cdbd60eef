"""A toy potential of one coordinate, W(x) = kT Σ c_n (x/L)ⁿ, solved from force labels by least squares."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from cg_assets.potentials.base import Labels, Potential, thermal_energy_of
from cg_assets.potentials.settings import PotentialSettings


class PolynomialSettings(PotentialSettings):
    """Its order and the range that scales the coordinate."""

    goes_with: ClassVar[tuple[str, ...]] = ("model_potential",)
    type: Literal["toy_polynomial"]
    order: PositiveInt = 6
    """Of the polynomial."""
    range: tuple[float, float]
    """Where it is fitted [reduced]."""

    @classmethod
    def potential(cls):
        """`Polynomial`."""
        return Polynomial

    @property
    def domain(self):
        """The range."""
        return self.range


class Polynomial(Potential):
    """Linear in its coefficients: there is nothing to descend."""

    coefficients: Tensor

    def __init__(self, config: dict[str, Any], generator: torch.Generator) -> None:
        """Flat, until it is solved."""
        super().__init__(config, generator)
        self.n_beads = self.dimension = 1
        self.thermal_energy, self.length = thermal_energy_of(config), float(max(map(abs, config["range"])))
        self.register_buffer("coefficients", torch.zeros(int(config["order"])))

    def energy(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> Tensor:
        """Energy `(f,)` of positions `(f, 1, 1)`."""
        powers = torch.arange(1, len(self.coefficients) + 1, device=positions.device)
        return self.thermal_energy * (positions[:, 0] / self.length) ** powers @ self.coefficients.to(positions)

    def solve(self, labels: Labels) -> dict[str, float]:
        """Least squares; its loss is that of the labels it was solved from."""
        powers = torch.arange(1, len(self.coefficients) + 1)
        slopes = powers * (labels.positions[:, 0].double() / self.length) ** (powers - 1) / self.length
        target = -labels.forces[:, 0].double() / self.thermal_energy
        solution = torch.linalg.lstsq(slopes, target).solution
        self.coefficients.copy_(solution[:, 0])
        return {"held_out_loss": float((self.thermal_energy * (slopes @ solution - target)).square().mean())}
