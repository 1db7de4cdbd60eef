"""A model potential and its CG coordinate on arrays of points: energy, slope, and the domain that holds the weight."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SystemSpecError
from cg_assets.core.expressions import Expression, parse_expression
from cg_assets.mapping.maps import LinearMapping
from cg_assets.sampling.model_potential.model import ModelPotential
from cg_assets.systems.spec import SystemSpec

_EDGE_CELLS = {1: 2_000, 2: 240, 3: 48}
_EDGE_LIMIT = 1e-3


@dataclass(frozen=True)
class Landscape:
    """A model potential with its CG coordinate, ready for evaluation on arrays of points `(..., dimension)`.

    Attributes:
        names: coordinates of the potential.
        variable: name of the CG coordinate; the first where there are two.
        bounds: lower and upper end of the domain along each coordinate.
        vector: weights w of the CG coordinate.
        thermal_energy: kT.
        expression: the formula of the potential.
    """

    names: tuple[str, ...]
    variable: str
    bounds: tuple[tuple[float, float], ...]
    vector: tuple[float, ...]
    thermal_energy: float
    expression: str

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
        return np.asarray(self.vector)

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

    def coordinate(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """CG coordinate s = w·q `(...,)`."""
        return points @ self.weights

    def coordinate_range(self) -> tuple[float, float]:
        """Smallest and largest s of the domain."""
        ends = np.stack([self.lower, self.upper]) * self.weights
        return float(ends.min(axis=0).sum()), float(ends.max(axis=0).sum())

    def axes(self, cells: int) -> list[NDArray[np.float64]]:
        """Edges `(cells + 1,)` of a grid over the domain, one array per coordinate."""
        return [np.linspace(low, high, cells + 1) for low, high in zip(self.lower, self.upper, strict=True)]


def landscape(system: SystemSpec) -> Landscape:
    """The model potential of a system, verified to hold its Boltzmann weight inside its domain.

    Raises:
        SystemSpecError: the system has no model potential, or its domain cuts weight off.
    """
    if not isinstance(system.model, ModelPotential) or not isinstance(system.mapping, LinearMapping):
        raise SystemSpecError(
            f"{system.name}: exact quadrature needs model.type model_potential; use long runs instead"
        )
    variable, weights = next(iter(system.mapping.coordinates.items()))
    names = tuple(system.model.coordinates)
    bounds = tuple((float(system.model.domain[name][0]), float(system.model.domain[name][1])) for name in names)
    vector = tuple(float(weights.get(name, 0.0)) for name in names)
    model = Landscape(names, variable, bounds, vector, system.thermal_energy, system.model.expression)
    _refuse_cut_weight(model)
    return model


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
