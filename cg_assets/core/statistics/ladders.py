"""Averages at any temperature from the samples of all rungs of ladders of temperatures, by MBAR.

The states differ in temperature alone, so a sample of energy u counts at T with the weight
exp(-u/kT) / Σ_k N_k exp(f_k - u/kT_k): samples of all rungs are one data set at every temperature between them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.statistics.estimates import Estimate, autocorrelation_time, independent_blocks
from cg_assets.core.statistics.mbar import StateMixture, densities, gap_fault
from cg_assets.core.units import BOLTZMANN

FloatArray = NDArray[np.float64]

_MOST_SAMPLES = 40_000
"""Samples that averages are taken over, evenly spread in time: frames are stored closer than they are independent."""
_BLOCKS = 40
_STEPS = 4
"""Of Newton's method, which doubles the right digits in each: a block of forty moves free energies little."""


class LadderSamples:
    """Samples of ladders as one data set at any temperature.

    Errors are those of a jackknife over blocks, in each of which MBAR is solved again; where blocks are stretches of
    time, enlarged by what neighbouring ones have in common.

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
        self._moment_of = np.unique(np.stack([ladder, moment]), axis=1, return_inverse=True)[1].ravel()
        member = np.unique(ladder, return_inverse=True)[1]
        self._ends = np.cumsum([len(np.unique(moment[member == number])) for number in range(member.max() + 1)])
        self._cut = int(block_of.max()) + 1 > len(self._ends)
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

        Raises:
            ValueError: the temperature is not between those of the rungs, where there are no samples.
        """
        low, high = self.temperatures[[0, -1]]
        if not low <= temperature <= high:
            raise ValueError(
                f"{temperature:g} K is not between {low:g} and {high:g} K, the temperatures of the samples"
            )
        values = np.asarray(columns, np.float64)[self.rows]
        found = [statistic(self._weights(density, temperature) @ values) for density in self._densities]
        value, parts = found[0], np.array(found[1:])
        if len(parts) < 2:
            return Estimate(float(value), float("nan"), unit)
        error = np.sqrt((len(parts) - 1) / len(parts) * ((parts - parts.mean()) ** 2).sum())
        return Estimate(float(value), float(error * self._enlargement(statistic, values, temperature)), unit)

    def _weights(self, log_density: FloatArray, temperature: float) -> FloatArray:
        """Weight of each sample at a temperature; their sum is 1."""
        logarithm = -self._energy / (BOLTZMANN * temperature) - log_density
        weights = np.exp(logarithm - logarithm.max())
        return np.asarray(weights / weights.sum())

    def _enlargement(self, statistic: Callable[[FloatArray], float], values: FloatArray, temperature: float) -> float:
        """Factor of the error for blocks of time that are not long against the autocorrelation time τ.

        Means of blocks of n times scatter by 1 - τ/n (1 - exp(-n/τ)) of the variance of independent ones, where the
        correlation falls exponentially. τ is that of what each time contributes to the statistic, to first order.
        """
        if not self._cut:
            return 1.0
        weights = self._weights(self._densities[0], temperature)
        means = weights @ values
        steps = np.diag(np.sqrt(weights @ (values - means) ** 2))
        ascent = np.array([0.5 * (statistic(means + step) - statistic(means - step)) for step in steps])
        size = np.diag(steps)
        gradient = np.divide(ascent, size, out=np.zeros(len(size)), where=size > 0)
        parts = np.bincount(self._moment_of, weights * ((values - means) @ gradient))
        length = len(parts) / (len(self._densities) - 1)
        ratio = autocorrelation_time(np.split(parts, self._ends[:-1])) / length
        return float((1.0 + ratio * np.expm1(-1.0 / ratio)) ** -0.5)

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
        parts, density = densities(reduced, counts, free_energy)
        membership = np.exp(parts - density)
        curvature = np.diag(membership.sum(axis=1)) - membership @ membership.T
        free_energy[1:] += np.linalg.solve(curvature[1:, 1:], (counts - membership.sum(axis=1))[1:])
    return np.asarray(density)
