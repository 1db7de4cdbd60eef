"""Local minima of a model potential, and the minimum that steepest descent reaches from any point.

A grid over the domain is cut into catchments by following each node to its steepest neighbour. The catchments give
the minima (refined with L-BFGS-B) and the lowest pass out of each. What lies below its minimum's lowest pass cannot
leave it and is labelled at once; every other point follows -grad V, interpolated from the grid, until it does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, optimize

from cg_assets.sampling.model_potential.landscape import Landscape, mesh

_CELLS = {1: 4_000, 2: 480, 3: 96}
_MAX_STEPS = 3_000


@dataclass(frozen=True)
class _Basins:
    """Minima sorted by energy, and on each node of the grid what descent needs.

    Attributes:
        positions: `(n_minima, d)`.
        energies: `(n_minima,)`.
        labels: minimum below each node, by the steepest neighbour.
        held: whether the node lies below the lowest pass out of that minimum.
        velocity: `(d, ...)` -grad V, limited to one grid spacing and to half a period of the local curvature.
        spacing: `(d,)` distance of the nodes.
    """

    positions: NDArray[np.float64]
    energies: NDArray[np.float64]
    labels: NDArray[np.int32]
    held: NDArray[np.bool_]
    velocity: NDArray[np.float64]
    spacing: NDArray[np.float64]


def potential_minima(model: Landscape) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions `(n_minima, dimension)` and energies `(n_minima,)` of the local minima, the lowest first.

    Raises:
        SystemSpecError: the domain cuts weight off.
    """
    basins = _basins(model.verified())
    return basins.positions, basins.energies


def basin_labels(model: Landscape, points: ArrayLike) -> NDArray[np.int32]:
    """Index of the local minimum that steepest descent reaches from each point, minima sorted by energy.

    Args:
        model: the potential.
        points: `(n, dimension)`; points outside the domain start from its nearest edge.

    Returns:
        `(n,)` int32, 0 for the lowest minimum.

    Raises:
        SystemSpecError: the domain cuts weight off.
    """
    basins = _basins(model.verified())
    where = np.asarray(points, dtype=np.float64).reshape(-1, model.dimension)
    last = np.asarray(basins.labels.shape) - 1.0
    walkers = np.clip((where - model.lower) / basins.spacing, 0.0, last)  # in units of the grid

    def nodes(index: NDArray[np.float64]) -> tuple[NDArray[np.int64], ...]:
        return tuple(np.rint(index).astype(np.int64).T)

    def velocity(index: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack([ndimage.map_coordinates(v, index.T, order=1, mode="nearest") for v in basins.velocity], axis=1)

    active = np.flatnonzero(~basins.held[nodes(walkers)])
    for _ in range(_MAX_STEPS):
        if not len(active):
            break
        here = walkers[active]
        middle = np.clip(here + 0.5 * velocity(here) / basins.spacing, 0.0, last)
        walkers[active] = np.clip(here + velocity(middle) / basins.spacing, 0.0, last)
        active = active[~basins.held[nodes(walkers[active])]]
    return basins.labels[nodes(walkers)]


@lru_cache(maxsize=8)
def _basins(model: Landscape) -> _Basins:
    axes = model.axes(_CELLS[model.dimension])
    spacing = np.array([axis[1] - axis[0] for axis in axes])
    energy = model.energy(mesh(axes))
    below = _lowest_neighbour(energy, spacing)
    while True:
        further = below[below]
        if np.array_equal(further, below):
            break
        below = further
    seeds, inverse = np.unique(below, return_inverse=True)
    starts = [
        tuple(axis[i] for axis, i in zip(axes, np.unravel_index(seed, energy.shape), strict=True)) for seed in seeds
    ]
    bounds = list(zip(model.lower, model.upper, strict=True))
    found = [
        optimize.minimize(lambda q: float(model.energy(q)), start, jac=model.gradient, method="L-BFGS-B", bounds=bounds)
        for start in starts
    ]
    reached, heights = np.stack([item.x for item in found]), np.array([item.fun for item in found])
    minima: list[int] = []
    label_of_seed = np.empty(len(seeds), dtype=np.int32)
    for seed in np.argsort(heights, kind="stable"):
        same = [k for k, other in enumerate(minima) if np.all(np.abs(reached[seed] - reached[other]) < 2.0 * spacing)]
        label_of_seed[seed] = same[0] if same else len(minima)
        if not same:
            minima.append(int(seed))
    labels = label_of_seed[inverse].reshape(energy.shape)
    return _Basins(
        positions=reached[minima],
        energies=heights[minima],
        labels=labels,
        held=energy < _lowest_passes(energy, labels, len(minima))[labels],
        velocity=_velocity(energy, spacing),
        spacing=spacing,
    )


def _lowest_neighbour(energy: NDArray[np.float64], spacing: NDArray[np.float64]) -> NDArray[np.int64]:
    """Flat index of the steepest downhill neighbour of each node, itself at a minimum."""
    padded = np.pad(energy, 1, constant_values=np.inf)
    index = np.pad(np.arange(energy.size).reshape(energy.shape), 1)
    centre = tuple(slice(1, -1) for _ in energy.shape)
    best, target = np.zeros(energy.shape), index[centre].copy()
    for shift in product((-1, 0, 1), repeat=energy.ndim):
        if not any(shift):
            continue
        window = tuple(slice(1 + s, 1 + s + n) for s, n in zip(shift, energy.shape, strict=True))
        with np.errstate(invalid="ignore"):
            drop = (energy - padded[window]) / np.linalg.norm(shift * spacing)
        better = drop > best
        best = np.where(better, drop, best)
        target = np.where(better, index[window], target)
    return target.ravel()


def _lowest_passes(energy: NDArray[np.float64], labels: NDArray[np.int32], n_minima: int) -> NDArray[np.float64]:
    """Lowest energy `(n_minima,)` on the border of each catchment, inf where there is none."""
    border = ndimage.maximum_filter(labels, 3) != ndimage.minimum_filter(labels, 3)
    passes = np.full(n_minima, np.inf)
    np.minimum.at(passes, labels[border], energy[border])
    return passes


def _velocity(energy: NDArray[np.float64], spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    """-grad V `(d, ...)` times a local time: no step beyond a grid spacing, nor beyond half of 1/curvature."""
    finite = np.minimum(energy, np.nanmin(energy) + 1e6)
    slopes = np.stack(_slopes(finite, spacing))
    curvature = np.sqrt(sum(part**2 for slope in slopes for part in _slopes(slope, spacing)))
    norm = np.linalg.norm(slopes, axis=0)
    time = np.minimum(0.5 / np.maximum(curvature, 1e-300), spacing.min() / np.maximum(norm, 1e-300))
    return -slopes * time


def _slopes(values: NDArray[np.float64], spacing: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    slopes = np.gradient(values, *spacing)
    return [slopes] if values.ndim == 1 else list(slopes)
