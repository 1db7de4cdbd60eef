"""Exact answers for model potentials: PMF, mean force, label noise, equilibrium draws and basins by quadrature.

A model potential V(q) has one to three coordinates q and one linear CG coordinate s = w·q. With B = w / (w·w) the
points of one s are q = B s + U t, where the rows of U span the orthogonal complement of w, so that

    A(s) = -kT ln ∫ exp(-βV(B s + U t)) dt,        -dA/ds = <f | s>,        f = -B·∇V.

Integrals run over the domain of the specification, which must hold the Boltzmann weight; this is verified.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, optimize

from cg_assets.errors import SystemSpecError
from cg_assets.systems.expressions import parse_expression
from cg_assets.systems.spec import LinearMapping, ModelPotential, SystemSpec

Bias = str | Callable[[dict[str, NDArray[np.float64]]], NDArray[np.float64]]
"""A static bias: a formula of the CG coordinate, or a function of {CG coordinate's name: values} [reduced energy]."""

_ORTHOGONAL_NODES = {0: 1, 1: 1401, 2: 201}
_DRAW_CELLS = {1: 20_000, 2: 600, 3: 120}
_DESCENT_CELLS = {1: 4_000, 2: 480, 3: 96}
_EDGE_LIMIT = 1e-3


@dataclass(frozen=True)
class ExactPMF:
    """Exact results along the CG coordinate; all in reduced units.

    Attributes:
        grid: `(n,)` values of the CG coordinate.
        pmf: `(n,)` A(s), zero at its lowest value over the whole domain; inf where the domain has no weight.
        mean_force: `(n,)` -dA/ds = <f | s>; nan where the domain has no weight.
        label_standard_deviation: `(n,)` standard deviation of the force label f at this s.
        density: `(n,)` probability density of s, normalised over the whole domain.
    """

    grid: NDArray[np.float64]
    pmf: NDArray[np.float64]
    mean_force: NDArray[np.float64]
    label_standard_deviation: NDArray[np.float64]
    density: NDArray[np.float64]

    def population(self, low: float, high: float) -> float:
        """Probability of low < s < high by the trapezoidal rule on the grid, ends interpolated."""
        inside = (self.grid > low) & (self.grid < high)
        ends = np.clip([low, high], self.grid[0], self.grid[-1])
        nodes = np.concatenate([ends[:1], self.grid[inside], ends[1:]])
        return float(np.trapezoid(np.interp(nodes, self.grid, self.density), nodes))


@dataclass(frozen=True)
class _Landscape:
    """A model potential with its CG coordinate, ready for evaluation on arrays of points `(..., dimension)`."""

    names: tuple[str, ...]
    variable: str
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    weights: NDArray[np.float64]
    thermal_energy: float
    expression: str

    @property
    def dimension(self) -> int:
        return len(self.names)

    @property
    def force_map(self) -> NDArray[np.float64]:
        """B = w / (w·w), `(dimension,)`."""
        return self.weights / (self.weights @ self.weights)

    def energy(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Potential energy `(...,)` of points `(..., dimension)`; overflow is +inf."""
        arrays = {name: points[..., i] for i, name in enumerate(self.names)}
        with np.errstate(over="ignore", invalid="ignore"):
            energy = np.broadcast_to(parse_expression(self.expression).evaluate(arrays), points.shape[:-1])
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


def landscape(system: SystemSpec) -> _Landscape:
    """The model potential of a system, verified to hold its Boltzmann weight inside its domain.

    Raises:
        SystemSpecError: the system has no model potential, or its domain cuts weight off.
    """
    if not isinstance(system.model, ModelPotential) or not isinstance(system.mapping, LinearMapping):
        raise SystemSpecError(f"{system.name}: exact quadrature needs model.type model_potential; use long runs instead")
    ((variable, weights),) = system.mapping.coordinates.items()
    names = tuple(system.model.coordinates)
    bounds = tuple(tuple(float(edge) for edge in system.model.domain[name]) for name in names)
    vector = tuple(float(weights.get(name, 0.0)) for name in names)
    return _landscape(names, variable, bounds, vector, system.thermal_energy, system.model.expression)


@lru_cache(maxsize=32)
def _landscape(
    names: tuple[str, ...],
    variable: str,
    bounds: tuple[tuple[float, float], ...],
    weights: tuple[float, ...],
    thermal_energy: float,
    expression: str,
) -> _Landscape:
    lower, upper = np.asarray(bounds).T
    result = _Landscape(names, variable, lower, upper, np.asarray(weights), thermal_energy, expression)
    energy = result.energy(_mesh(result.axes(_DESCENT_CELLS[len(names)] // 2)))
    lowest = energy.min()
    if not np.isfinite(lowest):
        raise SystemSpecError(f"model.expression is {lowest} on the domain; it must be finite and bounded from below")
    for axis, name in enumerate(names):
        for side, where in ((0, bounds[axis][0]), (-1, bounds[axis][1])):
            edge = np.exp(-(energy.take(side, axis=axis).min() - lowest) / thermal_energy)
            if edge > _EDGE_LIMIT:
                raise SystemSpecError(
                    f"model.domain.{name}: the Boltzmann factor at {name} = {where} is still {edge:.2g} of its maximum; "
                    "widen the domain, or confine the potential"
                )
    return result


def _mesh(axes: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Points `(n_1, ..., n_d, d)` of a rectangular grid."""
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def _bias_energy(bias: Bias | None, variable: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Energy of a bias at values of the CG coordinate."""
    if bias is None:
        return np.zeros_like(values)
    function = parse_expression(bias).evaluate if isinstance(bias, str) else bias
    return np.broadcast_to(np.asarray(function({variable: values}), dtype=np.float64), values.shape)


# --------------------------------------------------------------------------------------- PMF and noise


def _conditional_moments(
    model: _Landscape, grid: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """-ln ∫exp(-βV)dt, mean and standard deviation of the label, each `(n,)`, at values of s."""
    orthogonal = np.linalg.svd(model.weights[None, :])[2][1:]
    corners = np.asarray(list(product(*zip(model.lower, model.upper, strict=True)))) @ orthogonal.T
    nodes = _ORTHOGONAL_NODES[len(orthogonal)]
    ticks = [np.linspace(low, high, nodes) for low, high in zip(corners.min(axis=0), corners.max(axis=0), strict=True)]
    across = _mesh(ticks).reshape(-1, len(orthogonal)) @ orthogonal if len(orthogonal) else np.zeros((1, 1))
    cell = float(np.prod([tick[1] - tick[0] for tick in ticks])) if len(orthogonal) else 1.0
    slack = 1e-9 * (model.upper - model.lower)
    minus_log, mean, deviation = (np.empty(len(grid)) for _ in range(3))
    block = max(1, 1_000_000 // len(across))
    for first in range(0, len(grid), block):
        rows = slice(first, first + block)
        points = grid[rows, None, None] * model.force_map + across
        inside = np.all((points >= model.lower - slack) & (points <= model.upper + slack), axis=-1)
        reduced = np.where(inside, model.energy(points) / model.thermal_energy, np.inf)
        lowest = reduced.min(axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            weight = np.nan_to_num(np.exp(lowest - reduced), nan=0.0)
            total = weight.sum(axis=1)
            minus_log[rows] = np.where(total > 0, lowest[:, 0] - np.log(total * cell), np.inf)
            force = np.where(weight > 0, -model.slope(points, model.force_map), 0.0)
            mean[rows] = (weight * force).sum(axis=1) / total
            deviation[rows] = np.sqrt((weight * (force - mean[rows, None]) ** 2).sum(axis=1) / total)
    return minus_log, mean, deviation


def _whole_range(model: _Landscape, bias: Bias | None) -> tuple[NDArray[np.float64], ...]:
    """Nodes over the whole range of s, their normalised density, label mean and deviation, and -ln normaliser, min."""
    nodes = np.linspace(*model.coordinate_range(), 1601 if model.dimension < 3 else 401)
    minus_log, mean, deviation = _conditional_moments(model, nodes)
    reduced = minus_log + _bias_energy(bias, model.variable, nodes) / model.thermal_energy
    lowest = int(np.argmin(reduced))
    unnormalised = np.exp(reduced[lowest] - reduced)
    normaliser = float(np.trapezoid(unnormalised, nodes))
    offset = reduced[lowest]
    if 0 < lowest < len(nodes) - 1:
        before, here, after = reduced[lowest - 1 : lowest + 2]
        offset -= (after - before) ** 2 / (8.0 * (before - 2.0 * here + after))
    return nodes, unnormalised / normaliser, mean, deviation, np.array([reduced[lowest] - np.log(normaliser), offset])


def exact_pmf(system: SystemSpec, grid: ArrayLike, bias: Bias | None = None) -> ExactPMF:
    """Exact PMF, mean force and label noise of a model potential along its CG coordinate.

    Args:
        system: a system with a model potential of one to three coordinates.
        grid: `(n,)` values of the CG coordinate s.
        bias: a bias on s; then the PMF and the density are those of the biased ensemble, while mean force and label
            noise stay those of the unbiased label at fixed s, which a bias on s does not change.

    Returns:
        The exact results on the grid [reduced units].

    Raises:
        SystemSpecError: the system has no model potential, or its domain cuts weight off.
    """
    model = landscape(system)
    values = np.asarray(grid, dtype=np.float64)
    minus_log, mean, deviation = _conditional_moments(model, values)
    reduced = minus_log + _bias_energy(bias, model.variable, values) / model.thermal_energy
    log_normaliser, lowest = _whole_range(model, bias)[4]
    return ExactPMF(
        grid=values,
        pmf=model.thermal_energy * (reduced - lowest),
        mean_force=mean,
        label_standard_deviation=deviation,
        density=np.exp(log_normaliser - reduced),
    )


def exact_noise_floor(system: SystemSpec, bias: Bias | None = None) -> float:
    """Smallest possible force-matching loss <var(f | s)>, averaged over the (biased) density of s [force unit squared].

    Raises:
        SystemSpecError: the system has no model potential, or its domain cuts weight off.
    """
    nodes, density, _, deviation, _ = _whole_range(landscape(system), bias)
    return float(np.trapezoid(np.where(density > 0, density * deviation**2, 0.0), nodes))


# --------------------------------------------------------------------------------------- equilibrium draws


def equilibrium_draws(
    system: SystemSpec, n: int, rng: np.random.Generator, bias: Bias | None = None
) -> NDArray[np.float64]:
    """Independent draws of the unbiased or statically biased Boltzmann density inside the domain.

    A cell of a fine grid is drawn with the probability of an envelope, the largest Boltzmann factor on its corners and
    centre with 2 % to spare; a uniform point of the cell is then accepted with its own factor over the envelope. That
    is exact wherever the envelope holds.

    Args:
        system: a system with a model potential.
        n: number of draws.
        rng: generator; the same state gives the same draws.
        bias: a bias on the CG coordinate.

    Returns:
        Points `(n, dimension)`, columns in the order of model.coordinates.

    Raises:
        SystemSpecError: the system has no model potential, or its domain cuts weight off.
    """
    model = landscape(system)
    axes = model.axes(_DRAW_CELLS[model.dimension])

    def reduced_energy(points: NDArray[np.float64]) -> NDArray[np.float64]:
        bias_energy = _bias_energy(bias, model.variable, model.coordinate(points))
        return (model.energy(points) + bias_energy) / model.thermal_energy

    corner = reduced_energy(_mesh(axes))
    centre = reduced_energy(_mesh([0.5 * (axis[1:] + axis[:-1]) for axis in axes]))
    lowest = min(corner.min(), centre.min())
    for shift in product((slice(None, -1), slice(1, None)), repeat=model.dimension):
        centre = np.minimum(centre, corner[shift])
    envelope = 1.02 * np.exp(lowest - centre)
    cumulative = np.cumsum(envelope.ravel())
    low = np.stack([axis[0] for axis in axes])
    width = np.stack([axis[1] - axis[0] for axis in axes])
    accepted: list[NDArray[np.float64]] = []
    missing = n
    while missing > 0:
        proposals = int(1.2 * missing) + 64
        cell = np.searchsorted(cumulative, rng.random(proposals) * cumulative[-1], side="right")
        cell = np.minimum(cell, len(cumulative) - 1)
        index = np.stack(np.unravel_index(cell, envelope.shape), axis=-1)
        points = low + (index + rng.random((proposals, model.dimension))) * width
        factor = np.exp(lowest - reduced_energy(points))
        keep = points[rng.random(proposals) * envelope.ravel()[cell] < factor][:missing]
        accepted.append(keep)
        missing -= len(keep)
    return np.concatenate(accepted) if accepted else np.empty((0, model.dimension))


# --------------------------------------------------------------------------------------- basins


@dataclass(frozen=True)
class _Basins:
    """Local minima sorted by energy and, for each cell of a grid, the minimum below it (-1: too near a divide)."""

    positions: NDArray[np.float64]
    energies: NDArray[np.float64]
    labels: NDArray[np.int32]
    certain: NDArray[np.bool_]


def potential_minima(system: SystemSpec) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions `(n_minima, dimension)` and energies `(n_minima,)` of the local minima, the lowest first.

    Raises:
        SystemSpecError: the system has no model potential.
    """
    basins = _basins(_key(landscape(system)))
    return basins.positions, basins.energies


def basin_labels(system: SystemSpec, points: ArrayLike) -> NDArray[np.int32]:
    """Index of the local minimum that steepest descent reaches from each point, minima sorted by energy.

    Points deep inside a basin are looked up on a grid; those near a divide first go downhill in small steps.

    Args:
        system: a system with a model potential.
        points: `(n, dimension)`; points outside the domain start from its nearest edge.

    Returns:
        `(n,)` int32, 0 for the lowest minimum.

    Raises:
        SystemSpecError: the system has no model potential.
    """
    model = landscape(system)
    basins = _basins(_key(model))
    walkers = np.clip(np.asarray(points, dtype=np.float64).reshape(-1, model.dimension), model.lower, model.upper)
    width = (model.upper - model.lower) / (np.asarray(basins.labels.shape) - 1)

    def cell(where: NDArray[np.float64]) -> tuple[NDArray[np.int64], ...]:
        return tuple(np.rint((where - model.lower) / width).astype(np.int64).T)

    active = np.flatnonzero(~basins.certain[cell(walkers)])
    for _ in range(800):
        if not len(active):
            break
        gradient = np.nan_to_num(model.gradient(walkers[active]) / width**-1)
        step = -0.25 * gradient / np.maximum(np.linalg.norm(gradient, axis=1, keepdims=True), 1e-300) * width
        walkers[active] = np.clip(walkers[active] + step, model.lower, model.upper)
        active = active[~basins.certain[cell(walkers[active])]]
    return basins.labels[cell(walkers)]


def _key(model: _Landscape) -> tuple[tuple[str, ...], tuple[tuple[float, float], ...], str]:
    return model.names, tuple(zip(model.lower.tolist(), model.upper.tolist(), strict=True)), model.expression


@lru_cache(maxsize=8)
def _basins(key: tuple[tuple[str, ...], tuple[tuple[float, float], ...], str]) -> _Basins:
    names, bounds, expression = key
    lower, upper = np.asarray(bounds).T
    model = _Landscape(names, "", lower, upper, np.ones(len(names)), 1.0, expression)
    axes = model.axes(_DESCENT_CELLS[model.dimension])
    energy = model.energy(_mesh(axes))
    below = _lowest_neighbour(energy)
    while True:
        further = below[below]
        if np.array_equal(further, below):
            break
        below = further
    seeds, inverse = np.unique(below, return_inverse=True)
    shape = energy.shape
    starts = np.stack([axis[i] for axis, i in zip(axes, np.unravel_index(seeds, shape), strict=True)], axis=-1)
    found = [
        optimize.minimize(lambda q: float(model.energy(q)), start, jac=model.gradient, method="L-BFGS-B", bounds=bounds)
        for start in starts
    ]
    reached, heights = np.stack([item.x for item in found]), np.array([item.fun for item in found])
    spacing = (upper - lower) / (np.asarray(shape) - 1)
    minima: list[int] = []
    seed_label = np.empty(len(seeds), dtype=np.int32)
    for i in np.argsort(heights, kind="stable"):
        same = [k for k, j in enumerate(minima) if np.all(np.abs(reached[i] - reached[j]) < 2.0 * spacing)]
        if not same:
            minima.append(int(i))
        seed_label[i] = same[0] if same else len(minima) - 1
    labels = seed_label[inverse].reshape(shape)
    margin = 7 if model.dimension < 3 else 5
    certain = ndimage.maximum_filter(labels, margin) == ndimage.minimum_filter(labels, margin)
    return _Basins(reached[minima], heights[minima], labels, certain)


def _lowest_neighbour(energy: NDArray[np.float64]) -> NDArray[np.int64]:
    """Flat index of the steepest downhill neighbour of each grid point, itself at a minimum."""
    padded = np.pad(energy, 1, constant_values=np.inf)
    index = np.pad(np.arange(energy.size).reshape(energy.shape), 1)
    centre = tuple(slice(1, -1) for _ in energy.shape)
    best, target = np.zeros(energy.shape), index[centre].copy()
    for shift in product((-1, 0, 1), repeat=energy.ndim):
        if not any(shift):
            continue
        window = tuple(slice(1 + s, 1 + s + n) for s, n in zip(shift, energy.shape, strict=True))
        with np.errstate(invalid="ignore"):
            drop = (energy - padded[window]) / np.sqrt(np.dot(shift, shift))
        better = drop > best
        best = np.where(better, drop, best)
        target = np.where(better, index[window], target)
    return target.ravel()
