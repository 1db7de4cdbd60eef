"""Averages at any temperature from the samples of all rungs of ladders of temperatures, by MBAR.

The states differ in temperature alone, so a sample of energy u counts at T with the weight
exp(-u/kT) / Σ_k N_k exp(f_k - u/kT_k): samples of all rungs are one data set at every temperature between them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.statistics.estimates import Estimate, independent_blocks
from cg_assets.core.statistics.mbar import StateMixture, gap_fault
from cg_assets.core.units import BOLTZMANN

FloatArray = NDArray[np.float64]

_MOST_SAMPLES = 40_000
"""Samples that averages are taken over, evenly spread in time: frames are stored closer than they are independent."""
_BLOCKS = 40
_STEPS = 4
"""Of Newton's method, which doubles the right digits in each: a block of forty moves free energies little."""


class LadderSamples:
    """Samples of ladders as one data set at any temperature.

    Errors are those of a jackknife over blocks, in each of which MBAR is solved again.

    Attributes:
        temperatures: `(n_rungs,)` [K].
        rows: which of the samples given are used.
        fault: which rungs have too little in common to be joined; empty where all are.
    """

    def __init__(self, energy: ArrayLike, temperature: ArrayLike, replica: ArrayLike, time: ArrayLike) -> None:
        """Solve MBAR, for all samples and without each block.

        Args:
            energy: `(n,)` potential energies [kJ/mol].
            temperature: `(n,)` of the rung that each sample comes from [K].
            replica: `(n,)` ladder of each sample; samples of one ladder and time are correlated.
            time: `(n,)` within the ladder [ps].
        """
        moments = np.unique(np.asarray(time))
        every = -(-np.size(time) // _MOST_SAMPLES)
        self.rows = np.flatnonzero(np.isin(time, moments[::every]))
        kelvin, ladder, moment = (np.asarray(item)[self.rows] for item in (temperature, replica, time))
        self.temperatures, state = np.unique(kelvin, return_inverse=True)
        self._energy = np.asarray(energy, np.float64)[self.rows]
        self._energy = self._energy - self._energy.mean()
        inverse = 1.0 / (BOLTZMANN * self.temperatures)
        reduced = inverse[:, None] * self._energy
        whole = StateMixture.of(reduced, state)
        names = [f"{item:g} K" for item in self.temperatures]
        self.fault = gap_fault(whole.gaps(whole.common(ladder, moment)), names)
        block_of = independent_blocks(ladder, moment, _BLOCKS)
        self._densities = [whole.log_density]
        for block in np.unique(block_of):
            rest = block_of != block
            density = np.full(len(state), np.inf)
            density[rest] = _density(reduced[:, rest], np.bincount(state[rest]), whole.free_energy)
            self._densities.append(density)

    def average(
        self, statistic: Callable[[FloatArray], float], columns: ArrayLike, temperature: float, unit: str = ""
    ) -> Estimate:
        """A function of averages at a temperature.

        Args:
            statistic: of the averages `(m,)` of the columns.
            columns: `(n, m)` of all samples that were given.
            temperature: between those of the rungs [K].
            unit: of the result.
        """
        values = np.asarray(columns, np.float64)[self.rows]
        found = []
        for density in self._densities:
            logarithm = -self._energy / (BOLTZMANN * temperature) - density
            weights = np.exp(logarithm - logarithm.max())
            found.append(statistic(weights @ values / weights.sum()))
        value, parts = found[0], np.array(found[1:])
        error = np.sqrt((len(parts) - 1) / len(parts) * ((parts - parts.mean()) ** 2).sum()) if len(parts) > 1 else None
        return Estimate(float(value), float("nan") if error is None else float(error), unit)

    def mean(self, values: ArrayLike, temperature: float, unit: str = "") -> Estimate:
        """Mean of values `(n,)` at a temperature [K]."""
        return self.average(lambda means: float(means[0]), np.asarray(values)[:, None], temperature, unit)

    def slope(self, values: ArrayLike, energy: ArrayLike, temperature: float, unit: str = "") -> Estimate:
        """Derivative of the mean of values `(n,)` by temperature, Cov(A, u)/(kT²); of the energy, the heat capacity.

        Args:
            values: A.
            energy: `(n,)` u [kJ/mol].
            temperature: [K].
            unit: of the result.
        """
        first, other = (np.asarray(item, np.float64) for item in (values, energy))
        first, other = first - first.mean(), other - other.mean()
        columns = np.stack([first * other, first, other], axis=1)
        scale = 1.0 / (BOLTZMANN * temperature**2)
        return self.average(lambda m: float(scale * (m[0] - m[1] * m[2])), columns, temperature, unit)


def _density(reduced: FloatArray, counts: NDArray[np.int64], guess: FloatArray) -> FloatArray:
    """Logarithm of the density `(n_samples,)` of samples of all states, by Newton's method."""
    free_energy = guess.copy()
    for _ in range(_STEPS):
        parts = np.log(counts)[:, None] + free_energy[:, None] - reduced
        density = np.logaddexp.reduce(parts, axis=0)
        membership = np.exp(parts - density)
        curvature = np.diag(membership.sum(axis=1)) - membership @ membership.T
        free_energy[1:] += np.linalg.solve(curvature[1:, 1:], (counts - membership.sum(axis=1))[1:])
    return np.asarray(density)
