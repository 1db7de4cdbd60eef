"""Thermal response targets: mean forces and their derivatives in temperature, at fixed beads, with their errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.checks import absurd

FloatArray = NDArray[np.float64]

UNITS = {
    "positions": "nm",
    "box": "nm",
    "temperature": "K",
    "origin_temperature": "K",
    "forces": "kJ/mol/nm",
    "forces_error": "kJ/mol/nm",
    "first_order": "kJ/mol/nm/K",
    "first_order_error": "kJ/mol/nm/K",
    "second_order": "kJ/mol/nm/K^2",
    "second_order_error": "kJ/mol/nm/K^2",
    "mean_energy": "kJ/mol",
    "mean_energy_error": "kJ/mol",
    "heat_capacity": "kJ/mol/K",
    "heat_capacity_error": "kJ/mol/K",
}
"""Unit of each column of a table of targets."""


@dataclass(frozen=True)
class ThermalTargets:
    """What a temperature-dependent potential of beads is trained on; a row is a CG frame at a temperature.

    F(R, T) = <f>_R is the mean force on the beads over p(r | R; T), the atoms at fixed beads; F_1 = dF/dT and
    F_2 = d²F/dT² are its derivatives at constant volume. Every number has its standard error, those of one CG frame
    are correlated: its rows come from the same samples. A number that is not known has an infinite error.

    Attributes:
        positions: `(n_rows, n_beads, d)` beads [nm]; in reduced units where they are CG coordinates of a model
            potential, and so are all others.
        box: `(n_rows, 3)` edges of the periodic box [nm]; inf where there is none.
        temperature: `(n_rows,)` T [K].
        frame: `(n_rows,)` number of the CG frame, the same at each of its temperatures.
        origin_temperature: `(n_rows,)` temperature of the run that the CG frame came from [K].
        forces: `(n_rows, n_beads, d)` F [kJ/mol/nm].
        forces_error: their standard errors, same shape and unit.
        first_order: `(n_rows, n_beads, d)` F_1 = dF/dT [kJ/mol/nm/K].
        first_order_error: their standard errors.
        second_order: `(n_rows, n_beads, d)` F_2 = d²F/dT² [kJ/mol/nm/K²].
        second_order_error: their standard errors.
        mean_energy: `(n_rows,)` <u>_R, mean potential energy of the atoms at fixed beads [kJ/mol].
        mean_energy_error: its standard error.
        heat_capacity: `(n_rows,)` C_W = Var(u|R)/(kT²) = d<u>_R/dT at fixed beads [kJ/mol/K].
        heat_capacity_error: its standard error.
    """

    positions: FloatArray
    box: FloatArray
    temperature: FloatArray
    frame: NDArray[np.int64]
    origin_temperature: FloatArray
    forces: FloatArray
    forces_error: FloatArray
    first_order: FloatArray
    first_order_error: FloatArray
    second_order: FloatArray
    second_order_error: FloatArray
    mean_energy: FloatArray
    mean_energy_error: FloatArray
    heat_capacity: FloatArray
    heat_capacity_error: FloatArray

    def __post_init__(self) -> None:
        """Refuse shapes that do not agree, numbers that are not finite or absurd, and errors below zero.

        Raises:
            ValueError: one of these; the message names the array.
        """
        if np.ndim(self.positions) != 3:
            raise ValueError(f"positions must have shape (n_rows, n_beads, d), not {np.shape(self.positions)}")
        rows = len(self.positions)
        vectors = {"positions", "forces", "first_order", "second_order"}
        for name, values in self._arrays().items():
            shape: tuple[int, ...] = (rows,)
            if name.removesuffix("_error") in vectors:
                shape = self.positions.shape
            elif name == "box":
                shape = (rows, 3)
            if np.shape(values) != shape:
                raise ValueError(f"{name} must have shape {shape}, not {np.shape(values)}")
            error = name.endswith("_error")
            largest = np.abs(values).reshape(rows, -1).max(axis=1, initial=0.0)
            wrong = np.isnan(largest) if error else absurd(largest) if name in vectors else ~np.isfinite(largest)
            if name != "box" and wrong.any():
                row = int(np.flatnonzero(wrong)[0])
                raise ValueError(
                    f"{name} of CG frame {self.frame[row]} at {self.temperature[row]:g} K (row {row}) is "
                    f"{largest[row]:.4g}; leave out rows that are not known"
                )
            if name in {"box", "temperature", "origin_temperature"} and not np.all(values > 0):
                raise ValueError(f"{name} must be above 0 everywhere")
            if error and np.any(values < 0):
                raise ValueError(f"{name} must be at least 0 everywhere")

    def _arrays(self) -> dict[str, NDArray]:
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.positions)

    @property
    def edges(self) -> FloatArray | None:
        """The boxes; None where there are none."""
        return None if np.isinf(self.box).all() else self.box

    @property
    def force_noise(self) -> FloatArray:
        """Mean squared error of a force component of each row, `(n_rows,)` [force unit]^2."""
        return (self.forces_error**2).mean(axis=(1, 2))

    @property
    def n_beads(self) -> int:
        """Number of beads."""
        return self.positions.shape[1]

    def select(self, index: NDArray) -> ThermalTargets:
        """The rows picked by an index or boolean mask, in that order."""
        return ThermalTargets(**{name: values[index] for name, values in self._arrays().items()})

    @staticmethod
    def concatenate(parts: Sequence[ThermalTargets]) -> ThermalTargets:
        """Join rows of the same beads; frames are numbered on, so that those of different parts stay apart.

        Raises:
            ValueError: there is no part, or they differ in their beads.
        """
        if not parts:
            raise ValueError("no targets to join")
        joined = {
            name: np.concatenate([part._arrays()[name] for part in parts])
            for name in parts[0]._arrays()
            if name != "frame"
        }
        numbers, first = [], 0
        for part in parts:
            numbers.append(part.frame + first)
            first += int(part.frame.max()) + 1 if len(part) else 0
        return ThermalTargets(**joined, frame=np.concatenate(numbers))

    def columns(self) -> dict[str, NDArray]:
        """The arrays as columns of a table, in the order of the attributes; `UNITS` are their units."""
        return self._arrays()

    @classmethod
    def from_columns(cls, columns: Mapping[str, ArrayLike]) -> ThermalTargets:
        """The targets that `columns` gave, in double precision; further columns are left out.

        Raises:
            ValueError: a column is missing or has the wrong shape.
        """
        names = [item.name for item in fields(cls)]
        if missing := [name for name in names if name not in columns]:
            raise ValueError(f"thermal response targets lack the columns {', '.join(missing)}")
        arrays: dict[str, Any] = {
            name: np.asarray(columns[name], np.int64 if name == "frame" else np.float64) for name in names
        }
        return cls(**arrays)
