"""PMF of two CG coordinates: products of cubic B-splines, solved by least squares."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from cg_assets.potentials.base import Labels, Potential, PotentialConfig, thermal_energy_of

LARGEST_BEND = 3.0
"""Standard deviation of a second difference of spline coefficients without data [k_B T]."""

RISE = 2.0
"""Energy of a spline coefficient without data, one knot away from the nearest with some [k_B T]."""


class SplineSurfaceConfig(PotentialConfig, total=False):
    """With its settings."""

    range: dict[str, tuple[float, float]]
    spacing: float


class SplineSurface(Potential):
    """W(x, y) of two CG coordinates: products of cubic B-splines on even knots, linear in their coefficients.

    Least squares therefore solves it exactly. A slight pull of second differences of neighbouring coefficients to zero
    continues the surface where there are no data (P-splines: Eilers and Marx, Stat. Sci. 11, 89 (1996)). Coefficients
    that no training frame touches also rise with the square of their distance from those that one does
    (`fit_statistics`), so that simulations stay where the data are. Beyond its range W continues along its tangent plus
    a harmonic wall. W and its first derivatives are continuous.
    """

    low: Tensor
    high: Tensor
    wall: Tensor

    def __init__(self, config: SplineSurfaceConfig, generator: torch.Generator) -> None:
        """Build the surface.

        Args:
            config: `range` of each of two coordinates by name, `spacing` of the knots, and `thermal_energy`.
            generator: not used; all coefficients begin with zero.

        Raises:
            ValueError: a key is missing or out of range.
        """
        super().__init__(config, generator)
        self.n_beads, self.dimension = 2, 1
        self.thermal_energy = thermal_energy_of(config)
        self.names = list(config["range"])
        limits = torch.tensor([[float(edge) for edge in edges] for edges in config["range"].values()]).T
        spacing = float(config["spacing"])
        if limits.shape != (2, 2) or not (limits[0] < limits[1]).all() or spacing <= 0:
            raise ValueError(f"range {config['range']} must rise in two coordinates, spacing {spacing} be positive")
        self.cells = [max(1, round(float(high - low) / spacing)) for low, high in limits.T]
        for name, value in (("low", limits[0]), ("high", limits[1])):
            self.register_buffer(name, value)
        shape = [cells + 3 for cells in self.cells]
        self.register_buffer("wall", torch.zeros(shape))
        self.coefficients = torch.nn.Parameter(torch.zeros(shape))

    @torch.no_grad()
    def fit_statistics(self, positions: Tensor, box: Tensor | None = None, forces: Tensor | None = None) -> None:
        """Find the coefficients that training positions `(f, 2, 1)` touch, and let the others rise.

        Raises:
            ValueError: positions lie outside the range.
        """
        self.check(positions)
        places = positions[:, :, 0].to(self.low)
        if (places < self.low).any() or (places > self.high).any():
            reach = [f"{float(x.min()):.3g} to {float(x.max()):.3g}" for x in places.T]
            raise ValueError(f"the frames reach from {' and '.join(reach)}, beyond its range; widen it")
        held = torch.zeros(self.cells, dtype=torch.bool, device=places.device)
        held[self._cell(places)[0].unbind(dim=1)] = True
        touched = torch.zeros_like(self.wall, dtype=torch.bool)
        for i, j in itertools.product(range(4), repeat=2):
            touched[i : i + self.cells[0], j : j + self.cells[1]] |= held
        distance = torch.cdist((~touched).nonzero().float(), touched.nonzero().float()).amin(dim=1)
        self.wall.zero_()
        self.wall[~touched] = RISE * distance.square().to(self.wall)

    @torch.no_grad()
    def solve(self, labels: Labels) -> dict[str, float]:
        """Least-squares coefficients for the labels of the frames that descent saw.

        The pull to zero is a Gaussian prior: second differences of standard deviation `LARGEST_BEND`, against labels
        whose noise is at most their own mean square.
        """
        positions, forces = labels.parts()[0]
        size, width = self.coefficients.numel(), self.coefficients.shape[1]
        matrix = torch.zeros(size * size, dtype=torch.float64, device=positions.device)
        vector = torch.zeros(size, dtype=torch.float64, device=positions.device)
        reduced = forces[:, :, 0].double() / self.thermal_energy
        for part, label in zip(positions[:, :, 0].double().split(10_000), reduced.split(10_000), strict=True):
            cell, values, slopes = self._basis(part.clamp(self.low, self.high))
            near = torch.arange(4, device=part.device)
            index = (cell[:, :1, None] + near[:, None]) * width + cell[:, 1:, None] + near
            index = index.flatten(start_dim=1)
            for axis in range(2):
                one = slopes[:, 0] if axis == 0 else values[:, 0]
                other = slopes[:, 1] if axis == 1 else values[:, 1]
                row = -(one[:, :, None] * other[:, None]).flatten(start_dim=1)
                vector.index_add_(0, index.flatten(), (row * label[:, axis, None]).flatten())
                pairs = (index[:, :, None] * size + index[:, None]).flatten()
                matrix.index_add_(0, pairs, (row[:, :, None] * row[:, None]).flatten())
        normal = matrix.reshape(size, size)
        bends = torch.zeros_like(normal)
        for axis, count in enumerate(self.coefficients.shape):
            second = torch.eye(count).to(normal).diff(n=2, dim=0)
            factors = [torch.eye(n).to(normal) for n in self.coefficients.shape]
            factors[axis] = second.T @ second
            bends += torch.kron(factors[0], factors[1])
        normal += (reduced.square().mean() / LARGEST_BEND**2) * bends
        normal.diagonal().add_(1e-10 * normal.diagonal().mean())  # W is known up to a constant
        solution = torch.linalg.solve(normal, vector)
        self.coefficients.copy_((solution - solution.mean()).reshape(self.coefficients.shape))
        return {}

    def energy(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> Tensor:
        """Energy `(f,)` of positions `(f, 2, 1)`."""
        return self._energy_and_slopes(positions[:, :, 0])[0]

    def evaluate(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy `(f,)` and forces `(f, 2, 1)`."""
        energy, slopes = self._energy_and_slopes(positions[:, :, 0])
        return energy, -slopes[:, :, None]

    def _energy_and_slopes(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """W `(f,)` and its slopes `(f, 2)` at places `(f, 2)`."""
        inside = places.clamp(self.low, self.high)
        beyond = places - inside
        cell, values, slopes = self._basis(inside)
        near = torch.arange(4, device=places.device)
        rows, columns = cell[:, :1, None] + near[:, None], cell[:, 1:, None] + near
        weights = (self.coefficients + self.wall)[rows, columns]

        def summed(one: Tensor, other: Tensor) -> Tensor:
            return torch.einsum("fi,fij,fj->f", one, weights, other)

        value = summed(values[:, 0], values[:, 1])
        slope = torch.stack([summed(slopes[:, 0], values[:, 1]), summed(values[:, 0], slopes[:, 1])], dim=1)
        twist = summed(slopes[:, 0], slopes[:, 1])
        stiffness = 2.0 * RISE / (self._step() ** 2)
        energy = value + (slope * beyond).sum(dim=1) + 0.5 * (stiffness * beyond.square()).sum(dim=1)
        moved = torch.where(beyond == 0.0, twist[:, None] * beyond.flip(1), torch.zeros_like(beyond))
        return self.thermal_energy * energy, self.thermal_energy * (slope + stiffness * beyond + moved)

    def _step(self) -> Tensor:
        """Distance of the knots `(2,)`."""
        return (self.high - self.low) / torch.tensor(self.cells).to(self.low)

    def _cell(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Number of the cell `(f, 2)` of places `(f, 2)` inside the range, and the place in it, from 0 to 1."""
        scaled = (places - self.low) / self._step()
        last = torch.tensor(self.cells, device=places.device) - 1
        cell = torch.minimum(scaled.detach().long(), last)
        return cell, scaled - cell

    def _basis(self, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cells `(f, 2)`, and the four B-splines there along each axis, with their derivatives, `(f, 2, 4)`."""
        cell, t = self._cell(places)
        u = 1.0 - t
        values = torch.stack([u**3, 3 * t**3 - 6 * t**2 + 4, 3 * u**3 - 6 * u**2 + 4, t**3], dim=2) / 6.0
        slopes = torch.stack([-u * u, 3 * t * t - 4 * t, 4 * u - 3 * u * u, t * t], dim=2) / 2.0
        return cell, values, slopes / self._step()[:, None]
