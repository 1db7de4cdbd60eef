"""Stein's identity: a test of force labels that needs no density.

For configurations R' with density p' and labels whose conditional mean is the mean force of p', any smooth vector field
g has <g · F / kT> = -<div g>. Labels that miss the mean force anywhere fail for some g; so do configurations that are
not those of the labels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.geometry import bead_pairs
from cg_assets.core.statistics.estimates import Estimate, jackknife

FloatArray = NDArray[np.float64]
_BLOCK = 5000
_PAIRS = 300
"""Bead pairs at most that the scale of forces is measured by."""


@dataclass(frozen=True)
class SteinTest:
    """The identity for a family of fields.

    Attributes:
        z: `(n_fields,)` mean of g · F / kT + div g in units of its standard error; standard normal for right labels.
        bias: `(n_fields,)` that mean, as a part of the root mean square of g · F / kT.
    """

    z: FloatArray
    bias: FloatArray

    @property
    def largest(self) -> float:
        """Largest |z|."""
        return float(np.abs(self.z).max())


def stein_test(
    positions: NDArray,
    forces: NDArray,
    thermal_energy: float,
    seed: int,
    n_fields: int = 60,
    cluster: NDArray[np.int64] | None = None,
) -> SteinTest:
    """Test labels with random fields of internal coordinates.

    A field is cos(k · u + a) times the gradient of an internal coordinate: of a bead pair's distance in space, of a
    coordinate for model potentials. The phase runs over up to three internal coordinates, standardised, at wavelengths
    from a few standard deviations up.

    Args:
        positions: `(n_frames, n_beads, dimension)` configurations R'.
        forces: labels of the same shape [kJ/mol/nm or reduced].
        thermal_energy: k_B T [kJ/mol or reduced].
        seed: of the fields.
        n_fields: how many.
        cluster: `(n_frames,)` number of the independent stretch that a frame is of. None where each frame's term has
            zero mean by itself: labels by the noise of a kernel alone, whatever the frames.
    """
    generator = np.random.default_rng(seed)
    count, n_beads, dimension = positions.shape
    first, second = np.triu_indices(n_beads, 1) if dimension == 3 else (np.arange(n_beads), np.arange(n_beads))
    values = _coordinates(positions[:: max(1, count // 20_000)], first, second)[0]
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    along = np.array([generator.choice(len(first), 3, replace=len(first) < 3) for _ in range(n_fields)])
    wave = generator.normal(size=(n_fields, 3)) * generator.choice([0.0, 0.3, 1.0], size=(n_fields, 3))
    phase = generator.uniform(0.0, 2.0 * math.pi, n_fields)
    # Every second field points along a coordinate of its own phase, where the identity is most sensitive.
    pointing = np.where(np.arange(n_fields) % 2, along[:, 0], generator.integers(len(first), size=n_fields))

    number = np.arange(count) if cluster is None else np.unique(cluster, return_inverse=True)[1]
    n_clusters = int(number.max()) + 1
    sums, squares = np.zeros((n_fields, n_clusters)), np.zeros(n_fields)
    for start in range(0, count, _BLOCK):
        part = slice(start, start + _BLOCK)
        value, unit = _coordinates(positions[part], first, second)
        force = np.asarray(forces[part], dtype=np.float64) / thermal_energy
        standard = (value - mean) / deviation
        for field, target in enumerate(pointing):
            angle = standard[:, along[field]] @ wave[field] + phase[field]
            push = force[:, first[target]] - (force[:, second[target]] if dimension == 3 else 0.0)
            pushed = np.cos(angle) * np.einsum("fd,fd->f", unit[:, target], push)
            slope = sum(
                wave[field, k] / deviation[p] * _overlap(unit, first, second, p, target)
                for k, p in enumerate(along[field])
            )
            laplacian = 4.0 / value[:, target] if dimension == 3 else 0.0
            term = pushed + np.cos(angle) * laplacian - np.sin(angle) * slope
            sums[field] += np.bincount(number[part], term, minlength=n_clusters)
            squares[field] += np.sum(pushed**2)
    mean_term, error = clustered_mean(sums, np.bincount(number, minlength=n_clusters))
    return SteinTest(z=mean_term / error, bias=mean_term / np.sqrt(squares / count))


def clustered_mean(sums: FloatArray, counts: NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    """Means `(n,)` of terms and their standard errors, by the scatter between independent clusters of frames.

    Args:
        sums: `(n, n_clusters)` of the terms of each cluster.
        counts: `(n_clusters,)` frames of each.
    """
    n_clusters, count = len(counts), counts.sum()
    mean = sums.sum(axis=1) / count
    residual = sums - mean[:, None] * counts
    return mean, np.sqrt((residual**2).sum(axis=1) * n_clusters / (n_clusters - 1)) / count


def force_scale(
    positions: NDArray, forces: NDArray, thermal_energy: float, block: NDArray[np.int64], weights: NDArray | None = None
) -> Estimate:
    """The factor by which force labels are larger than those that the positions ask for.

    For each pair of beads the field (d - <d>) along the pair gives <g · F> = -kT <div g>; the pairs are pooled, each
    with the inverse variance of its g · F, so that stiff ones decide. 1 for right labels at the right temperature; the
    ratio of two units where one was read as the other; near 0 for forces of other frames.

    Args:
        positions: `(n_frames, n_beads, 3)` of one density, or with its weights [nm].
        forces: `(n_frames, n_beads, 3)` labels [kJ/mol/nm].
        thermal_energy: k_B T [kJ/mol].
        block: `(n_frames,)` number of the independent stretch that a frame is of.
        weights: `(n_frames,)` of the frames; None for equal ones.

    Returns:
        The factor; nan with fewer than two beads.
    """
    first, second = np.triu_indices(positions.shape[1], 1)
    if not len(first):
        return Estimate(math.nan, math.nan)
    weight = np.ones(len(positions)) if weights is None else np.asarray(weights, dtype=np.float64)
    some = positions[:: max(1, len(positions) // 2000)]
    spread = bead_pairs(some, first, second)[0].std(axis=0)
    stiff = np.argsort(spread)[:_PAIRS]
    first, second = first[stiff], second[stiff]
    mean = np.average(bead_pairs(some, first, second)[0], axis=0)
    number = np.unique(block, return_inverse=True)[1]
    totals = np.zeros((int(number.max()) + 1, 2, len(first)))
    squares = np.zeros(len(first))
    for start in range(0, len(positions), _BLOCK):
        part = slice(start, start + _BLOCK)
        distance, unit = bead_pairs(positions[part], first, second)
        force = np.asarray(forces[part], dtype=np.float64)
        away = distance - mean
        work = away * np.einsum("fpd,fpd->fp", unit, force[:, first] - force[:, second])
        divergence = 2.0 + 4.0 * away / distance
        squares += (work**2).sum(axis=0)
        for index, terms in enumerate((work, divergence)):
            np.add.at(totals[:, index], number[part], weight[part, None] * terms)
    pooled = totals @ (1.0 / (squares + 1e-12 * squares.max() + 1e-300))
    value, error = jackknife(lambda total: -total[0] / (thermal_energy * total[1]), pooled)
    return Estimate(float(value), float(error))


def _coordinates(positions: NDArray, first: NDArray, second: NDArray) -> tuple[FloatArray, FloatArray]:
    """Internal coordinates `(f, p)` and their gradients at the first bead `(f, p, d)`."""
    places = np.asarray(positions, dtype=np.float64)
    if places.shape[2] != 3:
        return places[:, :, 0], np.ones(places.shape)
    return bead_pairs(places, first, second)


def _overlap(unit: FloatArray, first: NDArray, second: NDArray, p: int, q: int) -> FloatArray | float:
    """Scalar product of the gradients of two internal coordinates."""
    if unit.shape[2] != 3:
        return float(p == q)
    shared = sum(
        sign * (int(bead == first[q]) - int(bead == second[q])) for bead, sign in ((first[p], 1), (second[p], -1))
    )
    return shared * np.einsum("fd,fd->f", unit[:, p], unit[:, q]) if shared else 0.0
