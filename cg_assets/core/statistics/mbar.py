"""Free energies of states from samples of all of them by MBAR, and whether the samples determine them.

MBAR (Shirts and Chodera, J. Chem. Phys. 129, 124105 (2008)) gives some number for any samples, also for states that
share none. What two groups of states have in common is Σ q (1 - q), q being the probability that a sample came from the
first; one over it is the squared error of the free energy between them where they share little (Bennett, J. Comput.
Phys. 22, 245 (1976)).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.statistics.estimates import autocorrelation_time

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

LEAST_COMMON = 5.0
"""Independent samples that states must have in common to touch; the free energy between them then errs by 0.45 kT."""
_ITERATIONS = 200
"""Ten times what states that touch need; others would take minutes to end at nothing."""
_CONVERGED = 1e-4
"""Part of a state's samples by which the equations of MBAR may be missed."""


@dataclass(frozen=True)
class StateMixture:
    """Samples of several states, and the free energies that they give.

    Attributes:
        free_energy: `(n_states,)` reduced free energies; those of states that do not touch mean nothing.
        log_density: `(n_samples,)` logarithm of the density of all samples together, but for a constant.
        membership: `(n_states, n_samples)` probability that each sample came from each state.
        state: `(n_samples,)` state that each sample came from.
        distance: `(n_states, n_states)` symmetrised relative entropy of two states [kT], large where they share
            nothing; nan of states without samples.
    """

    free_energy: FloatArray
    log_density: FloatArray
    membership: FloatArray
    state: IntArray
    distance: FloatArray

    @classmethod
    def of(cls, reduced: FloatArray, state: IntArray, guess: FloatArray | None = None) -> StateMixture:
        """Solve the equations of MBAR.

        Args:
            reduced: `(n_states, n_samples)` energy of each sample in each state [kT of the state].
            state: `(n_samples,)` state that each sample came from.
            guess: `(n_states,)` free energies to begin with.
        """
        counts = np.bincount(state, minlength=len(reduced))
        free_energy = np.zeros(len(reduced))
        if np.count_nonzero(counts) > 1:
            order = np.argsort(state, kind="stable")
            free_energy = _solve(reduced[:, order], counts, guess)
        parts, log_density = densities(reduced, counts, free_energy)
        with np.errstate(invalid="ignore"):
            mean = np.stack([np.bincount(state, row, minlength=len(reduced)) for row in reduced]) / counts
        raised = mean - np.diag(mean)
        return cls(free_energy, log_density, np.exp(parts - log_density), state, raised + raised.T)

    @property
    def counts(self) -> IntArray:
        """Samples `(n_states,)` of each state."""
        return np.bincount(self.state, minlength=len(self.free_energy))

    @property
    def converged(self) -> bool:
        """Whether the equations hold: each state is credited with as many samples as it gave."""
        missed = np.abs(self.membership.sum(axis=1) - self.counts)
        return bool(np.all(missed <= _CONVERGED * np.maximum(self.counts, 1)))

    def common(self, run: NDArray[np.integer], time: FloatArray) -> FloatArray:
        """Independent samples `(n_states, n_states)` that each two states have in common.

        Samples are correlated as is the probability that they came from their own state: many that a single excursion
        left in the range of another state are worth one.

        Args:
            run: `(n_samples,)` integers, the independent run that each sample is of.
            time: `(n_samples,)` time within the run.
        """
        own = self.membership[self.state, np.arange(len(self.state))]
        order = np.lexsort((time, run, self.state))
        breaks = np.flatnonzero(np.diff(self.state[order]) | np.diff(run[order])) + 1
        inefficiency = 2.0 * autocorrelation_time(np.split(own[order], breaks))
        return self.membership @ self.membership.T / inefficiency

    def groups(self, common: FloatArray) -> list[list[int]]:
        """Groups of states that touch no other, grown by joining the two that have most in common.

        States without samples belong to none.
        """
        groups = [[int(number)] for number in np.flatnonzero(self.counts)]
        while len(groups) > 1:
            shared = np.array([[common[np.ix_(one, two)].sum() for two in groups] for one in groups])
            np.fill_diagonal(shared, -1.0)
            first, second = sorted(map(int, np.unravel_index(int(shared.argmax()), shared.shape)))
            if shared[first, second] < LEAST_COMMON:
                break
            groups[first] += groups.pop(second)
        return groups

    def gaps(self, common: FloatArray) -> list[Gap]:
        """Between each group and the nearest state outside it; none where all states touch."""
        found, groups = [], self.groups(common)
        group_of = {number: group for group in groups for number in group}
        for group in groups if len(groups) > 1 else []:
            outside = [number for other in groups if other is not group for number in other]
            apart = self.distance[np.ix_(group, outside)]
            row, column = np.unravel_index(int(apart.argmin()), apart.shape)
            nearest = outside[int(column)]
            found.append(Gap(group[int(row)], nearest, float(common[np.ix_(group, group_of[nearest])].sum())))
        return found


@dataclass(frozen=True)
class Gap:
    """The nearest two states of groups that do not touch, and the independent samples that the groups share."""

    inside: int
    outside: int
    common: float


def gap_fault(gaps: Sequence[Gap], names: Sequence[str]) -> str:
    """Which states do not touch, in a sentence without its end; empty where all do."""
    pairs = {tuple(sorted((gap.inside, gap.outside))): gap.common for gap in gaps}
    shown = [
        f"{names[one]} and {names[two]} have {common:.2g} independent samples in common, {LEAST_COMMON:g} are needed"
        for (one, two), common in sorted(pairs.items())[:3]
    ]
    more = [f"{len(pairs) - len(shown)} more"] if len(pairs) > len(shown) else []
    return "; ".join([*shown, *more])


def _solve(reduced: FloatArray, counts: IntArray, guess: FloatArray | None) -> FloatArray:
    # It advertises another package and reports each solver that it tries; `converged` and `gaps` judge the outcome.
    logging.getLogger("pymbar").setLevel(logging.ERROR)
    from pymbar import MBAR

    found = MBAR(reduced, counts, initial_f_k=guess, maximum_iterations=_ITERATIONS)
    return np.asarray(found.f_k, dtype=np.float64)


def densities(reduced: FloatArray, counts: IntArray, free_energy: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Logarithms of the density `(n_states, n_samples)` of the samples of each state, and `(n_samples,)` of all.

    Args:
        reduced: `(n_states, n_samples)` energy of each sample in each state [kT of the state].
        counts: `(n_states,)` samples of each state.
        free_energy: `(n_states,)` reduced free energies.
    """
    with np.errstate(divide="ignore"):
        parts = np.log(counts)[:, None] + free_energy[:, None] - reduced
    return parts, np.logaddexp.reduce(parts, axis=0)
