"""PMF of one CG coordinate at all temperatures: cubic B-splines, solved by least squares."""

from __future__ import annotations

import torch
from torch import Tensor

from cg_assets.potentials.base import Labels
from cg_assets.potentials.thermal.dependent import TemperatureDependent, ThermalConfig

RISE = 2.0
"""Half the stiffness of the wall beyond the data [k_B T_0 per squared knot spacing]."""


class ThermalCurveConfig(ThermalConfig, total=False):
    """With its settings."""

    range: tuple[float, float]
    spacing: float


class ThermalCurve(TemperatureDependent):
    """W(s, T) = sum_k s_k(T) W_k(s) of one CG coordinate, in reduced units (k_B = 1).

    Each W_k is a cubic B-spline on even knots, linear in its coefficients, for which least squares solve. Beyond the
    training data each continues along its tangent, and a harmonic wall that does not depend on temperature is added.
    Everything is in float64.
    """

    coefficients: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, config: ThermalCurveConfig, generator: torch.Generator) -> None:
        """Build the curve, with all coefficients zero.

        Args:
            config: `range` of the coordinate, `spacing` of the knots, and `temperature_dependence`.
            generator: not used; nothing here is random.

        Raises:
            ValueError: a key is missing or out of range.
        """
        super().__init__(config, generator)
        self.n_beads = self.dimension = 1
        self.rows_at_once = 10_000
        self.first, last = (float(edge) for edge in config["range"])
        if not self.first < last or float(config["spacing"]) <= 0:
            raise ValueError(f"range {config['range']} must rise and spacing {config['spacing']} be positive")
        self.cells = max(1, round((last - self.first) / float(config["spacing"])))
        self.step = (last - self.first) / self.cells
        self.n_functions = self.cells + 3
        for name, value in (("low", self.first), ("high", last)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64))
        self.register_buffer("coefficients", torch.zeros(self.n_terms, self.n_functions, dtype=torch.float64))

    @torch.no_grad()
    def fit_statistics(self, positions: Tensor, box: Tensor | None = None, forces: Tensor | None = None) -> None:
        """Set the interval that training positions `(f, 1, 1)` cover.

        Raises:
            ValueError: some lie outside the range.
        """
        self.check(positions[:0], temperature=1.0)
        least, most = float(positions.min()), float(positions.max())
        last = self.first + self.cells * self.step
        if least < self.first or most > last:
            raise ValueError(
                f"range is [{self.first:g}, {last:g}], but the frames reach from {least:.3g} to {most:.3g}; widen it"
            )
        self.low.fill_(least)
        self.high.fill_(most)

    @torch.no_grad()
    def solve(self, labels: Labels) -> dict[str, float]:
        """Coefficients by least squares, and constants (`TemperatureDependent.solve`).

        Returns:
            `held_out_loss`, the mean squared deviation of force labels that the solution has not seen.

        Raises:
            ValueError: the labels do not suffice.
        """
        from cg_assets.potentials.thermal_curve.solve import solve_curve

        return {"held_out_loss": solve_curve(self, labels).held_out_loss}

    def add_constants(self, values: Tensor) -> None:
        """Add energies `(n_terms,)`: B-splines sum to 1."""
        self.coefficients += values.to(self.coefficients)[:, None]

    def terms(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """The energies W_k `(f, n_terms)` of positions `(f, 1, 1)`."""
        place = positions[:, 0, 0].to(self.coefficients)
        inside = place.clamp(self.low, self.high)
        beyond = place - inside
        functions = self.basis(inside)[0] + self.basis(inside.detach())[1] * beyond[:, None]
        wall = RISE * self.dependence.origin * (beyond / self.step).square()
        return functions @ self.coefficients.T + wall[:, None] * self.is_value

    def basis(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """The B-splines `(f, n_functions)` at places `(f,)` within the range, and their slopes."""
        t = (places[:, None] - self.first) / self.step + 1.0 - torch.arange(self.n_functions).to(places)
        outer, inner = (2.0 - t.abs()).clamp_min(0.0), (1.0 - t.abs()).clamp_min(0.0)
        slope = t.sign() * (4.0 * inner.square() - outer.square()) / (2.0 * self.step)
        return (outer**3 - 4.0 * inner**3) / 6.0, slope
