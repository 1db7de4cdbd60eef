"""Splines at one temperature, compiled, with neighbour lists: the fast way to simulate a liquid on a CPU.

The same energy and forces as `SplinePotential` gives (tests hold both together); at one temperature its terms are one
set of coefficients. Neighbours are listed up to the cutoff and a skin, and again when a bead has moved half of it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from cg_assets.potentials.thermal.engine import ListEngine
from cg_assets.potentials.thermal.neighbours import compiled, separation
from cg_assets.potentials.thermal_splines.module import SplinePotential

PRIOR_REACH = 0.2
"""Distance beyond the beginning of the data from which on the prior is zero [nm]."""


class SplineEngine(ListEngine):
    """Energy and forces of `SplinePotential` at one temperature."""

    def __init__(self, module: SplinePotential, temperature: float, box: ArrayLike | None) -> None:
        """Read the coefficients at a temperature.

        Args:
            module: the potential.
            temperature: [K].
            box: edges `(3,)` of the periodic box [nm], or None.

        Raises:
            ValueError: the temperature is not positive or the cutoff beyond half the box.
        """
        super().__init__(module, temperature, box)
        weights = module.dependence.coefficients(torch.tensor([temperature]))[0, 0].numpy()
        coefficients = weights @ module.coefficients.cpu().numpy()
        self.constant = float(module.n_beads * coefficients[0])
        self.pair = coefficients[1 : 1 + module.pair_functions].copy()
        count, degree = module.triple_functions, module.degree
        matrices = np.zeros((count, count, degree + 1))
        of_powers = coefficients[1 + module.pair_functions :].reshape(-1, degree + 1) @ module.legendre.cpu().numpy()
        for (a, b), row in zip(module.couples, of_powers, strict=True):
            matrices[a, b] += 0.5 * row
            matrices[b, a] += 0.5 * row
        self.alone = matrices.sum(axis=2)
        self.products = matrices[:, :, module.degrees.cpu().numpy()] * module.multinomials.cpu().numpy()
        powers = [tuple(row) for row in module.powers.tolist()]
        number = {row: index for index, row in enumerate(powers)}

        def lowered(row: tuple[int, ...], axis: int) -> int:
            return number[tuple(p - (k == axis) for k, p in enumerate(row))]

        low = [row for row in powers if sum(row) < degree]
        raised = [[tuple(p + (k == axis) for k, p in enumerate(row)) for row in low] for axis in range(3)]
        self.raised = np.array([[number[row] for row in rows] for rows in raised], np.int64).reshape(3, -1)
        self.factors = np.array([[row[axis] for row in raised[axis]] for axis in range(3)], float).reshape(3, -1)
        axes = [next(axis for axis in range(3) if row[axis]) for row in powers[1:]]
        parents = [(lowered(row, axis), axis) for row, axis in zip(powers[1:], axes, strict=True)]
        self.parents = np.array(parents, np.int64).reshape(-1, 2)
        self.low, self.low_triple = float(module.low), float(module.low_triple)
        self.cutoffs = (module.pair_cutoff, module.triple_cutoff)

    def evaluate(
        self,
        place: NDArray[np.float64],
        starts: NDArray[np.int64],
        listed: NDArray[np.int64],
        forces: NDArray[np.float64],
    ) -> float:
        """See the base class."""
        energy = _evaluate(
            place,
            self.neighbours.box,
            starts,
            listed,
            self.pair,
            self.products,
            self.alone,
            self.parents,
            self.raised,
            self.factors,
            np.array([self.low, self.low_triple, *self.cutoffs]),
            self.prior,
            forces,
        )
        return float(self.constant + energy)


@compiled
def _splines(distance: Any, low: Any, cutoff: Any, count: Any, value: Any, slope: Any) -> Any:
    """The four B-splines at a distance and their slopes, into `value` and `slope`; gives the number of the first."""
    step = (cutoff - low) / count
    inside = max(distance, low)
    place = (inside - low) / step
    first = min(int(place), count - 1)
    t = place - first
    s = 1.0 - t
    value[0] = s * s * s / 6.0
    value[1] = (3.0 * t * t * t - 6.0 * t * t + 4.0) / 6.0
    value[2] = (3.0 * s * s * s - 6.0 * s * s + 4.0) / 6.0
    value[3] = t * t * t / 6.0
    slope[0] = -0.5 * s * s / step
    slope[1] = (1.5 * t * t - 2.0 * t) / step
    slope[2] = (2.0 * s - 1.5 * s * s) / step
    slope[3] = 0.5 * t * t / step
    if distance < low:
        for k in range(4):
            value[k] += slope[k] * (distance - low)
    return first


@compiled
def _evaluate(
    positions: Any,
    box: Any,
    starts: Any,
    listed: Any,
    pair: Any,
    products: Any,
    alone: Any,
    parents: Any,
    raised: Any,
    factors: Any,
    ranges: Any,
    prior: Any,
    forces: Any,
) -> Any:
    """Energy of one configuration; forces are added to `forces`.

    One long function: its loops share the moments of a bead, which would otherwise be allocated for every bead.

    Args:
        positions: `(n, 3)`.
        box: edges, 0 where there are none.
        starts: of the lists of neighbours.
        listed: their numbers.
        pair: coefficients of the pair functions.
        products: `(a, b, m)` coefficients of products of moments, with multinomials.
        alone: `(a, b)` coefficients of a neighbour with itself, which are no triples.
        parents: `(m - 1, 2)` of each monomial but the first the one that it is a multiple of, and of which component.
        raised: `(3, l)` the monomials whose slopes by a component are multiples of each of the first l monomials.
        factors: `(3, l)` which multiples.
        ranges: least distances of pairs and triples, cutoffs of pairs and triples.
        prior: height, rate and begin of the repulsion.
        forces: `(n, 3)`.
    """
    low, low_triple, cutoff, triple_cutoff = ranges
    count, functions, moments = len(positions), products.shape[0], products.shape[2]
    most = 0
    for i in range(count):
        most = max(most, starts[i + 1] - starts[i])
    unit, length, other = np.empty((most, 3)), np.empty(most), np.empty(most, np.int64)
    values, slopes, firsts = np.empty((most, 4)), np.empty((most, 4)), np.empty(most, np.int64)
    angular = np.empty((most, moments))
    total, turned = np.empty((functions, moments)), np.empty((functions, moments))
    lower = raised.shape[1]
    uphill, sideways, across = np.empty(moments), np.empty((functions, 3, lower)), np.empty((3, lower))
    gap, value, slope = np.empty(3), np.empty(4), np.empty(4)
    energy = 0.0
    for i in range(count):
        close = 0
        total[:] = 0.0
        for index in range(starts[i], starts[i + 1]):
            j = listed[index]
            square = separation(positions[i], positions[j], box, gap)
            if not square < max(cutoff, triple_cutoff) ** 2:  # nor what is not a number
                continue
            distance = math.sqrt(square)
            if j > i:
                rise = 0.0
                if distance < cutoff:
                    first = _splines(distance, low, cutoff, len(pair), value, slope)
                    for k in range(min(4, len(pair) - first)):
                        energy += pair[first + k] * value[k]
                        rise += pair[first + k] * slope[k]
                if distance < prior[2] + PRIOR_REACH:
                    repulsion = prior[0] * math.exp(prior[1] * (prior[2] - distance))
                    energy += repulsion
                    rise -= prior[1] * repulsion
                for axis in range(3):
                    pull = rise * gap[axis] / distance
                    forces[i, axis] -= pull
                    forces[j, axis] += pull
            if not distance < triple_cutoff:
                continue
            first = _splines(distance, low_triple, triple_cutoff, functions, values[close], slopes[close])
            for axis in range(3):
                unit[close, axis] = gap[axis] / distance
            angular[close, 0] = 1.0
            for m in range(1, moments):
                angular[close, m] = angular[close, parents[m - 1, 0]] * unit[close, parents[m - 1, 1]]
            for k in range(min(4, functions - first)):
                for m in range(moments):
                    total[first + k, m] += values[close, k] * angular[close, m]
            length[close], other[close], firsts[close] = distance, j, first
            close += 1
        if close < 2:
            continue
        turned[:] = 0.0
        for a in range(functions):
            for b in range(functions):
                for m in range(moments):
                    turned[a, m] += products[a, b, m] * total[b, m]
            for m in range(moments):
                energy += 0.5 * turned[a, m] * total[a, m]
            for axis in range(3):
                for m in range(lower):
                    sideways[a, axis, m] = factors[axis, m] * turned[a, raised[axis, m]]
        for index in range(close):
            first, j = firsts[index], other[index]
            active = min(4, functions - first)
            radial = 0.0
            across[:] = 0.0
            uphill[:] = 0.0
            for k in range(active):
                v, s = values[index, k], slopes[index, k]
                for m in range(moments):
                    uphill[m] += s * turned[first + k, m]
                for axis in range(3):
                    for m in range(lower):
                        across[axis, m] += v * sideways[first + k, axis, m]
                for other_k in range(active):
                    weight = alone[first + k, first + other_k]
                    energy -= 0.5 * weight * values[index, k] * values[index, other_k]
                    radial -= weight * slopes[index, k] * values[index, other_k]
            for m in range(moments):
                radial += uphill[m] * angular[index, m]
            along = 0.0
            for axis in range(3):
                turn = 0.0
                for m in range(lower):
                    turn += across[axis, m] * angular[index, m]
                gap[axis] = turn
                along += turn * unit[index, axis]
            for axis in range(3):
                pull = radial * unit[index, axis] + (gap[axis] - along * unit[index, axis]) / length[index]
                forces[i, axis] -= pull
                forces[j, axis] += pull
    return energy
