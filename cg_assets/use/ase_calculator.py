"""A registered potential as a calculator of ASE (A. H. Larsen et al., J. Phys. Condens. Matter 29, 273002 (2017))."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.errors import SamplingError
from cg_assets.potentials.base import Potential
from cg_assets.simulation.engine import engine_of

_ENERGY = units.kJ / units.mol
_LENGTH = units.nm


class BeadCalculator(Calculator):
    """Energy [eV] and forces [eV/Å] of beads; a cell that is periodic in all directions is their box."""

    def __init__(self, potential: Potential, temperature: float | None = None, **options: Any) -> None:
        """Take the potential that `ModelTracking.load` gives.

        Args:
            potential: in nm and kJ/mol.
            temperature: at which a potential that depends on temperature is taken [K].
            options: of `ase.calculators.calculator.Calculator`.
        """
        super().__init__(**options)
        self.implemented_properties = ["energy", "forces"]
        self.potential, self.temperature = potential, temperature
        self._in_box: tuple[Any, Any] | None = None

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: tuple[str, ...] = ("energy",),
        system_changes: list[str] = all_changes,
    ) -> None:
        """Energy and forces of one configuration of beads.

        Raises:
            SamplingError: the cell is periodic in some directions only, or is not rectangular; or the potential does
                not fit it, or needs a temperature.
        """
        super().calculate(atoms, properties, system_changes)
        beads: Any = self.atoms
        positions = torch.as_tensor(np.array(beads.positions[None] / _LENGTH, dtype=np.float32))
        box = _box(beads)
        edges = None if box is None else tuple(box.tolist())
        if self._in_box is None or self._in_box[0] != edges:
            self._in_box = edges, engine_of(self.potential, self.temperature, box)
        with torch.no_grad():
            energy, forces = self._in_box[1](positions)
        self.results["energy"] = float(energy[0]) * _ENERGY
        self.results["forces"] = forces[0].double().numpy() * (_ENERGY / _LENGTH)


def bead_atoms(config: Mapping[str, Any], positions: ArrayLike, box: ArrayLike | None = None) -> Atoms:
    """Beads as atoms without an element, with the masses of a registered model's config.

    Args:
        config: from `ModelTracking.load`, which returns it with the potential.
        positions: `(n_beads, 3)` [nm].
        box: `(3,)` edges of the periodic box [nm].
    """
    place = {} if box is None else {"cell": np.asarray(box, dtype=float) * _LENGTH, "pbc": True}
    masses = config["bead_masses"]
    return Atoms("X" * len(masses), positions=np.asarray(positions, dtype=float) * _LENGTH, masses=masses, **place)


def _box(beads: Atoms) -> NDArray[np.float64] | None:
    if not beads.pbc.any():
        return None
    if not beads.pbc.all() or not beads.cell.orthorhombic:
        raise SamplingError(
            f"the cell {beads.cell.cellpar()} with pbc {beads.pbc} is no box of beads; it must be rectangular and "
            "periodic in all directions, or not periodic at all"
        )
    return np.array(beads.cell.lengths() / _LENGTH)
