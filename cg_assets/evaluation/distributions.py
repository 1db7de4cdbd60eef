"""Averages over frames: distributions with their errors, sums over independent pieces, changes with temperature."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.frames import Frames
from cg_assets.core.statistics.estimates import Estimate, independent_blocks, jackknife
from cg_assets.core.units import BOLTZMANN
from cg_assets.evaluation.case import Case
from cg_assets.evaluation.quantity import Profile
from cg_assets.evaluation.settings import LiquidSettings

FloatArray = NDArray[np.float64]


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


def middles(reach: float, bins: int) -> FloatArray:
    """Middles of bins of equal width from 0 to `reach`."""
    return (np.arange(bins) + 0.5) * reach / bins


def sums_per_block(rows: FloatArray, replica: ArrayLike, time: ArrayLike | None) -> FloatArray:
    """Sums of rows over each independent piece."""
    block = independent_blocks(replica, time)
    totals = np.zeros((int(block.max()) + 1, rows.shape[1]))
    np.add.at(totals, block, rows)
    return totals


def temperature_slopes(
    rows: FloatArray, energy: ArrayLike, temperature: float, replica: ArrayLike, time: ArrayLike | None
) -> tuple[FloatArray, FloatArray]:
    """Derivatives by temperature of the means of columns from one simulation, Cov(A, u)/(kT²), and their errors.

    Args:
        rows: `(n_frames, n)` A of each frame, which do not depend on temperature themselves.
        energy: `(n_frames,)` u [kJ/mol].
        temperature: of the simulation [K].
        replica: `(n_frames,)` replica of each frame.
        time: `(n_frames,)`; frames of a replica are in order where None.

    Returns:
        `(n,)` derivatives [1/K], and their standard errors.
    """
    energies = np.asarray(energy, np.float64)
    centred, columns = (energies - energies.mean())[:, None], rows.shape[1]
    totals = sums_per_block(np.hstack([np.ones_like(centred), centred, rows, centred * rows]), replica, time)

    def slopes(total: FloatArray) -> FloatArray:
        count = total[0]
        product, mean = total[2 + columns :] / count, total[1] / count * total[2 : 2 + columns] / count
        return (product - mean) * count / (count - 1.0) / (BOLTZMANN * temperature**2)

    return jackknife(slopes, totals)


def at_temperatures(case: Case[LiquidSettings]) -> list[tuple[float, Frames | None, Frames]]:
    """Temperature [K], frames of the beads (None where no replica stayed stable) and of the atoms, lowest first."""
    simulated = case.simulation.by_temperature()
    return [(kelvin, simulated.get(kelvin), atoms) for kelvin, atoms in case.true_frames.by_temperature().items()]


def error_and_noise(beads: Distribution, atoms: Distribution, unit: str) -> tuple[Estimate, Estimate]:
    """The integrated error of a distribution of the beads, and what noise alone makes of it."""
    found = beads.absolute_error(atoms)
    return Estimate(found.value, found.standard_error, unit), Estimate(beads.noise_floor(atoms), 0.0, unit)


def compared(name: str, beads: Distribution, atoms: Distribution, kelvin: float, unit: str, along: str) -> Profile:
    """A distribution of the beads and that of the atoms."""
    return Profile(
        name=name,
        grid=beads.grid,
        values=beads.values,
        unit=unit,
        coordinate_unit=along,
        temperature=kelvin,
        standard_error=beads.standard_error,
        reference=atoms.values,
        reference_error=atoms.standard_error,
    )


def mean_of(estimates: Sequence[Estimate]) -> Estimate:
    """Mean of independent estimates with its error; infinite where one of them is."""
    if not all(math.isfinite(item.value) for item in estimates):
        return Estimate(math.inf, math.nan, estimates[0].unit)
    error = math.sqrt(sum(item.standard_error**2 for item in estimates)) / len(estimates)
    return Estimate(sum(item.value for item in estimates) / len(estimates), error, estimates[0].unit)
