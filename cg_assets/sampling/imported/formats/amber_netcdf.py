"""AMBER NetCDF trajectories: coordinates and forces in one file, or forces in a second one (mdfrc)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SamplingError, library_errors
from cg_assets.sampling.imported.formats.base import AtomBlock, Contents, Source, TrajectoryFile
from cg_assets.sampling.imported.formats.mdtraj_formats import cell_vectors
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
        with self._variables(self.path) as variables:
            length = self._agreed("coordinates", _stated(variables, "coordinates"), LENGTH, source.length_unit)
        with self._variables(self._force_path) as variables:
            force = self._agreed("forces", _stated(variables, "forces"), FORCE, source.force_unit)
        self.length_unit, self.force_unit = length or self.length_unit, force or self.force_unit

    @property
    def _force_path(self) -> Path:
        return self.source.force_file or self.path

    def contents(self) -> Contents:
        """Shapes, times, and whether the forces are there."""
        with self._variables(self.path) as variables:
            if "coordinates" not in variables:
                raise SamplingError(f"{self.path}: holds {', '.join(variables)}, but no coordinates")
            shape = variables["coordinates"].shape
            clock = variables.get("time")
            factor = TIME[same_unit(getattr(clock, "units", b"ps").decode(), TIME) or "ps"]
            time = None if clock is None else clock[:].astype(np.float64) * factor
        if self.source.forces:
            with self._variables(self._force_path) as variables:
                found = None if "forces" not in variables else variables["forces"].shape
                other = None if "time" not in variables else variables["time"][:].astype(np.float64) * factor
            self._check_forces(found, shape, time, other)
        return Contents(shape[0], shape[1], time)

    def _check_forces(
        self, found: tuple[int, ...] | None, shape: tuple[int, ...], time: NDArray | None, other: NDArray | None
    ) -> None:
        if found is None:
            raise SamplingError(
                f"{self._force_path}: holds no forces; set ntwf in AMBER, give imported.force_files, or leave "
                "imported.forces out"
            )
        same = time is None or other is None or (len(time) == len(other) and np.allclose(time, other, atol=1e-3))
        if found != shape or not same:
            raise SamplingError(
                f"{self._force_path}: its forces {found} are not those of the frames {shape} of {self.path.name}; "
                "write both at the same steps (ntwx and ntwf)"
            )

    def _read(self, frames: range, size: int) -> Iterator[AtomBlock]:
        with self._variables(self.path) as variables, self._variables(self._force_path) as further:
            for first in range(0, len(frames), size):
                rows = frames[first : first + size]
                part = slice(rows.start, rows.stop, rows.step)
                lengths, angles = (
                    variables[name][part] if name in variables else None for name in ("cell_lengths", "cell_angles")
                )
                yield AtomBlock(
                    _native(variables["coordinates"][part]),
                    forces=_native(further["forces"][part]) if self.source.forces else None,
                    box=cell_vectors(lengths, angles),
                )

    @contextmanager
    def _variables(self, path: Path) -> Iterator[dict[str, Any]]:
        from scipy.io import netcdf_file

        fault = library_errors(
            SamplingError, f"{path}: is no AMBER NetCDF file of the classic kind, or it is cut (copy it again)"
        )
        with fault, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Cannot close a netcdf_file opened with mmap")
            with netcdf_file(str(path), mmap=True) as file:
                yield dict(file.variables)


def _stated(variables: Mapping[str, Any], name: str) -> str:
    """The unit of a variable; empty where none is stated."""
    return getattr(variables.get(name), "units", b"").decode()


def _native(array: NDArray) -> NDArray[np.floating]:
    """A copy, which outlives the file."""
    return np.array(array, dtype=array.dtype.newbyteorder("="))
