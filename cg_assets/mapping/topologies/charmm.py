"""CHARMM: a `psf` and its parameter files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cg_assets.core.errors import SystemSpecError, library_errors
from cg_assets.mapping.topologies.base import Parameterised, Topology, check_number, read_coordinates


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
        with library_errors(SystemSpecError, f"model.topology: {folder / self.psf} cannot be read with its parameters"):
            psf = app.CharmmPsfFile(str(folder / self.psf), periodicBoxVectors=vectors)
            parameters = app.CharmmParameterSet(*(str(folder / path) for path in self.parameters))
        check_number(psf.topology, positions, folder / self.coordinates)
        return Parameterised(
            psf.topology, positions, own, partial(psf.createSystem, parameters, flexibleConstraints=False)
        )
