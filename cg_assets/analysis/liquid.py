"""Structure of a liquid of beads: the radial distribution function, with errors from independent blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.analysis.estimates import Estimate, independent_blocks, jackknife
from cg_assets.frames import Frames

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class RadialDistribution:
    """g(r) of the beads.

    Attributes:
        distance: `(n_bins,)` middles of the bins [nm].
        value: `(n_bins,)` g(r), 1 for beads without correlation.
        standard_error: `(n_bins,)`.
    """

    distance: FloatArray
    value: FloatArray
    standard_error: FloatArray


def radial_distribution(frames: Frames, edges: ArrayLike, n_blocks: int = 20) -> RadialDistribution:
    """g(r) of all pairs of beads in a periodic box, by the nearest image.

    Args:
        frames: beads with their box, all at one temperature.
        edges: `(n_bins + 1,)` edges of the bins [nm], up to half the box at most.
        n_blocks: independent blocks of frames for the errors.

    Raises:
        ValueError: the frames have no box, or the edges reach beyond half of it.
    """
    limits = np.asarray(edges, dtype=np.float64)
    if frames.box is None:
        raise ValueError("g(r) needs a periodic box, whose volume it is relative to")
    if limits[-1] > frames.box.min() / 2 + 1e-6:
        raise ValueError(f"distances up to {limits[-1]} nm reach beyond half the box ({frames.box.min() / 2:.4f} nm)")
    n_beads = frames.n_sites
    first, second = np.triu_indices(n_beads, 1)
    block = independent_blocks(frames.replica, frames.time, n_blocks)
    counts = np.zeros((int(block.max()) + 1, len(limits) - 1))
    ideal = np.zeros(len(counts))
    for positions, box, number in zip(frames.positions.astype(np.float64), frames.box, block, strict=True):
        apart = positions[first] - positions[second]
        apart -= box * np.round(apart / box)
        counts[number] += np.histogram(np.sqrt((apart**2).sum(axis=1)), limits)[0]
        ideal[number] += len(first) / math.prod(map(float, box))
    shells = 4 / 3 * math.pi * np.diff(limits**3)
    value, error = jackknife(lambda sums: sums[:-1] / (sums[-1] * shells), np.column_stack([counts, ideal]))
    return RadialDistribution(0.5 * (limits[1:] + limits[:-1]), value, error)


def structure_and_energy(
    frames: Frames, n_bins: int = 120, n_blocks: int = 20
) -> tuple[dict[float, RadialDistribution], dict[float, Estimate]]:
    """g(r) up to half the box, and potential energy per bead [kJ/mol], at each temperature of some frames.

    Raises:
        ValueError: the frames have no box or no potential energies.
    """
    if frames.box is None or frames.potential_energy is None:
        raise ValueError("structure and energy need frames with a box and potential energies")
    edges = np.linspace(0.0, float(frames.box.min()) / 2, n_bins + 1)
    structure, energy = {}, {}
    for temperature in np.unique(frames.temperature):
        part = frames.select(frames.temperature == temperature)
        structure[float(temperature)] = radial_distribution(part, edges, n_blocks)
        block = independent_blocks(part.replica, part.time, n_blocks)
        sums = np.stack([np.bincount(block, part.potential_energy), np.bincount(block)], axis=1)
        value, error = jackknife(lambda total: total[0] / total[1], sums)
        energy[float(temperature)] = Estimate(float(value) / part.n_sites, float(error) / part.n_sites, "kJ/mol")
    return structure, energy
