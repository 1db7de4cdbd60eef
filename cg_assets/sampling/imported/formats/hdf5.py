"""Trajectories in HDF5: H5MD, whose attributes give the units, and the HDF5 files of MDTraj."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import NoForcesError, SamplingError, library_errors
from cg_assets.core.frames import cell_vectors_of
from cg_assets.sampling.imported.formats.base import AtomBlock, Contents, Source, TrajectoryFile
from cg_assets.sampling.imported.formats.mdtraj_formats import vectors_of_edges
from cg_assets.sampling.imported.formats.units import FORCE, LENGTH, TIME, same_unit


class Hdf5File(TrajectoryFile):
    """An H5MD file (P. de Buyl et al., Comput. Phys. Commun. 185, 1546 (2014)), or one of MDTraj.

    Positions and forces may be stored at different steps; frames are those that have both.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".h5md", ".h5", ".hdf5")
    gives_forces = True

    def __init__(self, source: Source) -> None:
        """Reads the units; errors as of `TrajectoryFile`, and where an attribute contradicts the user."""
        super().__init__(source)
        with self._group() as group:
            self.length_unit = self._unit(group, "position", LENGTH, source.length_unit)
            if source.forces and _value(group, "force") is not None:
                self.force_unit = self._unit(group, "force", FORCE, source.force_unit)

    def _unit(self, group: Any, name: str, known: dict[str, float], given: str | None) -> str | None:
        data = _value(group, name)
        stated = "" if data is None else data.attrs.get("unit", data.attrs.get("units", ""))
        stated = stated.decode() if isinstance(stated, bytes) else str(stated)
        return self._agreed(name, stated, known, given)

    def contents(self) -> Contents:
        """Shapes, times, and which frames have forces."""
        with self._group() as group:
            positions, forces = _value(group, "position"), _value(group, "force")
            if positions is None or len(positions.shape) != 3:
                raise SamplingError(f"{self.path}: holds no positions (n_frames, n_atoms, 3)")
            if self.source.forces and forces is None:
                raise NoForcesError(f"{self.path}: holds no forces; write them, or leave imported.forces out")
            if self.source.forces and forces.shape[1:] != positions.shape[1:]:
                raise SamplingError(f"{self.path}: holds forces {forces.shape} for positions {positions.shape}")
            clock = _beside(group, "position", "time")
            unit = clock.attrs.get("unit", clock.attrs.get("units", "ps")) if clock is not None else "ps"
            time = None
            if clock is not None and clock.shape == positions.shape[:1]:
                time = clock[:].astype(np.float64) * TIME[same_unit(str(unit), TIME) or "ps"]
            usable = None if not self.source.forces else self._force_rows(group) >= 0
            return Contents(positions.shape[0], positions.shape[1], time, usable)

    def _force_rows(self, group: Any) -> NDArray[np.int64]:
        """Row of the forces of each frame of positions, -1 where there is none."""
        n_frames, n_forces = len(_value(group, "position")), len(_value(group, "force"))
        steps, others = _beside(group, "position", "step"), _beside(group, "force", "step")
        if steps is None or others is None or steps.shape != (n_frames,) or others.shape != (n_forces,):
            if n_frames != n_forces:
                raise SamplingError(
                    f"{self.path}: {n_frames} frames of positions and {n_forces} of forces without their steps; which "
                    "belong together is not known"
                )
            return np.arange(n_frames)
        row = {int(step): number for number, step in enumerate(others[:])}
        return np.array([row.get(int(step), -1) for step in steps[:]], dtype=np.int64)

    def _read(self, frames: range, size: int) -> Iterator[AtomBlock]:
        with self._group() as group:
            positions, forces = _value(group, "position"), _value(group, "force")
            rows_of = self._force_rows(group) if self.source.forces else None
            for first in range(0, len(frames), size):
                rows = frames[first : first + size]
                part = slice(rows.start, rows.stop, rows.step)
                taken = None
                if rows_of is not None:
                    index = rows_of[part]
                    taken = forces[index[0] : index[-1] + 1][index - index[0]]
                yield AtomBlock(positions[part], forces=taken, box=self._box(group, part, len(rows)))

    def _box(self, group: Any, part: slice, count: int) -> NDArray[np.float64] | None:
        if "coordinates" in group:
            if "cell_lengths" not in group:
                return None
            return vectors_of_edges(group["cell_lengths"][part], group["cell_angles"][part])
        edges = group.get("box/edges")
        if edges is None:
            return None
        values = edges["value"][part] if "value" in edges else np.broadcast_to(edges[:], (count, *edges.shape))
        return np.array(cell_vectors_of(values), dtype=np.float64)

    @contextmanager
    def _group(self) -> Iterator[Any]:
        """The group that holds positions, forces and box."""
        import h5py

        fault = library_errors(SamplingError, f"{self.path}: is no H5MD file, or it is damaged")
        with fault, h5py.File(self.path, "r") as file:
            if "coordinates" in file:
                yield file
                return
            groups = [item for item in file.get("particles", {}).values() if "position" in item]
            if len(groups) != 1:
                raise SamplingError(f"{self.path}: holds {len(groups)} groups of particles with positions; give one")
            yield groups[0]


def _value(group: Any, name: str) -> Any:
    """The data of positions or forces; None where there are none."""
    if "coordinates" in group:
        return group["coordinates"] if name == "position" else None
    return group[name]["value"] if name in group else None


def _beside(group: Any, name: str, what: str) -> Any:
    """The steps or times of positions or forces; None where they are not stored."""
    if "coordinates" in group:
        return group.get(what)
    return group[name].get(what)
