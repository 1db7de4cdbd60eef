"""CHARMM: a `psf` and its parameter files."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cg_assets.core.errors import SystemSpecError, library_errors
from cg_assets.mapping.topologies.base import Parameterised, Topology, check_positions, read_coordinates
from cg_assets.mapping.topologies.soundness import read_text

_SECTIONS = "NATOM", "NBOND", "NTHETA", "NPHI", "NIMPHI"
"""That every psf has; OpenMM takes those that are missing for empty."""


class CharmmTopology(Topology):
    """A CHARMM or NAMD `psf` with the positions of a PDB or CHARMM crd file."""

    type: Literal["charmm"]
    psf: Path
    """Relative to the folder of the YAML file."""
    parameters: Annotated[list[Path], Field(min_length=1)]
    """Files of parameters (.prm, .str, .rtf), relative to the same folder."""

    def files(self, folder: Path) -> list[Path]:
        """The `psf`, the parameters and the positions."""
        return [folder / path for path in (self.coordinates, self.psf, *self.parameters)]

    def load(self, folder: Path, box: NDArray[np.float64] | None) -> Parameterised:
        """Read by OpenMM; errors as of `Topology.load`."""
        from openmm import app

        positions, own = read_coordinates(folder / self.coordinates)
        vectors = own if box is None else box
        _check_psf(folder / self.psf)
        for path in self.parameters:
            _check_end(folder / path)
        unseen = io.StringIO()  # OpenMM prints what it cannot convert
        fault = library_errors(SystemSpecError, f"model.topology.psf: {folder / self.psf} cannot be read")
        with fault, redirect_stdout(unseen):
            psf = app.CharmmPsfFile(str(folder / self.psf), periodicBoxVectors=vectors)
        named = ", ".join(map(str, self.parameters))
        fault = library_errors(SystemSpecError, f"model.topology.parameters: {named} cannot be read")
        with fault, redirect_stdout(unseen):
            parameters = app.CharmmParameterSet(*(str(folder / path) for path in self.parameters))
        known = parameters.atom_types_str
        for kind in dict.fromkeys(atom.attype for atom in psf.atom_list):
            if kind in known and known[kind].epsilon is None:
                raise SystemSpecError(
                    f"model.topology.parameters: {named}: no non-bonded parameters of type {kind}; add them"
                )
        check_positions(psf.topology, positions, vectors, folder / self.coordinates, folder / self.psf)
        return Parameterised(
            psf.topology, positions, own, partial(psf.createSystem, parameters, flexibleConstraints=False)
        )


def _check_psf(path: Path) -> None:
    """Refuse a psf that lacks a section, or whose atoms are not numbered from 1 to their count.

    Raises:
        SystemSpecError: by file and line.
    """
    lines = read_text(path, "model.topology.psf").splitlines()
    headers = {name: number for number, line in enumerate(lines) for name in re.findall(r"^[\d\s]+!(\w+)", line)}
    wanted = [*_SECTIONS, *(["NCRTERM"] if "CMAP" in lines[:1][0].split() else [])] if lines else _SECTIONS
    if missing := [name for name in wanted if name not in headers]:
        raise SystemSpecError(f"model.topology.psf: {path}: has no section !{missing[0]}; write it again")
    begin = headers["NATOM"] + 1
    count = int(lines[begin - 1].split()[0])
    for number, line in enumerate(lines[begin : begin + count + 1], 1):
        words = line.split()
        if words[:1] != ([str(number)] if number <= count else []):
            raise SystemSpecError(
                f"model.topology.psf: {path}, line {begin + number}: {' '.join(words[:5]) or 'a blank line'} stands "
                + (f"where atom {number} of {count} is due" if number <= count else f"after the {count} atoms")
                + "; correct it"
            )


def _check_end(path: Path) -> None:
    """Refuse a file of parameters that ends within a line."""
    text = read_text(path, "model.topology.parameters")
    last = text.splitlines()[-1:] or [""]
    if not text.endswith("\n") and last[0].strip().upper() not in {"END", "RETURN"}:
        raise SystemSpecError(
            f"model.topology.parameters: {path}: ends within the line {last[0][:40]!r}; copy it again, "
            "or end it with END"
        )
