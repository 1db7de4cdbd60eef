"""Energy of pairs of beads by a table of their distance and a repulsion, eight pairs at once in double precision."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cg_assets.potentials.thermal.neighbours import compiled, inverse

PAIRS = 64
"""Pairs evaluated together, in rows of one array, at constant distances, so that LLVM sees that they do not overlap."""
PRIOR_REACH = 0.13
"""Distance beyond the beginning of the data from which on the prior is zero, 5e-12 of what it was there [nm]."""

_X, _Y, _Z, _DISTANCE, _BEYOND, _ROW, _PART, _WHOLE, _REST, _TERMS = (row * PAIRS for row in range(10))
_ROWS = 13
_LN_2, _PER_LN_2 = math.log(2.0), 1.0 / math.log(2.0)
_LEAST, _MOST = -65.0, 1023.0
_POWERS = np.append(0.0, 2.0 ** np.arange(_LEAST + 1.0, _MOST + 1.0))


class PairEnergy(NamedTuple):
    """What pairs pull alone.

    Attributes:
        table: `(m, 4)` polynomials between even distances, linear before the first and 0 after the last; may be empty.
        ends: least distance and cutoff of the table, 0 where there is none [nm].
        prior: height [kJ/mol], rate [1/nm] and begin [nm] of the repulsion.
        prior_cutoff: where the repulsion ends [nm].
    """

    table: NDArray[np.float64]
    ends: NDArray[np.float64]
    prior: NDArray[np.float64]
    prior_cutoff: float

    @property
    def cutoff(self) -> float:
        """Where all ends [nm]."""
        return max(float(self.ends[1]), self.prior_cutoff)


def pair_energy(
    prior: NDArray[np.float64],
    cutoff: float,
    table: NDArray[np.float64] | None = None,
    ends: tuple[float, float] = (0.0, 0.0),
) -> PairEnergy:
    """See `PairEnergy`; `cutoff` of the potential, beyond which there is no prior."""
    polynomials = np.zeros((0, 4)) if table is None else table
    return PairEnergy(polynomials, np.array(ends), prior, min(float(prior[2]) + PRIOR_REACH, cutoff))


@compiled
def pull_pairs(place: Any, pairs: Any, box: Any, alone: Any, forces: Any) -> Any:
    """Energy of pairs `(m, 2)` of positions `(n, 3)`; forces are added."""
    energy, values = 0.0, np.empty(_ROWS * PAIRS)
    for start in range(0, len(pairs), PAIRS):
        count = min(PAIRS, len(pairs) - start)
        for pair in range(count):
            i, j = pairs[start + pair, 0], pairs[start + pair, 1]
            values[_X + pair] = place[i, 0] - place[j, 0]
            values[_Y + pair] = place[i, 1] - place[j, 1]
            values[_Z + pair] = place[i, 2] - place[j, 2]
        energy += _pull(values, box, alone, count)
        _add(values, pairs, start, count, forces)
    return energy


@compiled
def _add(values: Any, pairs: Any, start: Any, count: Any, forces: Any) -> None:
    """Add what so many pairs pull to the forces; those of a bead follow each other."""
    one, x, y, z = pairs[start, 0], 0.0, 0.0, 0.0
    for pair in range(count):
        i, j = pairs[start + pair, 0], pairs[start + pair, 1]
        if i != one:
            forces[one, 0] -= x
            forces[one, 1] -= y
            forces[one, 2] -= z
            one, x, y, z = i, 0.0, 0.0, 0.0
        x += values[_X + pair]
        y += values[_Y + pair]
        z += values[_Z + pair]
        forces[j, 0] += values[_X + pair]
        forces[j, 1] += values[_Y + pair]
        forces[j, 2] += values[_Z + pair]
    forces[one, 0] -= x
    forces[one, 1] -= y
    forces[one, 2] -= z


@compiled
def _pull(values: Any, box: Any, alone: Any, count: Any) -> Any:
    """Energy of so many pairs, whose differences become what they pull; loops are without branches."""
    table, last, energy = alone.table, len(alone.table) - 1.0, 0.0
    low, cutoff, reach = alone.ends[0], alone.ends[1], alone.prior_cutoff
    height, rate, begins = alone.prior[0], alone.prior[1], alone.prior[2]
    per_step = len(table) / (cutoff - low) if cutoff > low else 0.0
    box_x, box_y, box_z = box[0], box[1], box[2]
    per_x, per_y, per_z = inverse(box_x), inverse(box_y), inverse(box_z)
    for pair in range(count):
        x, y, z = values[_X + pair], values[_Y + pair], values[_Z + pair]
        x -= box_x * np.rint(x * per_x)
        y -= box_y * np.rint(y * per_y)
        z -= box_z * np.rint(z * per_z)
        distance = math.sqrt(x * x + y * y + z * z)
        inside = min(max(distance, low), cutoff)
        part = (inside - low) * per_step
        row = max(min(np.floor(part), last), 0.0)
        power = rate * (begins - distance)
        whole = min(max(np.rint(power * _PER_LN_2), _LEAST), _MOST)
        values[_X + pair], values[_Y + pair], values[_Z + pair] = x, y, z
        values[_DISTANCE + pair], values[_BEYOND + pair] = distance, distance - inside
        values[_ROW + pair], values[_PART + pair] = row, part - row
        values[_WHOLE + pair] = whole - _LEAST if distance < reach else 0.0
        values[_REST + pair] = min(max(power - whole * _LN_2, -1.0), 1.0)
    for pair in range(count):
        values[_WHOLE + pair] = _POWERS[int(values[_WHOLE + pair])]
        row = int(values[_ROW + pair])
        for order in range(4):
            values[_TERMS + order * PAIRS + pair] = table[row, order] if last >= 0.0 else 0.0
    for pair in range(count):
        part, distance, first = values[_PART + pair], values[_DISTANCE + pair], values[_TERMS + PAIRS + pair]
        second, third = values[_TERMS + 2 * PAIRS + pair], values[_TERMS + 3 * PAIRS + pair]
        slope = (first + part * (2.0 * second + 3.0 * part * third)) * per_step
        value = values[_TERMS + pair] + part * (first + part * (second + part * third))
        repulsion = height * values[_WHOLE + pair] * _exponential(values[_REST + pair])
        energy += value + slope * values[_BEYOND + pair] + repulsion
        strength = (slope - rate * repulsion) / distance
        values[_X + pair] *= strength
        values[_Y + pair] *= strength
        values[_Z + pair] *= strength
    return energy


@compiled
def _exponential(x: Any) -> Any:
    """e^x between -1/2 and 1/2 by its Taylor series, to rounding."""
    value = 1.0 / 479001600.0
    value = value * x + 1.0 / 39916800.0
    value = value * x + 1.0 / 3628800.0
    value = value * x + 1.0 / 362880.0
    value = value * x + 1.0 / 40320.0
    value = value * x + 1.0 / 5040.0
    value = value * x + 1.0 / 720.0
    value = value * x + 1.0 / 120.0
    value = value * x + 1.0 / 24.0
    value = value * x + 1.0 / 6.0
    value = value * x + 0.5
    return (value * x + 1.0) * x + 1.0
