"""AMBER text trajectories: mdcrd, and mdfrc with their forces."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SamplingError
from cg_assets.sampling.imported.formats.base import AtomBlock
from cg_assets.sampling.imported.formats.streamed import CHUNK, StreamedFile, joined

_WIDTH, _PER_LINE = 8, 10
"""Letters of a number, and numbers in a line."""


class AmberTextFile(StreamedFile):
    """A title, then for each frame ten numbers of eight letters in a line [Å], and perhaps a line of three edges.

    Angles of the cell are not in the file and count as right ones. Forces are in a second file of the same format
    [kcal/mol/Å].
    """

    suffixes: ClassVar[tuple[str, ...]] = (".mdcrd", ".crd")
    gives_forces = True
    length_unit = "angstrom"
    force_unit = "kcal/mol/angstrom"

    def _stream(self) -> Iterator[AtomBlock]:
        n_atoms = self._n_atoms()
        frames = self._frames(self.path, n_atoms)
        further = self._frames(self.source.force_file, n_atoms) if self.source.force_file else None
        while waiting := list(islice(frames, CHUNK)):
            forces = None if further is None else list(islice(further, len(waiting)))
            if forces is not None and len(forces) < len(waiting) and not self.cut:
                raise SamplingError(
                    f"{self.source.force_file}: has fewer frames than {self.path.name}; write both at the same steps "
                    "(ntwx and ntwf)"
                )
            if forces is not None:
                waiting = waiting[: len(forces)]
            if waiting:
                block = joined(waiting)
                yield (
                    block
                    if forces is None
                    else AtomBlock(
                        block.positions, forces=np.concatenate([part.positions for part in forces]), box=block.box
                    )
                )
        if further is not None and not self.cut and next(further, None) is not None:
            raise SamplingError(
                f"{self.source.force_file}: has more frames than {self.path.name}; write both at the same steps (ntwx "
                "and ntwf)"
            )

    def _n_atoms(self) -> int:
        """Which of the possible numbers of atoms fits the lines of the first frame.

        Raises:
            SamplingError: none does.
        """
        for count in self.source.atom_counts:
            with self.path.open("rb") as file:
                file.readline()
                rows = [file.readline().rstrip(b"\r\n") for _ in range(-(-3 * count // _PER_LINE))]
                after = file.readline().rstrip()
            full = _WIDTH * min(_PER_LINE, 3 * count)
            follows = len(after) in (0, full) or len(after.split()) == 3
            if len(b"".join(rows)) == 3 * _WIDTH * count and len(rows[0]) == full and follows:
                return count
        raise SamplingError(f"{self.path}: cannot be read with {self.source.atom_counts} atoms")

    def _frames(self, path: Path, n_atoms: int) -> Iterator[AtomBlock]:
        number, boxed = 0, False
        with path.open("rb") as file:
            file.readline()
            line = file.readline()
            while line.strip():
                rows = [line, *(file.readline() for _ in range(-(-3 * n_atoms // _PER_LINE) - 1))]
                line = file.readline()
                box = None
                if n_atoms > 1 and len(line.split()) == 3:
                    box, line = np.diag(np.array(line.split(), np.float64))[None], file.readline()
                short = len(b"".join(row.rstrip(b"\r\n") for row in rows)) < 3 * _WIDTH * n_atoms
                if (short and not line) or (boxed and box is None and not file.readline()):
                    self.cut = True
                    return
                boxed = box is not None
                numbers = self._numbers(path, number, rows)
                if len(numbers) != 3 * n_atoms:
                    raise SamplingError(f"{path}: frame {number} has no {n_atoms} atoms, or is damaged; copy it again")
                yield AtomBlock(numbers.reshape(1, n_atoms, 3), box=box)
                number += 1

    def _numbers(self, path: Path, number: int, rows: list[bytes]) -> NDArray[np.float64]:
        text = b"".join(row.rstrip(b"\r\n") for row in rows)
        try:
            return np.frombuffer(text, f"S{_WIDTH}").astype(np.float64)
        except ValueError as error:
            raise SamplingError(f"{path}: frame {number} is no frame of an AMBER text file: {error}") from error
