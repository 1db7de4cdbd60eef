"""Extended XYZ files, read by ASE: forces in eV/Å as ASE writes them, unless LAMMPS wrote the file; plain ones too."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from cg_assets.core.errors import SamplingError, library_errors, one_line
from cg_assets.sampling.imported.formats.base import AtomBlock, Source
from cg_assets.sampling.imported.formats.streamed import StreamedFile, joined_in_turn


class ExtendedXyzFile(StreamedFile):
    """An (extended) XYZ file: positions in Å, forces in eV/Å, energy in eV.

    `dump extxyz` of LAMMPS keeps the units of the run, real or metal, and does not state which: ASE takes its forces
    for eV/Å. Such a file has `Timestep=` in its comments, and needs `force_unit`.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".extxyz", ".xyz", ".extxyz.gz", ".xyz.gz")
    gives_forces = True
    length_unit = "angstrom"
    force_unit: str | None = "eV/angstrom"
    energy_unit = "eV"

    def __init__(self, source: Source) -> None:
        """Looks at the first comment; errors as of `TrajectoryFile`."""
        super().__init__(source)
        opener = gzip.open if self.path.name.lower().endswith(".gz") else open
        with library_errors(SamplingError, f"{self.path}: is no XYZ file"), opener(self.path, "rt") as file:
            comment = [file.readline() for _ in range(2)][1]
        self.holds_fixes = "timestep=" in comment.lower()
        self._plain, self._opener = "properties=" not in comment.lower(), opener
        if self.holds_fixes:
            self.force_unit = None

    def _stream(self) -> Iterator[AtomBlock]:
        return joined_in_turn(self._plain_frames() if self._plain else self._frames())

    def _plain_frames(self) -> Iterator[AtomBlock]:
        """Frames without columns of their own: names of atoms, which need not be elements, and positions."""
        frame = 0
        with self._opener(self.path, "rt") as file:
            try:
                while head := file.readline():
                    if not head.strip():
                        continue
                    lines = [file.readline().split() for _ in range(int(head) + 1)][1:]
                    if not all(len(line) >= 4 for line in lines):
                        if file.readline():
                            raise ValueError("it lacks atoms or columns, and more follows")
                        self.cut = True
                        return
                    yield AtomBlock(np.array([line[1:4] for line in lines], np.float64)[None])
                    frame += 1
            except ValueError as error:
                raise SamplingError(
                    f"{self.path}: frame {frame} is no frame of an XYZ file: {one_line(error)}"
                ) from error

    def _frames(self) -> Iterator[AtomBlock]:
        from ase.io import iread

        with library_errors(SamplingError, f"{self.path}: is no extended XYZ file, or it is damaged"):
            for atoms in iread(str(self.path), index=":", format="extxyz"):
                results = atoms.calc.results if atoms.calc is not None else {}
                forces = results.get("forces", atoms.arrays.get("forces", atoms.arrays.get("force")))
                energy = None if self.holds_fixes or self.source.force_unit else results.get("energy")
                cell = np.asarray(atoms.cell)
                yield AtomBlock(
                    atoms.positions[None],
                    forces=None if forces is None or not self.source.forces else forces[None],
                    box=cell[None] if atoms.pbc.all() else None,
                    energy=None if energy is None else np.array([float(energy)]),
                )
