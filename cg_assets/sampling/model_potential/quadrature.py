"""Exact answers for model potentials: PMF, mean force, label noise, and equilibrium draws by quadrature.

A model potential V(q) has one to three coordinates q and one linear CG coordinate s = w·q. With B = w / (w·w) the
points of one s are q = B s + U t, where the rows of U span the orthogonal complement of w, so that

    A(s) = -kT ln ∫ exp(-βV(B s + U t)) dt,        -dA/ds = <f | s>,        f = -B·∇V.

Integrals run over the domain of the specification, which must hold the Boltzmann weight; this is verified.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.expressions import parse_expression
from cg_assets.sampling.model_potential.basins import basin_labels, potential_minima
from cg_assets.sampling.model_potential.landscape import Landscape, mesh

__all__ = [
    "Bias",
    "ExactPMF",
    "basin_labels",
    "equilibrium_draws",
    "exact_noise_floor",
    "exact_pmf",
    "potential_minima",
]

Bias = str | Callable[[dict[str, NDArray[np.float64]]], NDArray[np.float64]]
"""A static bias: a formula of the CG coordinate, or a function of {CG coordinate's name: values} [reduced energy]."""

_NODES_ALONG = {1: 4001, 2: 801, 3: 201}
_NODES_ACROSS = {0: 1, 1: 1001, 2: 151}
_DRAW_CELLS = {1: 20_000, 2: 600, 3: 120}


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


def _bias_energy(bias: Bias | None, variable: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Energy of a bias at values of the CG coordinate."""
    if bias is None:
        return np.zeros_like(values)
    function = parse_expression(bias).evaluate if isinstance(bias, str) else bias
    return np.broadcast_to(np.asarray(function({variable: values}), dtype=np.float64), values.shape)


# --------------------------------------------------------------------------------------- PMF and noise


def _conditional_moments(
    model: Landscape, grid: NDArray[np.float64], label: bool = True
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """-ln ∫exp(-βV)dt, mean and standard deviation of the label (nan unless asked for), each `(n,)`, at s."""
    orthogonal = np.linalg.svd(model.weights[None, :])[2][1:]
    corners = np.asarray(list(product(*zip(model.lower, model.upper, strict=True)))) @ orthogonal.T
    nodes = _NODES_ACROSS[len(orthogonal)]
    ticks = [np.linspace(low, high, nodes) for low, high in zip(corners.min(axis=0), corners.max(axis=0), strict=True)]
    across = mesh(ticks).reshape(-1, len(orthogonal)) @ orthogonal if len(orthogonal) else np.zeros((1, 1))
    cell = float(np.prod([tick[1] - tick[0] for tick in ticks])) if len(orthogonal) else 1.0
    slack = 1e-9 * (model.upper - model.lower)
    minus_log, mean, deviation = (np.full(len(grid), np.nan) for _ in range(3))
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
            if not label:
                continue
            force = np.zeros_like(weight)
            heavy = weight > 1e-15
            force[heavy] = -model.slope(points[heavy], model.force_map)
            mean[rows] = (weight * force).sum(axis=1) / total
            deviation[rows] = np.sqrt((weight * (force - mean[rows, None]) ** 2).sum(axis=1) / total)
    return minus_log, mean, deviation


def _normaliser(reduced: NDArray[np.float64], nodes: NDArray[np.float64]) -> tuple[float, float]:
    """-ln ∫exp(-A/kT)ds and the lowest A/kT (parabola through the three lowest nodes) of A/kT on nodes."""
    lowest = int(np.argmin(reduced))
    minus_log = reduced[lowest] - np.log(np.trapezoid(np.exp(reduced[lowest] - reduced), nodes))
    if lowest in (0, len(nodes) - 1):
        return minus_log, reduced[lowest]
    before, here, after = reduced[lowest - 1 : lowest + 2]
    return minus_log, here - (after - before) ** 2 / (8.0 * (before - 2.0 * here + after))


def exact_pmf(model: Landscape, grid: ArrayLike, bias: Bias | None = None) -> ExactPMF:
    """Exact PMF, mean force and label noise of a model potential along its CG coordinate.

    Args:
        model: the potential.
        grid: `(n,)` values of the CG coordinate s.
        bias: a bias on s; then the PMF and the density are those of the biased ensemble, while mean force and label
            noise stay those of the unbiased label at fixed s, which a bias on s does not change.

    Returns:
        The exact results on the grid [reduced units].

    Raises:
        SystemSpecError: the domain cuts weight off.
    """
    model = model.verified()
    values = np.asarray(grid, dtype=np.float64)
    minus_log, mean, deviation = _conditional_moments(model, values)
    reduced = minus_log + _bias_energy(bias, model.variable, values) / model.thermal_energy
    nodes = np.linspace(*model.coordinate_range(), _NODES_ALONG[model.dimension])
    everywhere = _conditional_moments(model, nodes, label=False)[0]
    everywhere += _bias_energy(bias, model.variable, nodes) / model.thermal_energy
    log_normaliser, lowest = _normaliser(everywhere, nodes)
    return ExactPMF(
        grid=values,
        pmf=model.thermal_energy * (reduced - lowest),
        mean_force=mean,
        label_standard_deviation=deviation,
        density=np.exp(log_normaliser - reduced),
    )


def exact_noise_floor(model: Landscape, bias: Bias | None = None) -> float:
    """Smallest possible force-matching loss <var(f | s)>, averaged over the (biased) density of s [force unit squared].

    Raises:
        SystemSpecError: the domain cuts weight off.
    """
    model = model.verified()
    nodes = np.linspace(*model.coordinate_range(), _NODES_ALONG[model.dimension])
    minus_log, _, deviation = _conditional_moments(model, nodes)
    reduced = minus_log + _bias_energy(bias, model.variable, nodes) / model.thermal_energy
    density = np.exp(_normaliser(reduced, nodes)[0] - reduced)
    return float(np.trapezoid(np.where(density > 0, density * deviation**2, 0.0), nodes))


# --------------------------------------------------------------------------------------- equilibrium draws


def equilibrium_draws(
    model: Landscape, n: int, rng: np.random.Generator, bias: Bias | None = None
) -> NDArray[np.float64]:
    """Independent draws of the unbiased or statically biased Boltzmann density inside the domain.

    A cell of a fine grid is drawn with the probability of an envelope, the largest Boltzmann factor on its corners and
    centre with 2 % to spare; a uniform point of the cell is then accepted with its own factor over the envelope. That
    is exact wherever the envelope holds.

    Args:
        model: the potential.
        n: number of draws.
        rng: generator; the same state gives the same draws.
        bias: a bias on the CG coordinate.

    Returns:
        Points `(n, dimension)`, columns in the order of model.coordinates.

    Raises:
        SystemSpecError: the domain cuts weight off.
    """
    model = model.verified()
    axes = model.axes(_DRAW_CELLS[model.dimension])

    def reduced_energy(points: NDArray[np.float64]) -> NDArray[np.float64]:
        bias_energy = _bias_energy(bias, model.variable, model.coordinate(points))
        return (model.energy(points) + bias_energy) / model.thermal_energy

    corner = reduced_energy(mesh(axes))
    centre = reduced_energy(mesh([0.5 * (axis[1:] + axis[:-1]) for axis in axes]))
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
