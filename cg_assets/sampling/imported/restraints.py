"""Harmonic restraints of umbrella windows, recognised by the energies that COLVAR holds at the places of its lines."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.geometry import within_half_turn

FloatArray = NDArray[np.float64]

_MOST_LINES, _MOST_VARIABLES = 2000, 3
_EXACT, _PART = 1e-4, 0.01
"""Misfit of a restraint [kT], or as a part of the scatter of its energy, that numbers of few decimals explain."""
_TURN = 2 * math.pi


@dataclass(frozen=True)
class Restraint:
    """The sum of k/2 (x - c)² over the variables that it holds, and a constant.

    Attributes:
        center: c of each variable.
        constant: k of each [kJ/mol/unit²].
        offset: what the energy holds besides, of a restraint with a slope [kJ/mol].
    """

    center: dict[str, float]
    constant: dict[str, float]
    offset: float

    def __str__(self) -> str:
        """Its centres and constants."""
        held = [f"{name} {value:.4g} (k {self.constant[name]:.4g})" for name, value in self.center.items()]
        return ", ".join(held) or "no restraint"

    def same(self, other: Restraint, angles: Collection[str], kt: float) -> bool:
        """Whether both are one but for their decimals: constants within 1 %, centres within 2 % of the width.

        Args:
            other: the other one.
            angles: variables of period 2 pi.
            kt: thermal energy [kJ/mol].
        """
        if self.center.keys() != other.center.keys():
            return False
        steps = {name: value - other.center[name] for name, value in self.center.items()}
        apart = [abs(math.remainder(step, _TURN) if name in angles else step) for name, step in steps.items()]
        near = [
            0.02 * math.sqrt(kt / k) >= gap and math.isclose(k, other.constant[name], rel_tol=0.01)
            for gap, (name, k) in zip(apart, self.constant.items(), strict=True)
        ]
        return all(near)


def fitted_restraint(
    places: Mapping[str, FloatArray], angles: Sequence[str], energy: FloatArray, kt: float
) -> Restraint | None:
    """The restraint of the fewest variables, earlier ones first, that gives the energies; None where none does.

    Args:
        places: `(n,)` of each variable.
        angles: variables of period 2 pi.
        energy: `(n,)` [kJ/mol].
        kt: thermal energy [kJ/mol].
    """
    every = -(-len(energy) // _MOST_LINES)
    energy, places = energy[::every], {name: values[::every] for name, values in places.items()}
    allowed = max(_EXACT * kt, _PART * float(energy.std()))
    for size in range(min(_MOST_VARIABLES, len(places)) + 1):
        for names in combinations(places, size):
            found, misfit = _fit({name: places[name] for name in names}, angles, energy)
            if misfit <= (allowed if size else _EXACT * kt) and all(k > 0.0 for k in found.constant.values()):
                return found
    return None


def _fit(places: Mapping[str, FloatArray], angles: Sequence[str], energy: FloatArray) -> tuple[Restraint, float]:
    """The parabola of least squares, and its root mean square misfit [kJ/mol]."""
    near = {name: values[int(energy.argmin())] for name, values in places.items()}
    for _ in range(3):  # the nearest images are those at the centre, which the first fit finds
        away = {
            name: within_half_turn(values - near[name]) if name in angles else values - near[name]
            for name, values in places.items()
        }
        columns = [column for values in away.values() for column in (0.5 * values**2, values)]
        design = np.stack([np.ones_like(energy), *columns], axis=1)
        solution = np.linalg.lstsq(design, energy, rcond=None)[0]
        constant = dict(zip(places, solution[1::2].tolist(), strict=True))
        pull = dict(zip(places, solution[2::2].tolist(), strict=True))
        center = {name: near[name] - pull[name] / k if k > 0.0 else near[name] for name, k in constant.items()}
        near = dict(center)
    offset = float(solution[0]) - sum(0.5 * pull[name] ** 2 / k for name, k in constant.items() if k > 0.0)
    center = {name: math.remainder(value, _TURN) if name in angles else float(value) for name, value in center.items()}
    return Restraint(center, constant, offset), float(np.sqrt(np.mean((design @ solution - energy) ** 2)))
