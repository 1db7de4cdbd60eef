"""Local health of a CG simulation: bond lengths, chirality, and the fraction of replicas that stay stable."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.statistics.metrics import histograms, jensen_shannon_divergences

FloatArray = NDArray[np.float64]

BOND_SOFTNESS = 0.1
"""A bond's length varies by less than this fraction of its mean."""
SAME_HAND = 0.99
"""A centre is chiral where this fraction of the data has the same sign."""
PLANAR = 0.25
"""Mean size of the triple product of unit vectors below which a centre is flat (0.77 for a tetrahedron)."""


@dataclass(frozen=True)
class BondMonitor:
    """Bond-length distributions of a CG simulation against the data.

    Attributes:
        pairs: the bonds.
        edges: `(n_bonds, n_bins + 1)` edges of the histograms [nm].
        data: `(n_bonds, n_bins)` probabilities in the data.
        simulation: `(n_bonds, n_bins)` in the simulation; what lies beyond the outer edges is in the outer bins.
        divergence: `(n_bonds,)` Jensen-Shannon divergences (natural logarithm).
        data_mean: `(n_bonds,)` [nm].
        data_deviation: `(n_bonds,)` standard deviations [nm].
        simulation_mean: `(n_bonds,)` [nm].
        simulation_deviation: `(n_bonds,)` [nm].
    """

    pairs: tuple[tuple[int, int], ...]
    edges: FloatArray
    data: FloatArray
    simulation: FloatArray
    divergence: FloatArray
    data_mean: FloatArray
    data_deviation: FloatArray
    simulation_mean: FloatArray
    simulation_deviation: FloatArray


@dataclass(frozen=True)
class ChiralityMonitor:
    """Handedness of tetrahedral centres.

    Attributes:
        centres: `(bead, three of its bonded neighbours)` of each chiral centre.
        data_sign: `(n_centres,)` +1 or -1, the hand in the data.
        flipped: fraction of simulation frames with the other hand, for each centre.
    """

    centres: tuple[tuple[int, int, int, int], ...]
    data_sign: NDArray[np.int64]
    flipped: tuple[Estimate, ...]

    @property
    def largest_flipped(self) -> float:
        """Largest flipped fraction; 0 where there is no chiral centre."""
        return max((estimate.value for estimate in self.flipped), default=0.0)


def infer_bonds(positions: ArrayLike) -> list[tuple[int, int]]:
    """Pairs of beads that are bonded, from data frames.

    A pair is bonded when no third bead is nearer to both than they are to each other (relative neighbourhood graph of
    the mean distances) and its length varies by less than a tenth. Use the map's own bonds where it has them.

    Args:
        positions: `(n_frames, n_beads, 3)` of whole molecules [nm].
    """
    points = np.asarray(positions, dtype=np.float64)
    n_beads = points.shape[1]
    mean, deviation = np.zeros((n_beads, n_beads)), np.zeros((n_beads, n_beads))
    for i in range(n_beads):
        lengths = np.linalg.norm(points - points[:, i : i + 1], axis=2)
        mean[i], deviation[i] = lengths.mean(axis=0), lengths.std(axis=0)
    farther = np.maximum(mean[:, None, :], mean[None, :, :])  # of the two distances i-k and j-k
    for i in range(n_beads):
        farther[i, :, i] = farther[:, i, i] = np.inf
    nearest = farther.min(axis=2)
    bonded = (mean <= nearest) & (deviation < BOND_SOFTNESS * np.maximum(mean, 1e-12))
    return [(i, j) for i in range(n_beads) for j in range(i + 1, n_beads) if bonded[i, j]]


def bond_monitor(
    simulation: ArrayLike,
    data: ArrayLike,
    pairs: Sequence[tuple[int, int]] | None = None,
    n_bins: int = 60,
) -> BondMonitor:
    """Compare bond-length distributions of a CG simulation with those of the data.

    Args:
        simulation: `(n_frames, n_beads, 3)` [nm].
        data: `(n_data_frames, n_beads, 3)` [nm].
        pairs: bonds; None to infer them from the data.
        n_bins: bins over the mean ± 6 standard deviations of the data.

    Raises:
        ValueError: the two have different numbers of beads, or the simulation has no frame.
    """
    simulated, reference = (np.asarray(item, dtype=np.float64) for item in (simulation, data))
    if simulated.shape[1:] != reference.shape[1:] or not len(simulated):
        raise ValueError(f"simulation {simulated.shape} and data {reference.shape} must hold frames of the same beads")
    bonds = tuple((int(i), int(j)) for i, j in (infer_bonds(reference) if pairs is None else pairs))
    true, mine = (_lengths(frames, bonds) for frames in (reference, simulated))
    width = np.maximum(true.std(axis=1), 1e-6)
    edges = true.mean(axis=1)[:, None] + width[:, None] * np.linspace(-6.0, 6.0, n_bins + 1)
    data_histogram, histogram = histograms(true, edges), histograms(mine, edges)
    return BondMonitor(
        pairs=bonds,
        edges=edges,
        data=data_histogram,
        simulation=histogram,
        divergence=jensen_shannon_divergences(histogram, data_histogram),
        data_mean=true.mean(axis=1),
        data_deviation=true.std(axis=1),
        simulation_mean=mine.mean(axis=1),
        simulation_deviation=mine.std(axis=1),
    )


def _lengths(frames: FloatArray, bonds: Sequence[tuple[int, int]]) -> FloatArray:
    """Lengths `(n_bonds, n_frames)`."""
    pairs = np.asarray(bonds, dtype=np.int64).reshape(-1, 2)
    return np.linalg.norm(frames[:, pairs[:, 0]] - frames[:, pairs[:, 1]], axis=2).T


def chirality_monitor(
    simulation: ArrayLike,
    data: ArrayLike,
    replica: ArrayLike | None = None,
    pairs: Sequence[tuple[int, int]] | None = None,
) -> ChiralityMonitor:
    """Fraction of simulation frames in which a tetrahedral centre has the hand that the data do not have.

    An energy of distances alone cannot tell the two hands apart, so nothing but the barrier keeps them. A centre has at
    least three bonded neighbours and, in the data, one sign of their triple product.

    Args:
        simulation: `(n_frames, n_beads, 3)` [nm].
        data: `(n_data_frames, n_beads, 3)` [nm].
        replica: `(n_frames,)` replica of each simulation frame, for the error; None takes frames as independent.
        pairs: bonds; None to infer them from the data.
    """
    simulated, reference = (np.asarray(item, dtype=np.float64) for item in (simulation, data))
    bonds = infer_bonds(reference) if pairs is None else pairs
    neighbours: dict[int, list[int]] = {}
    for i, j in bonds:
        neighbours.setdefault(int(i), []).append(int(j))
        neighbours.setdefault(int(j), []).append(int(i))
    centres, signs, flipped = [], [], []
    for bead in sorted(neighbours):
        if len(neighbours[bead]) < 3:
            continue
        one, two, three = sorted(neighbours[bead])[:3]
        legs = (one, two, three)
        product = triple_product(reference, bead, legs)
        sign = 1 if product.mean() > 0 else -1
        if (np.sign(product) == sign).mean() < SAME_HAND or abs(product.mean()) < PLANAR:
            continue
        wrong = np.sign(triple_product(simulated, bead, legs)) == -sign
        centres.append((bead, one, two, three))
        signs.append(sign)
        flipped.append(_fraction(wrong, replica))
    return ChiralityMonitor(tuple(centres), np.array(signs, dtype=np.int64), tuple(flipped))


def triple_product(positions: ArrayLike, centre: int, neighbours: tuple[int, ...]) -> FloatArray:
    """u₁·(u₂ × u₃) of the unit vectors from a centre to three neighbours, `(n_frames,)`."""
    points = np.asarray(positions, dtype=np.float64)
    vectors = points[:, list(neighbours)] - points[:, centre : centre + 1]
    unit = vectors / np.linalg.norm(vectors, axis=2, keepdims=True)
    return np.einsum("fi,fi->f", unit[:, 0], np.cross(unit[:, 1], unit[:, 2]))


def _fraction(wrong: NDArray[np.bool_], replica: ArrayLike | None) -> Estimate:
    """Mean of a flag with the error between replicas."""
    member = np.arange(len(wrong)) if replica is None else np.unique(np.asarray(replica), return_inverse=True)[1]
    count = np.bincount(member)
    value = float(wrong.mean())
    n = len(count)
    if n < 2:
        return Estimate(value, math.nan)
    influence = (np.bincount(member, wrong.astype(np.float64)) - count * value) / len(wrong)
    return Estimate(value, float(np.sqrt((influence**2).sum() * n / (n - 1))))
