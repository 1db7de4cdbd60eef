"""A registered potential as a calculator of ASE (A. H. Larsen et al., J. Phys. Condens. Matter 29, 273002 (2017))."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.errors import SamplingError
from cg_assets.potentials.base import Potential, PotentialConfig
from cg_assets.use.beads import BeadEnergy, edges_of_vectors

_ENERGY = units.kJ / units.mol
_LENGTH = units.nm


class BeadCalculator(Calculator):
    """Energy [eV], forces [eV/Å] and stress [eV/Å³] of beads; a cell that is periodic in all directions is their box.

    `free_energy` is the energy: forces are its exact gradient.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012

    def __init__(self, potential: Potential, temperature: float | None = None, **options: Any) -> None:
        """Take the potential that `cg_assets.use.export.read_model` gives.

        Args:
            potential: in nm and kJ/mol.
            temperature: at which a potential that depends on temperature is taken [K].
            options: of `ase.calculators.calculator.Calculator`.

        Raises:
            SamplingError: the beads have no places in space.
        """
        super().__init__(**options)
        self.beads = BeadEnergy(potential, temperature)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: tuple[str, ...] = ("energy",),
        system_changes: list[str] = all_changes,
    ) -> None:
        """Energy and forces of one configuration of beads, and the stress where it is asked for.

        Raises:
            SamplingError: the cell is periodic in some directions only, or is not rectangular; or the potential does
                not fit it, or needs a temperature; or there is no stress.
        """
        super().calculate(atoms, properties, system_changes)
        beads: Any = self.atoms
        positions, box = beads.positions / _LENGTH, _box(beads)
        energy, forces = self.beads(positions, box)
        self.results["energy"] = self.results["free_energy"] = energy * _ENERGY
        self.results["forces"] = forces * (_ENERGY / _LENGTH)
        if "stress" in properties:
            if box is None:
                raise SamplingError("these beads have no stress, for they are not in a periodic cell; set cell and pbc")
            stress = -self.beads.virial(positions, box) / box.prod()
            self.results["stress"] = full_3x3_to_voigt_6_stress(stress) * (_ENERGY / _LENGTH**3)


def bead_atoms(config: PotentialConfig, positions: ArrayLike, box: ArrayLike | None = None) -> Atoms:
    """Beads as atoms without an element, with the masses of a registered model's config.

    Args:
        config: that `cg_assets.use.export.read_model` gives with the potential.
        positions: `(n_beads, 3)` [nm].
        box: `(3,)` edges of the periodic box [nm].
    """
    place = {} if box is None else {"cell": np.asarray(box, dtype=float) * _LENGTH, "pbc": True}
    masses = config["bead_masses"]
    return Atoms("X" * len(masses), positions=np.asarray(positions, dtype=float) * _LENGTH, masses=masses, **place)


def _box(beads: Atoms) -> NDArray[np.float64] | None:
    if not beads.pbc.any():
        return None
    if not beads.pbc.all():
        raise SamplingError(
            f"pbc is {beads.pbc.tolist()}: beads must be periodic in all directions, or not periodic at all"
        )
    return edges_of_vectors(beads.cell.array / _LENGTH)
