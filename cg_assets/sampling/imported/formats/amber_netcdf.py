"""AMBER NetCDF trajectories: coordinates and forces in one file, or forces in a second one (mdfrc)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import NoForcesError, SamplingError, library_errors
from cg_assets.sampling.imported.formats.base import AtomBlock, Contents, Source, TrajectoryFile
from cg_assets.sampling.imported.formats.mdtraj_formats import vectors_of_edges
from cg_assets.sampling.imported.formats.netcdf import NetcdfVariable, read_netcdf
from cg_assets.sampling.imported.formats.units import FORCE, LENGTH, TIME, same_unit


class AmberNetcdfFile(TrajectoryFile):
    """A file of the AMBER NetCDF convention 1.0, of its classic kind; units are those of its attributes."""

    suffixes: ClassVar[tuple[str, ...]] = (".nc", ".ncdf", ".netcdf")
    gives_forces = True
    length_unit = "angstrom"
    force_unit = "kcal/mol/angstrom"

    def __init__(self, source: Source) -> None:
        """Reads the units; errors as of `TrajectoryFile`, and where an attribute contradicts the user."""
        super().__init__(source)
        length = self._agreed("coordinates", _unit(self._positions, "coordinates"), LENGTH, source.length_unit)
        force = self._agreed("forces", _unit(self._forces, "forces"), FORCE, source.force_unit)
        self.length_unit, self.force_unit = length or self.length_unit, force or self.force_unit

    @property
    def _positions(self) -> dict[str, NetcdfVariable]:
        return self._files[0][0]

    @property
    def _forces(self) -> dict[str, NetcdfVariable]:
        return self._files[-1][0]

    @cached_property
    def _files(self) -> list[tuple[dict[str, NetcdfVariable], bool]]:
        """Variables of the file, and of that of the forces, each with whether it ends within a frame."""
        found = []
        for path in filter(None, (self.path, self.source.force_file)):
            with library_errors(SamplingError, f"{path}: is no AMBER NetCDF file of the classic kind"):
                found.append(read_netcdf(path))
        return found

    def contents(self) -> Contents:
        """Shapes, times, and whether the forces are there."""
        variables, cut = self._positions, any(cut for _, cut in self._files)
        if "coordinates" not in variables:
            raise SamplingError(f"{self.path}: holds {', '.join(variables)}, but no coordinates")
        shape, time = variables["coordinates"].values.shape, _times(variables)
        count = shape[0]
        if self.source.forces:
            count = self._checked_forces(shape, time, cut)
        return Contents(count, shape[1], None if time is None else time[:count], cut=cut)

    def _checked_forces(self, shape: tuple[int, ...], time: NDArray | None, cut: bool) -> int:
        """Number of frames with forces.

        Raises:
            SamplingError: there are none, or they are of other frames.
        """
        path = self.source.force_file or self.path
        if "forces" not in self._forces:
            raise NoForcesError(
                f"{path}: holds no forces; set ntwf in AMBER, give imported.force_files, or leave imported.forces out"
            )
        found, other = self._forces["forces"].values.shape, _times(self._forces)
        count = min(found[0], shape[0]) if cut else shape[0]
        same = found[1:] == shape[1:] and (cut or found[0] == count)
        if same and time is not None and other is not None:
            same = np.allclose(time[:count], other[:count], atol=1e-3)
        if not same:
            raise SamplingError(
                f"{path}: its forces {found} are not those of the frames {shape} of {self.path.name}; write both at "
                "the same steps (ntwx and ntwf)"
            )
        return count

    def _read(self, frames: range, size: int) -> Iterator[AtomBlock]:
        variables = self._positions
        for first in range(0, len(frames), size):
            rows = frames[first : first + size]
            part = slice(rows.start, rows.stop, rows.step)
            lengths, angles = (
                variables[name][part] if name in variables else None for name in ("cell_lengths", "cell_angles")
            )
            yield AtomBlock(
                variables["coordinates"][part],
                forces=self._forces["forces"][part] if self.source.forces else None,
                box=vectors_of_edges(lengths, angles),
            )


def _unit(variables: dict[str, NetcdfVariable], name: str) -> str:
    """The unit of a variable; empty where none is stated."""
    return variables[name].units if name in variables else ""


def _times(variables: dict[str, NetcdfVariable]) -> NDArray[np.float64] | None:
    """Times of the frames [ps]; None without a clock."""
    if "time" not in variables:
        return None
    unit = same_unit(variables["time"].units or "ps", TIME) or "ps"
    return variables["time"][:].astype(np.float64) * TIME[unit]
