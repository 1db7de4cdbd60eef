"""GROMACS: a processed or plain `top` and the files that it includes."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SystemSpecError, library_errors
from cg_assets.mapping.topologies.base import Parameterised, Topology, check_positions, read_coordinates
from cg_assets.mapping.topologies.soundness import read_text

_ATOMS = {
    "bonds": 2,
    "pairs": 2,
    "angles": 3,
    "dihedrals": 4,
    "constraints": 2,
    "exclusions": 2,
    "settles": 1,
    "cmap": 5,
}
"""Numbers of atoms with which each line of a directive begins."""
_DIRECTIVES = {
    *_ATOMS,
    *("defaults", "atomtypes", "bondtypes", "constrainttypes", "pairtypes", "angletypes", "dihedraltypes"),
    *("nonbond_params", "cmaptypes", "implicit_genborn_params", "implicit_surface_params", "moleculetype", "atoms"),
    *("pairs_nb", "polarization", "water_polarization", "thole_polarization", "position_restraints"),
    *("distance_restraints", "dihedral_restraints", "orientation_restraints", "angle_restraints"),
    *("angle_restraints_z", "system", "molecules", "intermolecular_interactions"),
    *(f"{name}{number}" for name in ("virtual_sites", "dummies") for number in "1234n"),
}
"""GROMACS manual, topology file; OpenMM skips those that it does not know."""
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

        for path in self._included(folder / self.top, folder / self.include, []):
            _check_lines(path)
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
        check_positions(top.topology, positions, vectors, folder / self.coordinates, folder / self.top)
        return Parameterised(top.topology, positions, own, top.createSystem)


def _check_lines(path: Path) -> None:
    """Refuse unknown directives, and in the lines of bonds, angles and the like what is no atom and no finite number.

    Raises:
        SystemSpecError: by file and line.
    """
    directive, continued = "", False
    for number, line in enumerate(read_text(path, "model.topology.top").splitlines(), 1):
        words, before = line.partition(";")[0].split(), continued
        continued = line.rstrip().endswith("\\")
        if before or not words or words[0].startswith("#"):
            continue
        where = f"model.topology.top: {path}, line {number}"
        if words[0].startswith("["):
            directive = "".join(words).strip("[]")
            if directive not in _DIRECTIVES:
                raise SystemSpecError(f"{where}: GROMACS has no directive [ {directive} ]; correct it")
            continue
        n_atoms = _ATOMS.get(directive, 0)
        for place, word in enumerate(words if n_atoms else []):
            if not (word.isdigit() if place < n_atoms else _is_parameter(word)):
                what = "the number of an atom" if place < n_atoms else "a finite number"
                raise SystemSpecError(f"{where}: {word} in [ {directive} ] is not {what}; correct it")


def _is_parameter(word: str) -> bool:
    """Whether it is a finite number, or the name of a macro."""
    try:
        return math.isfinite(float(word))
    except ValueError:
        return re.fullmatch(r"[A-Za-z_]\S*|\\", word) is not None
