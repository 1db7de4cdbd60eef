"""A model potential and its CG coordinate on arrays of points: energy, slope, and the domain that holds the weight."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.differentiation import Tape
from cg_assets.core.errors import SystemSpecError
from cg_assets.core.expressions import Expression, parse_expression

_EDGE_CELLS = {1: 2_000, 2: 240, 3: 48}
_EDGE_LIMIT = 1e-3
_STEP_CELLS = {1: 2_000, 2: 120, 3: 32}
_STEP_ENERGY = 10.0


@dataclass(frozen=True)
class Landscape:
    """A model potential with its CG coordinates, ready for evaluation on arrays of points `(..., dimension)`.

    Attributes:
        names: coordinates of the potential.
        expression: the formula of the potential.
        variables: name of each CG coordinate.
        vectors: weights of each CG coordinate.
        bounds: lower and upper end of the domain along each coordinate.
        thermal_energy: kT.
    """

    names: tuple[str, ...]
    expression: str
    variables: tuple[str, ...]
    vectors: tuple[tuple[float, ...], ...]
    bounds: tuple[tuple[float, float], ...]
    thermal_energy: float

    @property
    def variable(self) -> str:
        """Name of the CG coordinate s; of the first where there are two."""
        return self.variables[0]

    @property
    def lower(self) -> NDArray[np.float64]:
        """Lower ends of the domain `(dimension,)`."""
        return np.asarray(self.bounds)[:, 0]

    @property
    def upper(self) -> NDArray[np.float64]:
        """Upper ends of the domain `(dimension,)`."""
        return np.asarray(self.bounds)[:, 1]

    @property
    def weights(self) -> NDArray[np.float64]:
        """Weights w of s = w·q, `(dimension,)`."""
        return np.asarray(self.vectors[0])

    @property
    def dimension(self) -> int:
        """Number of coordinates."""
        return len(self.names)

    @property
    def force_map(self) -> NDArray[np.float64]:
        """B = w / (w·w), `(dimension,)`."""
        return self.weights / (self.weights @ self.weights)

    @cached_property
    def _formula(self) -> Expression:
        return parse_expression(self.expression)

    def energy(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Potential energy `(...,)` of points `(..., dimension)`; overflow is +inf."""
        arrays = {name: points[..., i] for i, name in enumerate(self.names)}
        with np.errstate(over="ignore", invalid="ignore"):
            energy = np.broadcast_to(self._formula.evaluate(arrays), points.shape[:-1])
        return np.where(np.isnan(energy), np.inf, energy)

    def gradient(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Gradient of the potential `(..., dimension)` by fourth-order differences."""
        return np.stack([self.slope(points, axis) for axis in np.eye(self.dimension)], axis=-1)

    def slope(self, points: NDArray[np.float64], direction: NDArray[np.float64]) -> NDArray[np.float64]:
        """Derivative of the potential along a direction (not normalised) by fourth-order differences."""
        step = 2e-4 * float(np.min(self.upper - self.lower)) / float(np.linalg.norm(direction))
        one, two = step * direction, 2.0 * step * direction
        near = self.energy(points + one) - self.energy(points - one)
        far = self.energy(points + two) - self.energy(points - two)
        with np.errstate(invalid="ignore"):
            return (8.0 * near - far) / (12.0 * step)

    def coordinate(self, points: NDArray) -> NDArray[np.float64]:
        """CG coordinate s = w·q `(...,)`, in double precision."""
        return points.astype(np.float64) @ self.weights

    def energy_and_forces(self, points: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Potential energy `(n,)` and exact forces `(n, dimension)` at points `(n, dimension)`, in double precision."""
        tape, value, slopes = _energy_tape(self.names, self.expression)
        energy, *gradient = tape.run([value, *slopes], {name: points[:, i] for i, name in enumerate(self.names)})
        return energy, -np.stack(gradient, axis=1)

    def coordinate_range(self) -> tuple[float, float]:
        """Smallest and largest s of the domain."""
        ends = np.stack([self.lower, self.upper]) * self.weights
        return float(ends.min(axis=0).sum()), float(ends.max(axis=0).sum())

    def variable_ranges(self) -> dict[str, tuple[float, float]]:
        """Smallest and largest value of each CG coordinate in the domain."""
        ends = np.stack([self.lower, self.upper])[:, None] * np.array(self.vectors)
        low, high = ends.min(axis=0).sum(axis=1), ends.max(axis=0).sum(axis=1)
        return {name: (float(low[i]), float(high[i])) for i, name in enumerate(self.variables)}

    def verified(self) -> Landscape:
        """Itself, if its domain holds its Boltzmann weight.

        Raises:
            SystemSpecError: the domain cuts weight off.
        """
        _refuse_cut_weight(self)
        return self

    def longest_timestep(self, mass: float) -> float:
        """1/ω of the stiffest harmonic motion within 10 kT of the minimum, half of where leap-frog steps diverge.

        Curvatures are differences of exact forces over cells of a grid, so that a kink, which has none, counts as what
        a walker meets; points whose neighbours have no finite forces are left out.

        Args:
            mass: of each coordinate.
        """
        cells = _STEP_CELLS[self.dimension]
        points = mesh(self.axes(cells)).reshape(-1, self.dimension)
        shift = (self.upper - self.lower) / (2 * cells)
        with np.errstate(all="ignore"):
            energy = self.energy(points)
            points = points[energy <= np.nanmin(energy) + _STEP_ENERGY * self.thermal_energy]
            columns = [
                (self.energy_and_forces(points - step)[1] - self.energy_and_forces(points + step)[1])
                / (2.0 * step.sum())
                for step in np.diag(shift)
            ]
        curvature = np.stack(columns, axis=-1)
        curvature = curvature[np.isfinite(curvature).all(axis=(1, 2))]
        curvature = 0.5 * (curvature + curvature.transpose(0, 2, 1))
        stiffest = float(np.linalg.eigvalsh(curvature).max(initial=0.0))
        return math.sqrt(mass / stiffest) if stiffest > 0.0 else math.inf

    def axes(self, cells: int) -> list[NDArray[np.float64]]:
        """Edges `(cells + 1,)` of a grid over the domain, one array per coordinate."""
        return [np.linspace(low, high, cells + 1) for low, high in zip(self.lower, self.upper, strict=True)]


@lru_cache(maxsize=32)
def _energy_tape(names: tuple[str, ...], expression: str) -> tuple[Tape, int, list[int]]:
    tape = Tape()
    value = tape.append(parse_expression(expression))
    return tape, value, tape.gradient(value, names)


@lru_cache(maxsize=32)
def _refuse_cut_weight(model: Landscape) -> None:
    energy = model.energy(mesh(model.axes(_EDGE_CELLS[model.dimension])))
    lowest = energy.min()
    if not np.isfinite(lowest):
        raise SystemSpecError(f"model.expression is {lowest} on the domain; it must be finite and bounded from below")
    for axis, name in enumerate(model.names):
        for side, where in ((0, model.lower[axis]), (-1, model.upper[axis])):
            edge = np.exp(-(energy.take(side, axis=axis).min() - lowest) / model.thermal_energy)
            if edge > _EDGE_LIMIT:
                raise SystemSpecError(
                    f"model.domain.{name}: at {name} = {where} the Boltzmann factor is still {edge:.2g} of its "
                    "maximum; widen the domain, or confine the potential"
                )


def mesh(axes: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Points `(n_1, ..., n_d, d)` of a rectangular grid."""
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
