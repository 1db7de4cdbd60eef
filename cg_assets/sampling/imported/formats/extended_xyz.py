"""Extended XYZ files, read by ASE: forces in eV/Å as ASE writes them, unless LAMMPS wrote the file."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from cg_assets.core.errors import SamplingError, library_errors
from cg_assets.sampling.imported.formats.base import AtomBlock, Source
from cg_assets.sampling.imported.formats.streamed import StreamedFile, joined

_CHUNK = 200
"""Frames in a block."""


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
        self._by_lammps = "timestep=" in comment.lower()
        if self._by_lammps:
            self.force_unit = None

    def _stream(self) -> Iterator[AtomBlock]:
        from ase.io import iread

        waiting: list[AtomBlock] = []
        with library_errors(SamplingError, f"{self.path}: is no extended XYZ file, or it is damaged"):
            for atoms in iread(str(self.path), index=":", format="extxyz"):
                results = atoms.calc.results if atoms.calc is not None else {}
                forces = results.get("forces", atoms.arrays.get("forces", atoms.arrays.get("force")))
                energy = None if self._by_lammps or self.source.force_unit else results.get("energy")
                cell = np.asarray(atoms.cell)
                waiting.append(
                    AtomBlock(
                        atoms.positions[None],
                        forces=None if forces is None or not self.source.forces else forces[None],
                        box=cell[None] if atoms.pbc.all() else None,
                        energy=None if energy is None else np.array([float(energy)]),
                    )
                )
                if len(waiting) == _CHUNK:
                    yield joined(waiting)
                    waiting = []
        if waiting:
            yield joined(waiting)
