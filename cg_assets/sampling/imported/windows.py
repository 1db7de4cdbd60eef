"""Umbrella windows of imported trajectories: runs under harmonic restraints of their own, which their COLVAR shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from cg_assets.biases.plumed_files import LENGTH_UNITS
from cg_assets.biases.umbrella import Windows
from cg_assets.core.errors import SamplingError
from cg_assets.core.settings import Name
from cg_assets.sampling.imported.bias import FloatArray, FrameBias, Run
from cg_assets.sampling.imported.colvar import Colvar, ColvarEnergies, ColvarFiles
from cg_assets.sampling.imported.restraints import Restraint

_SAME_ENERGY = 0.5
"""Largest median difference of the energies in COLVAR and of the restraint at the frames [kT]."""


class UmbrellaWindows(ColvarFiles):
    """A restraint for each run, found from its COLVAR; runs under one restraint share a window."""

    windowed: ClassVar[bool] = True

    type: Literal["umbrella"]
    variables: dict[str, Name] = Field(default_factory=dict)
    """PLUMED's name of each restrained variable to the system's collective variable, where they differ."""
    length_unit: Literal["nm", "angstrom"] = "nm"
    """That of the files; PLUMED's `UNITS LENGTH`."""

    def of(self, run: Run) -> WindowEnergies:
        """The windows, and the energy of each frame in its own."""
        notes: list[str] = []
        colvars = self._read(run, notes)
        restraints: list[Restraint] = []
        angles = [name for name, periodic in run.periodic.items() if periodic]
        windows: dict[int, int] = {}
        for colvar in colvars:
            found = self._restraint(colvar, run)
            same = [number for number, known in enumerate(restraints) if known.same(found, angles, run.thermal_energy)]
            restraints += [] if same else [found]
            window = same[0] if same else len(restraints) - 1
            windows |= dict.fromkeys(colvar.trajectories, window)
            notes.append(f"{colvar.path}: umbrella window {window}, {found}")
        periodic = {name for item in restraints for name in item.center if run.periodic[name]}
        if not any(item.center for item in restraints):
            raise SamplingError(f"imported.bias: no restraint acts in {', '.join(self.files)}; set bias to null")
        function = Windows(
            [item.center for item in restraints], [item.constant for item in restraints], sorted(periodic)
        )
        return WindowEnergies(
            self._energies(run, colvars, notes),
            function,
            [windows[number] for number in range(len(run.paths))],
            [restraints[windows[number]].offset for number in range(len(run.paths))],
            run.thermal_energy,
        )

    def _restraint(self, colvar: Colvar, run: Run) -> Restraint:
        """The restraint of a run, on collective variables of the system.

        Raises:
            SamplingError: its energies are of another bias, or it holds another variable.
        """
        named = {name: self.variables.get(name, name) for name in colvar.names}
        found = colvar.restraint(run.thermal_energy, [name for name in colvar.names if named[name] in run.periodic])
        if found is None:
            raise SamplingError(
                f"{colvar.path}: {' + '.join(colvar.used)} is no harmonic restraint of {', '.join(colvar.names)}; "
                "PRINT the restrained variables (ARG of RESTRAINT) together with its bias, and nothing else in columns"
            )
        if unknown := [name for name in found.center if named[name] not in run.periodic]:
            raise SamplingError(
                f"{colvar.path}: restrains {', '.join(unknown)}, but the collective variables are "
                f"{', '.join(run.periodic)}; give bias.variables, PLUMED's name to the system's, or define it"
            )
        center, constant = {}, {}
        for name, value in found.center.items():
            unit = 1.0 if run.periodic[named[name]] else LENGTH_UNITS[self.length_unit]
            center[named[name]] = value * unit
            constant[named[name]] = found.constant[name] / unit**2
        return Restraint(center, constant, found.offset)


@dataclass
class WindowEnergies(FrameBias):
    """Frames in umbrella windows; see `FrameBias`.

    Attributes:
        colvar: the energies in COLVAR.
        function: the windows.
        windows: window of each trajectory.
        offsets: by which the energies of COLVAR are higher than those of its window [kJ/mol].
        thermal_energy: kT [kJ/mol].
    """

    colvar: ColvarEnergies
    function: Windows
    windows: Sequence[int]
    offsets: Sequence[float]
    thermal_energy: float

    def __post_init__(self) -> None:
        """Take over the files and the notes."""
        self.paths, self.notes = self.colvar.paths, self.colvar.notes

    def usable(self, file: int) -> NDArray[np.bool_]:
        """Those that COLVAR covers."""
        return self.colvar.usable(file)

    def energy(self, file: int, frames: NDArray[np.int64], variables: Mapping[str, ArrayLike]) -> FloatArray:
        """Of the restraint at the variables of the frames.

        Raises:
            SamplingError: it is not that of COLVAR, which is of another run, or in other units.
        """
        known = self.colvar.energy(file, frames, variables) - self.offsets[file]
        energy = self.function.energy(variables, np.full(len(frames), self.windows[file]))
        apart = float(np.median(np.abs(energy - known)))
        if apart > _SAME_ENERGY * self.thermal_energy:
            raise SamplingError(
                f"{self.colvar.sources[file]}: its energies are those of a restraint on "
                f"{', '.join(self.function.collective_variables)} that is {apart:.3g} kJ/mol (median) off at the "
                f"frames of trajectory {file}: correct bias.length_unit, bias.variables or the order of the files"
            )
        return energy
