"""What every topology of another engine gives: atoms, positions, the cell, and an OpenMM System."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SystemSpecError, library_errors
from cg_assets.core.family import Family
from cg_assets.mapping.cells import is_dummy

if TYPE_CHECKING:
    import openmm


class CreateArguments(TypedDict, total=False):
    """Arguments of OpenMM's `createSystem`; methods and constraints are OpenMM's objects, numbers its quantities."""

    nonbondedMethod: Any
    nonbondedCutoff: Any
    constraints: Any
    rigidWater: bool
    removeCMMotion: bool
    hydrogenMass: Any


@dataclass(frozen=True)
class Parameterised:
    """A molecule with its parameters.

    Attributes:
        topology: OpenMM topology.
        positions: `(n_atoms, 3)` [nm].
        box: `(3, 3)` vectors of the file of positions [nm]; None where it has none.
        create: makes the System from `CreateArguments`.
    """

    topology: Any
    positions: NDArray[np.float64]
    box: NDArray[np.float64] | None
    create: Callable[..., openmm.System]


class Topology(Family, family="model.topology"):
    """Files of another engine that hold the atoms, bonds and parameters of all molecules."""

    coordinates: Path
    """Positions of all atoms in the same order, relative to the folder of the YAML file."""

    @abstractmethod
    def files(self, folder: Path) -> list[Path]:
        """Every file that the System follows from, given the folder of the YAML file."""

    @abstractmethod
    def load(self, folder: Path, box: NDArray[np.float64] | None) -> Parameterised:
        """Read the files.

        Args:
            folder: against which paths are read.
            box: `(3, 3)` vectors that `model.box` asks for [nm]; None to take those of the coordinates.

        Raises:
            SystemSpecError: a file is missing, cannot be read, or holds another number of atoms.
        """


def read_coordinates(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Positions `(n_atoms, 3)` and, where the file has one that is no dummy, vectors `(3, 3)` of the cell [nm].

    Args:
        path: a .gro, .pdb, .inpcrd, .rst7 or .crd (CHARMM) file.

    Raises:
        SystemSpecError: it cannot be read.
    """
    from openmm import app, unit

    kinds = {
        ".gro": app.GromacsGroFile,
        ".pdb": app.PDBFile,
        ".inpcrd": app.AmberInpcrdFile,
        ".rst7": app.AmberInpcrdFile,
        ".crd": app.CharmmCrdFile,
    }
    if path.suffix not in kinds:
        raise SystemSpecError(f"model.topology.coordinates: {path} has none of the endings {', '.join(kinds)}")
    with library_errors(SystemSpecError, f"model.topology.coordinates: {path} cannot be read"):
        file = kinds[path.suffix](str(path))
        places = np.array(unit.Quantity(file.positions).value_in_unit(unit.nanometer), dtype=np.float64)
        vectors = None
        if path.suffix == ".gro":
            vectors = file.getPeriodicBoxVectors()
        elif path.suffix == ".pdb":
            vectors = file.topology.getPeriodicBoxVectors()
        elif path.suffix in {".inpcrd", ".rst7"}:
            vectors = file.boxVectors
    box = None if vectors is None else np.array(unit.Quantity(vectors).value_in_unit(unit.nanometer), dtype=np.float64)
    return places, None if box is None or is_dummy(box) else box


def check_number(topology: Any, positions: NDArray[np.float64], path: Path) -> None:
    """Refuse positions of another number of atoms."""
    if topology.getNumAtoms() != len(positions):
        raise SystemSpecError(
            f"model.topology.coordinates: {path} has {len(positions)} atoms where the topology has "
            f"{topology.getNumAtoms()}; give positions of all atoms in the order of the topology"
        )
