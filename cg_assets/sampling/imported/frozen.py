"""Biases of imported trajectories that are functions of the collective variables: hills and grids of PLUMED."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from cg_assets.biases.grid import GridBias
from cg_assets.biases.plumed_biases import hills_bias, read_grid_bias, read_hills
from cg_assets.biases.plumed_files import LENGTH_UNITS, TIME_UNITS
from cg_assets.core.errors import SamplingError
from cg_assets.core.settings import Name
from cg_assets.sampling.imported.bias import FloatArray, FrameBias, ImportedBias, Run


@dataclass
class FrozenBias(FrameBias):
    """A bias that is a function of the collective variables; see `FrameBias`."""

    function: GridBias
    paths: list[Path]
    notes: list[str]
    times: Sequence[FloatArray]
    since: float = -math.inf
    windows: Sequence[int] | None = None

    def usable(self, file: int) -> NDArray[np.bool_]:
        """Those from the start on."""
        return self.times[file] >= self.since

    def energy(self, file: int, frames: NDArray[np.int64], variables: Mapping[str, ArrayLike]) -> FloatArray:
        """The function at the collective variables.

        Raises:
            SamplingError: a frame lies beyond the grid.
        """
        outside = self.function.outside(variables)
        if outside is not None and outside.any():
            first = int(np.argmax(outside))
            place = {name: float(np.asarray(variables[name])[first]) for name in self.function.collective_variables}
            raise SamplingError(
                f"imported.bias: frame {frames[first]} of trajectory {file} lies beyond the grid of the bias, at "
                f"{place}; give a wider grid (bias.grid_range of hills), or correct the units"
            )
        return self.function.energy(variables)


class _FunctionBias(ImportedBias):
    variables: dict[str, Name] = Field(default_factory=dict)
    """PLUMED's name of each variable to the system's collective variable, where they differ."""
    length_unit: Literal["nm", "angstrom"] = "nm"
    """That of the files; PLUMED's `UNITS LENGTH`."""

    def _checked(self, run: Run, function: GridBias) -> GridBias:
        names = function.collective_variables
        for name, periodic in zip(names, function.spline.periodic, strict=True):
            if name not in run.periodic:
                raise SamplingError(
                    f"imported.bias: acts on {name}, but the collective variables are {', '.join(run.periodic)}; give "
                    f"bias.variables, PLUMED's name to the system's"
                )
            if periodic != run.periodic[name]:
                raise SamplingError(
                    f"imported.bias: {name} is {'' if periodic else 'not '}periodic in {', '.join(self.files)} and "
                    f"{'' if run.periodic[name] else 'not '}in the system; is it the same variable?"
                )
        return function


class HillsBias(_FunctionBias):
    """The hills of metadynamics, summed on a grid, as the bias of frames that were run under all of them."""

    type: Literal["hills"]
    frozen: bool = False
    """Whether they are of an earlier run, after which the bias stayed as it was."""
    grid_range: dict[Name, tuple[float, float]] = Field(default_factory=dict)
    """Range of the grid for collective variables that are not angles; by default what the hills reach."""

    def of(self, run: Run) -> FrozenBias:
        """All hills; of a run that laid them itself, those after its first frame may change the bias little only."""
        paths, notes = self._found(run)
        hills, found = read_hills(paths, self._energy(run), LENGTH_UNITS[self.length_unit], TIME_UNITS[self.time_unit])
        first = max(self.since, min(float(times.min()) for times in run.times))
        drift = 0.0 if self.frozen else hills.drift(first)
        if drift > run.thermal_energy:
            raise SamplingError(
                f"imported.bias: hills after {first:g} ps change the bias by {drift:.3g} kJ/mol (standard deviation, "
                f"kT is {run.thermal_energy:.3g}): it was still being built; set bias.start to a time after the "
                "filling, or take metad.rbias of COLVAR; if the hills are of an earlier run, set bias.frozen to true"
            )
        function = self._checked(run, hills_bias(hills, self.variables, self.grid_range))
        notes += [*found, f"bias: {len(hills.time)} hills; those after {first:g} ps change it by {drift:.3g} kJ/mol"]
        return FrozenBias(function, paths, notes, run.times, self.since)


class GridFileBias(_FunctionBias):
    """A bias on a grid that stayed as it was (EXTERNAL, or the grid that metadynamics wrote last)."""

    type: Literal["grid"]

    def of(self, run: Run) -> FrozenBias:
        """The grid."""
        paths, notes = self._found(run)
        if len(paths) != 1:
            raise SamplingError(f"imported.bias.files: {len(paths)} grids; the trajectories were run under one")
        grid = read_grid_bias(paths[0], self.variables, self._energy(run), LENGTH_UNITS[self.length_unit])
        return FrozenBias(self._checked(run, grid), paths, notes, run.times, self.since)
