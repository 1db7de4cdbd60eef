"""GROMACS: a processed or plain `top` and the files that it includes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SystemSpecError, library_errors
from cg_assets.mapping.topologies.base import Parameterised, Topology, check_number, read_coordinates

_INCLUDE = re.compile(r'^\s*#include\s+["<]([^">]+)[">]', re.MULTILINE)


class GromacsTopology(Topology):
    """A GROMACS `top` with the positions of a `gro` or PDB file."""

    type: Literal["gromacs"]
    top: Path
    """Relative to the folder of the YAML file."""
    include: Path = Path("/usr/share/gromacs/top")
    """Folder of force fields that the `top` includes, as GROMACS's share/gromacs/top."""
    defines: tuple[str, ...] = ()
    """Names that the mdp file defines, without -D."""

    def files(self, folder: Path) -> list[Path]:
        """The `top`, all files that it includes, and the positions."""
        return [folder / self.coordinates, *self._included(folder / self.top, folder / self.include, [])]

    def _included(self, path: Path, root: Path, found: list[Path]) -> list[Path]:
        """A file and those that it includes, next to it or in the folder of force fields, each once."""
        if path in found:
            return found
        found.append(path)
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        for name in _INCLUDE.findall(text):
            near = path.parent / name
            other = near if near.is_file() else root / name
            if other.is_file():
                self._included(other, root, found)
        return found

    def load(self, folder: Path, box: NDArray[np.float64] | None) -> Parameterised:
        """Read by OpenMM; errors as of `Topology.load`."""
        from openmm import app

        positions, own = read_coordinates(folder / self.coordinates)
        vectors = own if box is None else box
        remedy = "set model.topology.include to GROMACS's folder of force fields (share/gromacs/top)"
        with library_errors(SystemSpecError, f"model.topology.top: {folder / self.top} cannot be read", remedy):
            top = app.GromacsTopFile(
                str(folder / self.top),
                periodicBoxVectors=vectors,
                includeDir=str(folder / self.include),
                defines={name: "1" for name in self.defines},
            )
        check_number(top.topology, positions, folder / self.coordinates)
        return Parameterised(top.topology, positions, own, top.createSystem)
