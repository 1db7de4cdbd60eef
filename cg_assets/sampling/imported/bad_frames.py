"""Frames that no dynamics gives: numbers that are not finite, and bonds of impossible length."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.checks import absurd
from cg_assets.core.errors import SamplingError
from cg_assets.mapping.beads import Beads
from cg_assets.mapping.builders import MoleculeModel
from cg_assets.sampling.imported.formats import AtomBlock

MOST_BAD = 0.001
"""Part of all frames that may be bad."""
_SMALL = 40
"""Most atoms of a molecule whose bonds are taken by a product of matrices, four times as fast for few atoms."""
_LONGEST, _FURTHER, _SHORTEST = 3.0, 0.1, 0.4
"""A bond may be so many times as long as in the structure of the model, and so much longer [nm]; and so short."""


class BadFrames:
    """Finds the bad frames of blocks of the stored atoms of a molecule."""

    def __init__(self, molecule: MoleculeModel) -> None:
        """Takes the bonds and their lengths from the model."""
        structure = molecule.positions[molecule.stored]
        self.bonds = np.array(molecule.stored_pairs(molecule.bonds), dtype=int).reshape(-1, 2)
        self._names = [molecule.atom_names[atom] for atom in molecule.stored]
        atoms = np.arange(len(structure) if len(structure) <= _SMALL else 0)[:, None]
        self._steps = (self.bonds[:, 0] == atoms).astype(np.float32) - (self.bonds[:, 1] == atoms)
        known = self.lengths(structure[None])[0]
        self._least, self._most = (np.float32((_SHORTEST * known) ** 2), np.float32((_LONGEST * known + _FURTHER) ** 2))

    def lengths(self, positions: NDArray) -> NDArray:
        """Lengths `(n_frames, n_bonds)` of the `bonds` between stored atoms of whole molecules [nm]."""
        return np.linalg.norm(positions[:, self.bonds[:, 0]] - positions[:, self.bonds[:, 1]], axis=2)

    def _squares(self, positions: NDArray[np.float32]) -> NDArray[np.float32]:
        """Squared lengths of the bonds, axis by axis."""
        squares = np.zeros((len(positions), len(self.bonds)), np.float32)
        for axis in np.moveaxis(positions, 2, 0):
            if len(self._names) <= _SMALL:
                steps = np.ascontiguousarray(axis) @ self._steps
            else:
                steps = axis[:, self.bonds[:, 0]] - axis[:, self.bonds[:, 1]]
            steps *= steps
            squares += steps
        return squares

    def find(self, block: AtomBlock) -> dict[int, str]:
        """Number of each bad frame of a block to what is wrong with it.

        Args:
            block: of whole molecules.
        """
        found: dict[int, str] = {}
        for name in ("positions", "forces", "energy"):
            array = getattr(block, name)
            if array is None:
                continue
            bad = ~np.isfinite(array) if name == "energy" else absurd(array)
            for frame in np.flatnonzero(bad):
                sizes = np.abs(array[frame]).ravel()
                place = int(np.argmax(np.where(np.isfinite(sizes), sizes, np.inf)))
                of_atom = f" of {self._names[place // 3]}" if name != "energy" else ""
                found.setdefault(int(frame), f"{name}{of_atom} {array[frame].ravel()[place]:.4g}")
        if len(self.bonds):
            with np.errstate(invalid="ignore", over="ignore"):
                squares = self._squares(block.positions.astype(np.float32, copy=False))
                wrong = (squares > self._most) | (squares < self._least)
            for frame in np.flatnonzero(wrong.any(axis=1)) if wrong.any() else ():
                bond = int(np.argmax(wrong[frame]))
                first, second = (self._names[atom] for atom in self.bonds[bond])
                length = f"{np.sqrt(squares[frame, bond]):.3g} nm apart"
                found.setdefault(int(frame), f"{first} and {second}, which are bonded, lie {length}")
        return found


def coordinate_grid(positions: NDArray[np.floating]) -> float | None:
    """Step to which coordinates were rounded when they were written, at least 1e-4 nm; None where they were not.

    Args:
        positions: `(..., 3)` as in the file [nm].
    """
    numbers = np.asarray(positions, np.float64).ravel()
    if len(numbers) < 20 or not np.isfinite(numbers).all():
        return None
    slack = 4 * float(np.finfo(np.float32).eps) * float(np.abs(numbers).max())
    for step in (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001):
        if slack < 0.05 * step and (np.abs(numbers - step * np.round(numbers / step)) <= slack).all():
            return step
    return None


def check_ranges(beads: Beads, positions: NDArray[np.float64]) -> None:
    """Refuse the range of a collective variable that holds none of the first frames.

    Args:
        beads: of the system.
        positions: `(n_frames, n_beads, 3)` of the first frames of all files [nm].

    Raises:
        SamplingError: of the variable, with its values.
    """
    values = beads.variables(positions)
    for name, variable in beads.collective_variables.items():
        (low, high), seen = variable.limits, values[name]
        if not variable.periodic and not ((seen >= low) & (seen <= high)).any():
            raise SamplingError(
                f"collective_variables.{name}.range is [{low:g}, {high:g}], but the first frames of the files have "
                f"{seen.min():.4g} to {seen.max():.4g}; widen it"
            )


def grid_fault(grid: float | None, noise: float) -> str | None:
    """What is wrong with coordinates rounded to steps about as large as the noise that a kernel adds; None if nothing.

    Args:
        grid: step of the coordinates [nm], or None.
        noise: standard deviation of the noise of the kernel [nm].
    """
    if grid is None or grid < noise:
        return None
    return (
        f"coordinates are rounded to {grid:g} nm, as coarse as the noise of {noise:g} nm; write them more finely "
        "(compressed-x-precision in GROMACS) or enlarge the noise"
    )
