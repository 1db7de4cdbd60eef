"""Exact answers for model potentials with two CG coordinates, each of them one coordinate of the potential.

With R the two coordinates that are kept and q the rest, W(R) = -kT ln ∫ exp(-V(R, q) / kT) dq, on a grid that is fine
enough for sums over it to be integrals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from cg_assets.core.errors import SystemSpecError
from cg_assets.core.statistics.clusters import Bins
from cg_assets.sampling.conditional import ConditionalForces
from cg_assets.sampling.model_potential.landscape import Landscape

FloatArray = NDArray[np.float64]

_PER_BIN = 4
"""Points of the grid along each side of a bin of the evaluation."""
_NODES = 201
"""Points along a coordinate that is integrated out."""
_CONFIGURATIONS, _DRAWS = 400, 32


@dataclass(frozen=True)
class Plane:
    """A density of two CG coordinates on the points of a grid.

    Attributes:
        names: of the coordinates.
        bins: of the evaluation; each holds an equal number of points.
        points: `(n_points_1, n_points_2, 2)`.
        reduced: `(n_points_1, n_points_2)` W / kT, up to a constant.
    """

    names: tuple[str, str]
    bins: Bins
    points: FloatArray
    reduced: FloatArray
    thermal_energy: float

    @property
    def probability(self) -> FloatArray:
        """Of each point, summing to 1."""
        return np.exp(-self.reduced - logsumexp(-self.reduced))

    @property
    def binned(self) -> FloatArray:
        """Probability of each bin."""
        rows, columns = self.bins.shape
        return self.probability.reshape(rows, _PER_BIN, columns, _PER_BIN).sum(axis=(1, 3))

    def with_energy(self, energy: Callable[[FloatArray], FloatArray]) -> Plane:
        """The density of another potential, a function of positions `(n, 2, 1)`, on the same points."""
        values = np.asarray(energy(self.points.reshape(-1, 2, 1)), dtype=np.float64) / self.thermal_energy
        return replace(self, reduced=values.reshape(self.reduced.shape))

    def divergence(self, other: Plane) -> float:
        """Kullback-Leibler divergence ∫ p ln(p / q) of this density p from another q."""
        mine, yours = self.probability, -other.reduced - logsumexp(-other.reduced)
        return float((mine * (-self.reduced - logsumexp(-self.reduced) - yours)).sum())

    def pmf_error(self, other: Plane) -> float:
        """Root mean square difference of W / kT from another, weighted by this density, less its mean."""
        mine, difference = self.probability, other.reduced - self.reduced
        return float(np.sqrt((mine * (difference - (mine * difference).sum()) ** 2).sum()))

    def population(self, limits: dict[str, tuple[float, float]]) -> float:
        """Probability of a basin."""
        return float((self.probability * self._share(limits)).sum())

    def narrowest(self, limits: dict[str, tuple[float, float]]) -> float:
        """Standard deviation inside a basin along the direction in which it is least: the width of a stiff mode."""
        weights = (self.probability * self._share(limits)).ravel()
        covariance = np.cov(self.points.reshape(-1, 2).T, aweights=weights, ddof=0)
        return float(np.sqrt(np.linalg.eigvalsh(covariance)[0]))

    def _share(self, limits: dict[str, tuple[float, float]]) -> FloatArray:
        """Part of the cell about each point that lies inside a basin."""
        share = np.ones(self.reduced.shape)
        for name, (low, high) in limits.items():
            axis = self.names.index(name)
            values = self.points[..., axis]
            width = values[1, 1] - values[0, 0]
            inside = np.minimum(values + 0.5 * width, high) - np.maximum(values - 0.5 * width, low)
            share *= np.clip(inside / width, 0.0, 1.0)
        return share


def exact_plane(model: Landscape, bins: Bins) -> Plane:
    """The exact density of two CG coordinates over the range of some bins.

    Raises:
        SystemSpecError: the potential has no two such coordinates, or its domain cuts weight off.
    """
    kept = _kept(model)
    first, second = model.variables
    axes = [
        low + (high - low) * (np.arange(count * _PER_BIN) + 0.5) / (count * _PER_BIN)
        for (low, high), count in zip(([edges[0], edges[-1]] for edges in bins.edges), bins.shape, strict=True)
    ]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    reduced = np.concatenate([-logsumexp(-_energies(model, kept, row)[1], axis=1) for row in points])
    return Plane((first, second), bins, points, reduced.reshape(points.shape[:2]), model.thermal_energy)


def conditional_draws(model: Landscape, positions: ArrayLike, seed: int) -> ConditionalForces:
    """Force labels with the coordinates that are not kept redrawn, independently, from their exact density.

    Args:
        model: a potential with two CG coordinates.
        positions: `(n_frames, 2)` CG coordinates; some of them are drawn at random.
        seed: of all draws.
    """
    generator = np.random.default_rng(seed)
    places = np.asarray(positions, dtype=np.float64)
    places = places[generator.choice(len(places), min(_CONFIGURATIONS, len(places)), replace=False)]
    kept = _kept(model)
    points, reduced = _energies(model, kept, places)
    sums = np.exp(reduced.min(axis=1, keepdims=True) - reduced).cumsum(axis=1)
    share = generator.random((len(places), _DRAWS)) * sums[:, -1:]
    index = np.stack([np.searchsorted(row, part) for row, part in zip(sums, share, strict=True)])
    drawn = np.take_along_axis(points, index[..., None], axis=1)
    forces = -model.gradient(drawn)[None, ..., kept, None]
    return ConditionalForces(places[..., None], forces, "draws with fixed CG coordinates")


def _kept(model: Landscape) -> list[int]:
    """Which of the coordinates are the two CG coordinates, of a potential that is verified."""
    if len(model.variables) != 2:
        raise SystemSpecError(f"the CG coordinates are {', '.join(model.variables)}; an exact plane needs two")
    return [int(np.flatnonzero(vector)[0]) for vector in model.verified().vectors]


def _energies(model: Landscape, kept: list[int], places: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Points `(n, m, dimension)` over the rest of the coordinates at each place `(n, 2)`, and V / kT there `(n, m)`."""
    (rest, *_) = [*(axis for axis in range(model.dimension) if axis not in kept), None]
    ticks = np.zeros(1) if rest is None else np.linspace(model.lower[rest], model.upper[rest], _NODES)
    points = np.zeros((len(places), len(ticks), model.dimension))
    points[..., kept] = places[:, None]
    if rest is not None:
        points[..., rest] = ticks
    return points, model.energy(points) / model.thermal_energy
