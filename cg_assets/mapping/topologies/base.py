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
from cg_assets.mapping.bonds import BROKEN, RADII
from cg_assets.mapping.cells import is_dummy, reduced
from cg_assets.mapping.images import nearest_image

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


def atom_names(topology: Any) -> list[str]:
    """`residue number:atom name` of each atom of an OpenMM topology, residues counted from 1."""
    return [f"{atom.residue.index + 1}:{atom.name}" for atom in topology.atoms()]


def check_positions(
    topology: Any, positions: NDArray[np.float64], box: NDArray[np.float64] | None, path: Path, source: Path
) -> None:
    """Refuse positions of another number of atoms than the topology of a file has, and those at which bonds are broken.

    Args:
        topology: OpenMM topology.
        positions: `(n_atoms, 3)` [nm].
        box: `(3, 3)` vectors [nm], or None.
        path: the file of the positions.
        source: the file of the topology.

    Raises:
        SystemSpecError: they are of other atoms, or in another order.
    """
    if topology.getNumAtoms() != len(positions):
        raise SystemSpecError(
            f"model.topology.coordinates: {path} has {len(positions)} atoms where {source} has "
            f"{topology.getNumAtoms()}; give positions of all atoms in the order of the topology"
        )
    radii = np.array([RADII.get(atom.element.symbol, np.nan) if atom.element else np.nan for atom in topology.atoms()])
    pairs = np.array([(one.index, other.index) for one, other in topology.bonds()], dtype=int).reshape(-1, 2)
    pairs = pairs[(radii[pairs] > RADII["H"]).any(axis=1)]  # rigid water may have one between its hydrogens
    steps = positions[pairs[:, 1]] - positions[pairs[:, 0]]
    lengths = np.linalg.norm(steps if box is None else nearest_image(steps, reduced(box)), axis=1)
    if (broken := np.flatnonzero(lengths > BROKEN * radii[pairs].sum(axis=1))).size:
        names = atom_names(topology)
        one, other = (names[atom] for atom in pairs[broken[0]])
        raise SystemSpecError(
            f"model.topology.coordinates: in {path} the atoms {one} and {other}, which {source} bonds, lie "
            f"{lengths[broken[0]]:.3g} nm apart ({len(broken)} of {len(pairs)} bonds are too long); give positions of "
            "all atoms in the order of the topology"
        )
