"""Structure of a liquid of beads: the radial distribution function, with errors from independent pieces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.frames import Frames
from cg_assets.core.statistics.estimates import Estimate, independent_blocks, jackknife

FloatArray = NDArray[np.float64]
_DISTANCES_AT_ONCE = 4_000_000
BIN_WIDTH = 0.005
"""Width of the bins of g(r) [nm]."""


@dataclass(frozen=True)
class Distribution:
    """A curve with its errors.

    Attributes:
        grid: `(n_bins,)` middle of each bin [nm or rad].
        values: `(n_bins,)`.
        standard_error: `(n_bins,)`; nan where there is but one independent piece.
    """

    grid: FloatArray
    values: FloatArray
    standard_error: FloatArray

    def absolute_error(self, reference: Distribution) -> Estimate:
        """Integral of |values - reference| over the grid, the figure of merit of an RDF or ADF.

        The error is that of bins as independent; noise alone makes the integral positive, see `noise_floor`.

        Raises:
            ValueError: the grids differ.
        """
        if self.grid.shape != reference.grid.shape or not np.allclose(self.grid, reference.grid):
            raise ValueError("the two distributions have different grids; make both with the same bins")
        width = self.grid[1] - self.grid[0]
        difference = np.abs(self.values - reference.values)
        error = width * np.sqrt(np.nansum(self.standard_error**2 + reference.standard_error**2))
        return Estimate(float(width * difference.sum()), float(error))

    def noise_floor(self, reference: Distribution) -> float:
        """The `absolute_error` that noise makes between two equal curves: the mean of |x| of normal numbers."""
        width = self.grid[1] - self.grid[0]
        error = np.sqrt(self.standard_error**2 + reference.standard_error**2)
        return float(width * np.sqrt(2.0 / np.pi) * np.nansum(error))


def radial_histograms(positions: ArrayLike, box: ArrayLike, reach: float, bins: int) -> FloatArray:
    """g(r) of each frame `(n_frames, bins)`, pairs over those of an ideal gas, up to `reach` [nm].

    Args:
        positions: `(n_frames, n_beads, 3)` [nm], wrapped or not.
        box: edges `(3,)` or `(n_frames, 3)` [nm].
        reach: largest distance [nm].
        bins: their number, all of the same width.

    Raises:
        ValueError: `reach` is beyond half the box.
    """
    places, edges = _in_boxes(positions, box, reach)
    count = places.shape[1]
    one, two = np.triu_indices(count, 1)
    shells = 4.0 / 3.0 * np.pi * np.diff(np.linspace(0.0, reach, bins + 1) ** 3)
    result = np.empty((len(places), bins))
    chunk = max(1, _DISTANCES_AT_ONCE // max(1, len(one)))
    for begin in range(0, len(places), chunk):
        part, size = places[begin : begin + chunk], edges[begin : begin + chunk, None]
        gap = part[:, one] - part[:, two]
        gap -= size * np.round(gap / size)
        distance = np.sqrt((gap**2).sum(axis=2))
        inside = distance < reach
        frame = np.broadcast_to(np.arange(len(part))[:, None], distance.shape)[inside]
        number = np.minimum((distance[inside] * (bins / reach)).astype(np.int64), bins - 1)
        counts = np.bincount(frame * bins + number, minlength=len(part) * bins).reshape(len(part), bins)
        result[begin : begin + chunk] = counts / (len(one) * shells / size.prod(axis=2))
    return result


def mean_distribution(
    histograms: ArrayLike, reach: float, replica: ArrayLike, time: ArrayLike | None = None
) -> Distribution:
    """Mean of the histograms of frames, with its errors.

    Args:
        histograms: `(n_frames, bins)` of `radial_histograms`.
        reach: largest distance of the histograms [nm].
        replica: `(n_frames,)` replica of each frame.
        time: `(n_frames,)`; frames of a replica are in order where None.
    """
    rows = np.asarray(histograms, np.float64)
    totals = sums_per_block(np.hstack([np.ones((len(rows), 1)), rows]), replica, time)
    return Distribution(middles(reach, rows.shape[1]), *jackknife(lambda total: total[1:] / total[0], totals))


def radial_distribution(frames: Frames, reach: float, bins: int) -> Distribution:
    """g(r) of all pairs of beads in a periodic box, by the nearest image, up to `reach` [nm].

    Args:
        frames: beads with their box, all at one temperature.
        reach: largest distance [nm], at most half the box.
        bins: their number.

    Raises:
        ValueError: the frames have no box, or `reach` is beyond half of it.
    """
    if frames.box is None:
        raise ValueError("g(r) needs a periodic box, whose volume it is relative to")
    histograms = radial_histograms(frames.positions, frames.box, reach, bins)
    return mean_distribution(histograms, reach, frames.replica, frames.time)


def half_box(frames: Frames) -> tuple[float, int]:
    """Half the smallest edge of the boxes [nm], and the number of bins of g(r) up to it.

    Raises:
        ValueError: the frames have no box.
    """
    if frames.box is None:
        raise ValueError("a liquid needs frames with a periodic box")
    reach = float(frames.box.min()) / 2
    return reach, max(1, round(reach / BIN_WIDTH))


def mean_energy(frames: Frames) -> Estimate:
    """Mean potential energy of a bead [kJ/mol].

    Raises:
        ValueError: the frames have no potential energies.
    """
    if frames.potential_energy is None:
        raise ValueError("a mean energy needs frames with potential energies")
    each = np.stack([np.ones(len(frames)), frames.potential_energy / frames.n_sites], axis=1)
    value, error = jackknife(lambda total: total[1] / total[0], sums_per_block(each, frames.replica, frames.time))
    return Estimate(float(value), float(error), "kJ/mol")


def by_temperature(frames: Frames) -> dict[float, Frames]:
    """The frames at each temperature, from the lowest up."""
    return {float(kelvin): frames.select(frames.temperature == kelvin) for kelvin in np.unique(frames.temperature)}


def structure_and_energy(frames: Frames) -> tuple[dict[float, Distribution], dict[float, Estimate]]:
    """g(r) up to half the box, and potential energy per bead [kJ/mol], at each temperature of some frames.

    Raises:
        ValueError: the frames have no box or no potential energies.
    """
    reach, bins = half_box(frames)
    parts = by_temperature(frames)
    return (
        {kelvin: radial_distribution(part, reach, bins) for kelvin, part in parts.items()},
        {kelvin: mean_energy(part) for kelvin, part in parts.items()},
    )


def _in_boxes(positions: ArrayLike, box: ArrayLike, reach: float) -> tuple[FloatArray, FloatArray]:
    places = np.asarray(positions, np.float64)
    edges = np.broadcast_to(np.asarray(box, np.float64), (len(places), 3))
    if reach > 0.5 * edges.min() * (1.0 + 1e-6):
        raise ValueError(f"distances up to {reach:g} nm were asked for, beyond half the box of {edges.min():g} nm")
    return places, edges


def middles(reach: float, bins: int) -> FloatArray:
    """Middles of bins of equal width from 0 to `reach`."""
    return (np.arange(bins) + 0.5) * reach / bins


def sums_per_block(rows: FloatArray, replica: ArrayLike, time: ArrayLike | None) -> FloatArray:
    """Sums of rows over each independent piece."""
    block = independent_blocks(replica, time)
    totals = np.zeros((int(block.max()) + 1, rows.shape[1]))
    np.add.at(totals, block, rows)
    return totals
