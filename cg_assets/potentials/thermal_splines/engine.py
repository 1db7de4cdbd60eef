"""Splines at one temperature, compiled, with neighbour lists: the fast way to simulate a liquid on a CPU.

The same energy and forces as `SplinePotential` gives (tests hold both together); at one temperature its terms are one
set of coefficients. Pairs are evaluated one by one in double precision, triples of sixteen beads side by side in single
precision (`cg_assets.potentials.lanes`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from cg_assets.potentials.lanes import (
    LANES,
    TILE,
    clear,
    compiled,
    exponential,
    get,
    increase,
    larger,
    put,
    spread,
    square_root,
    whole,
    with_sign,
)
from cg_assets.potentials.thermal.engine import ListEngine, moved, pushed
from cg_assets.potentials.thermal.near import ROWS, gather, give, room, take
from cg_assets.potentials.thermal.pairs_alone import pair_energy, pull_pairs
from cg_assets.potentials.thermal_splines.module import FADE, SplinePotential

_f = np.float32
_ZERO, _HALF, _ONE, _TWO, _FOUR, _SIXTH = _f(0.0), _f(0.5), _f(1.0), _f(2.0), _f(4.0), _f(1.0 / 6.0)
_FADE, _PER_FADE = _f(FADE), _f(1.0 / FADE)
_PIECES = np.array([[1, -3, 3, -1], [4, 0, -6, 3], [1, 3, 3, -3], [0, 0, 0, 1]]) / 6.0
"""Powers (columns) of the four B-splines between two nodes."""


class _Triples(NamedTuple):
    """What triples are evaluated with.

    Attributes:
        products: `(a, b, m)` coefficients of products of moments, with multinomials; moments padded to whole tiles.
        alone: `(a, b)` coefficients of a neighbour with itself, which are no triples.
        parents: `(m - 1, 2)` of each monomial but the first the one that it is a multiple of, and of which component.
        raised: `(3, l)` the monomials whose slopes by a component are multiples of each of the first l monomials.
        factors: `(3, l)` which multiples.
        low: least distance [nm].
        step: of the nodes [nm].
    """

    products: NDArray[np.float32]
    alone: NDArray[np.float32]
    parents: NDArray[np.int64]
    raised: NDArray[np.int64]
    factors: NDArray[np.float32]
    low: np.float32
    step: np.float32


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
        pair = np.append(coefficients[1 : 1 + module.pair_functions], np.zeros(3))
        table = np.lib.stride_tricks.sliding_window_view(pair, 4) @ _PIECES
        alone = pair_energy(self.prior, module.cutoff, table, (float(module.low), module.pair_cutoff))
        self._surround(np.zeros(module.n_beads, np.int64), module.triple_cutoff, alone)
        self.data = _triples(module, coefficients[1 + module.pair_functions :])
        self.evaluate, self.loop = _evaluate, _loop


def _triples(module: SplinePotential, coefficients: NDArray[np.float64]) -> _Triples:
    """Of the coefficients of triples."""
    count, degree = module.triple_functions, module.degree
    matrices = np.zeros((count, count, degree + 1))
    of_powers = coefficients.reshape(-1, degree + 1) @ module.legendre.cpu().numpy()
    for (a, b), row in zip(module.couples, of_powers, strict=True):
        matrices[a, b] += 0.5 * row
        matrices[b, a] += 0.5 * row
    of_moments = matrices[:, :, module.degrees.cpu().numpy()] * module.multinomials.cpu().numpy()
    powers = [tuple(row) for row in module.powers.tolist()]
    number = {row: index for index, row in enumerate(powers)}

    def lowered(row: tuple[int, ...], axis: int) -> int:
        return number[tuple(p - (k == axis) for k, p in enumerate(row))]

    low = [row for row in powers if sum(row) < degree]
    raised = [[tuple(p + (k == axis) for k, p in enumerate(row)) for row in low] for axis in range(3)]
    axes = [next(axis for axis in range(3) if row[axis]) for row in powers[1:]]
    parents = [(lowered(row, axis), axis) for row, axis in zip(powers[1:], axes, strict=True)]
    return _Triples(
        products=np.pad(of_moments, ((0, 0), (0, 0), (0, whole(len(powers)) - len(powers)))).astype(np.float32),
        alone=matrices.sum(axis=2).astype(np.float32),
        parents=np.array(parents, np.int64).reshape(-1, 2),
        raised=np.array([[number[row] for row in rows] for rows in raised], np.int64).reshape(3, -1),
        factors=np.array([[row[axis] for row in raised[axis]] for axis in range(3)], np.float32).reshape(3, -1),
        low=_f(module.low_triple),
        step=_f((module.triple_cutoff - float(module.low_triple)) / max(count, 1)),
    )


@compiled
def _loop(motion: Any, noise: Any, lists: Any, around: Any, triples: Any) -> Any:
    """See `ListEngine.advance`."""
    pull, energy = np.empty(lists.place.shape), 0.0
    for step in range(len(noise)):
        lists = moved(motion, noise[step], lists, around.box)
        pull[:] = 0.0
        energy = _evaluate(lists, around, triples, pull)
        energy = pushed(motion, lists.place, energy, pull)
    return energy, lists


@compiled
def _evaluate(lists: Any, around: Any, triples: Any, forces: Any) -> Any:
    """Energy without the constant; forces are added."""
    near = room(lists.starts, 1)
    energy = pull_pairs(lists.place, lists.pairs, around.box, around.alone, forces)
    (functions, _, moments), most = triples.products.shape, len(near.others)
    values, slopes = np.empty((2, most * functions, LANES), np.float32)
    angular, combined = np.empty((most * moments, LANES), np.float32), np.empty((moments, LANES), np.float32)
    total, turned = np.empty((2, functions * moments, LANES), np.float32)
    pulls, inner = np.empty((3, LANES), np.float32), np.empty((functions, LANES), np.float32)
    for block in range(-(-len(forces) // LANES)):
        gather(lists, around, block, near)
        rows, steps = near.rows, near.firsts[1]
        if steps < 1:
            continue
        for step in range(steps):
            _enter(rows, step, triples, values, slopes, angular)
        _sum(steps, functions, values, angular, total)
        energies = _turn(triples, total, turned)
        x = y = z = spread(_ZERO)
        for step in range(steps):
            radial = _combine(step, turned, values, slopes, angular, combined, inner)
            own, fall = _alone(step, triples.alone, values, slopes)
            energies = energies - own
            _pull(rows, step, triples, radial - fall, angular, combined, pulls)
            x, y, z = x + get(pulls, 0), y + get(pulls, 1), z + get(pulls, 2)
            give(near, step, pulls, forces)
        put(pulls, 0, energies)
        for lane in range(min(LANES, len(forces) - block * LANES)):
            energy += pulls[0, lane]
        put(pulls, 0, x)
        put(pulls, 1, y)
        put(pulls, 2, z)
        take(block, pulls, forces)
    return energy


@compiled
def _enter(rows: Any, step: Any, triples: Any, values: Any, slopes: Any, angular: Any) -> None:
    """B-splines with their slopes and monomials of the neighbours of a step, whose differences become unit vectors."""
    row, functions, moments = ROWS * step, len(triples.alone), triples.products.shape[2]
    x, y, z = get(rows, row), get(rows, row + 1), get(rows, row + 2)
    length = square_root(x * x + y * y + z * z)
    inverse, per_step = _ONE / length, _ONE / triples.step
    put(rows, row, x * inverse)
    put(rows, row + 1, y * inverse)
    put(rows, row + 2, z * inverse)
    put(rows, row + 3, inverse)
    within = larger(length, spread(triples.low))
    place, fade = (within - triples.low) * per_step + _ONE, exponential((length - within) * _PER_FADE)
    reach = (fade - _ONE) * _FADE
    for a in range(functions):
        away = place - _f(a)
        size = larger(away, _ZERO - away)
        outer, inner = larger(_TWO - size, spread(_ZERO)), larger(_ONE - size, spread(_ZERO))
        outer_square, inner_square = outer * outer, inner * inner * _FOUR
        slope = with_sign(spread(_HALF * per_step), away) * (inner_square - outer_square)
        put(slopes, step * functions + a, slope * fade)
        put(values, step * functions + a, (outer_square * outer - inner_square * inner) * _SIXTH + slope * reach)
    start = step * moments
    put(angular, start, spread(_ONE))
    for m in range(len(triples.parents)):
        parent, axis = triples.parents[m]
        put(angular, start + 1 + m, get(angular, start + parent) * get(rows, row + axis))
    clear(angular, start + 1 + len(triples.parents), moments - 1 - len(triples.parents))


@compiled
def _sum(steps: Any, functions: Any, values: Any, angular: Any, total: Any) -> None:
    """Moments: each spline times each monomial over all steps, a tile of them at once."""
    moments = len(total) // functions
    for a in range(functions):
        for m in range(0, moments, TILE):
            one = two = three = four = spread(_ZERO)
            for step in range(steps):
                value, row = get(values, step * functions + a), step * moments + m
                one = one + get(angular, row) * value
                two = two + get(angular, row + 1) * value
                three = three + get(angular, row + 2) * value
                four = four + get(angular, row + 3) * value
            row = a * moments + m
            put(total, row, one)
            put(total, row + 1, two)
            put(total, row + 2, three)
            put(total, row + 3, four)


@compiled
def _turn(triples: Any, total: Any, turned: Any) -> Any:
    """Derivatives of the energy by moments; gives the energy."""
    functions, _, moments = triples.products.shape
    energies = spread(_ZERO)
    for a in range(functions):
        for m in range(moments):
            uphill = spread(_ZERO)
            for b in range(functions):
                uphill = uphill + get(total, b * moments + m) * triples.products[a, b, m]
            put(turned, a * moments + m, uphill)
            energies = energies + uphill * get(total, a * moments + m) * _HALF
    return energies


@compiled
def _combine(step: Any, turned: Any, values: Any, slopes: Any, angular: Any, combined: Any, inner: Any) -> Any:
    """Derivatives by the monomials of a step, into `combined`, a tile of them at once, and by its distances."""
    functions, moments = len(inner), len(combined)
    clear(inner, 0, functions)
    for m in range(0, moments, TILE):
        start = step * moments + m
        of_one, of_two, of_three, of_four = (
            get(angular, start),
            get(angular, start + 1),
            get(angular, start + 2),
            get(angular, start + 3),
        )
        one = two = three = four = spread(_ZERO)
        for a in range(functions):
            value, row = get(values, step * functions + a), a * moments + m
            first, second, third, fourth = (
                get(turned, row),
                get(turned, row + 1),
                get(turned, row + 2),
                get(turned, row + 3),
            )
            one, two = one + first * value, two + second * value
            three, four = three + third * value, four + fourth * value
            increase(inner, a, first * of_one + second * of_two + third * of_three + fourth * of_four)
        put(combined, m, one)
        put(combined, m + 1, two)
        put(combined, m + 2, three)
        put(combined, m + 3, four)
    radial = spread(_ZERO)
    for a in range(functions):
        radial = radial + get(inner, a) * get(slopes, step * functions + a)
    return radial


@compiled
def _alone(step: Any, alone: Any, values: Any, slopes: Any) -> Any:
    """Energy of neighbours with themselves and its slope."""
    start = step * len(alone)
    own = fall = spread(_ZERO)
    for a in range(len(alone)):
        weight = spread(_ZERO)
        for b in range(len(alone)):
            weight = weight + get(values, start + b) * alone[a, b]
        own = own + weight * get(values, start + a) * _HALF
        fall = fall + weight * get(slopes, start + a)
    return own, fall


@compiled
def _pull(rows: Any, step: Any, triples: Any, radial: Any, angular: Any, combined: Any, pulls: Any) -> None:
    """Forces of a step, into `pulls`."""
    row, start, along = ROWS * step, step * (len(combined)), spread(_ZERO)
    for axis in range(3):
        turn = spread(_ZERO)
        for m in range(triples.raised.shape[1]):
            uphill = get(combined, triples.raised[axis, m]) * triples.factors[axis, m]
            turn = turn + uphill * get(angular, start + m)
        put(pulls, axis, turn)
        along = along + turn * get(rows, row + axis)
    inverse = get(rows, row + 3)
    radial = radial - along * inverse
    for axis in range(3):
        put(pulls, axis, radial * get(rows, row + axis) + get(pulls, axis) * inverse)
