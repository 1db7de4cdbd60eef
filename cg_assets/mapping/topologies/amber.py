"""AMBER: a `prmtop`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SystemSpecError, library_errors
from cg_assets.mapping.topologies.base import Parameterised, Topology, check_number, read_coordinates


class AmberTopology(Topology):
    """An AMBER `prmtop` with the positions of an inpcrd, rst7 or PDB file."""

    type: Literal["amber"]
    prmtop: Path
    """Relative to the folder of the YAML file."""

    def files(self, folder: Path) -> list[Path]:
        """The `prmtop` and the positions."""
        return [folder / self.coordinates, folder / self.prmtop]

    def load(self, folder: Path, box: NDArray[np.float64] | None) -> Parameterised:
        """Read by OpenMM; errors as of `Topology.load`."""
        from openmm import app

        positions, own = read_coordinates(folder / self.coordinates)
        vectors = own if box is None else box
        with library_errors(SystemSpecError, f"model.topology.prmtop: {folder / self.prmtop} cannot be read"):
            prmtop = app.AmberPrmtopFile(str(folder / self.prmtop), periodicBoxVectors=vectors)
        check_number(prmtop.topology, positions, folder / self.coordinates)
        return Parameterised(prmtop.topology, positions, own, prmtop.createSystem)
