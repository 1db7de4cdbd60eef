"""A registered potential as a model of torch-sim 0.6 or later (O. Cohen et al., AI Sci. 1, 025003 (2025))."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ase import units
from numpy.typing import ArrayLike
from torch import Tensor
from torch_sim.models.interface import ModelInterface
from torch_sim.state import SimState

from cg_assets.core.errors import SamplingError
from cg_assets.potentials.base import Potential, PotentialConfig
from cg_assets.use.beads import edges_of_vectors

_ENERGY = units.kJ / units.mol
_LENGTH = units.nm


class BeadModel(ModelInterface):
    """Energy [eV], forces [eV/Å] and stress [eV/Å³] of copies of the beads, all evaluated at once."""

    def __init__(
        self,
        potential: Potential,
        temperature: float | None = None,
        compute_stress: bool = False,
        device: torch.device | None = None,
    ) -> None:
        """Take the potential that `cg_assets.use.export.read_model` gives.

        Args:
            potential: in nm and kJ/mol.
            temperature: at which a potential that depends on temperature is taken [K].
            compute_stress: whether the state is in a periodic box whose stress is needed.
            device: where states are; the CPU where None.
        """
        super().__init__()
        self._device, self._dtype = device or torch.device("cpu"), torch.float64
        self._compute_forces, self._compute_stress = True, compute_stress
        self._memory_scales_with = "n_atoms"
        self.potential, self.temperature = potential.to(self._device), temperature

    def forward(self, state: SimState, **_: Any) -> dict[str, Tensor]:
        """`energy` `(s,)`, `forces` `(s * n, 3)` and, where asked for, `stress` `(s, 3, 3)` of s systems of n beads.

        Raises:
            SamplingError: a system has other beads, or a box that is not rectangular or periodic in some directions
                only; or the potential needs a temperature or a box, or has no virial.
        """
        sizes = torch.bincount(state.system_idx)
        if (sizes != sizes[0]).any() or (self.potential.n_beads or sizes[0]) != sizes[0]:
            raise SamplingError(f"systems have {sizes.tolist()} beads; the potential is of {self.potential.n_beads}")
        points = (state.positions / _LENGTH).reshape(len(sizes), -1, 3).to(self.potential.precision)
        box = self._box(state)
        given = self.temperature, None if box is None else box.to(points)
        try:
            with torch.no_grad():
                energy, forces = self.potential.energy_and_forces(points, *given)
            found = {"energy": energy.double() * _ENERGY, "forces": forces.flatten(0, 1).double() * (_ENERGY / _LENGTH)}
            if self.compute_stress and box is not None:
                virial = self.potential.virial(points, *given).double()
                found["stress"] = -virial / box.prod(dim=1)[:, None, None] * (_ENERGY / _LENGTH**3)
        except ValueError as error:
            raise SamplingError(f"this potential cannot be simulated: {error}") from error
        return found

    def _box(self, state: SimState) -> Tensor | None:
        periodic = torch.as_tensor(state.pbc).tolist()
        if not np.any(periodic):
            return None
        if not np.all(periodic):
            raise SamplingError(f"pbc is {periodic}: beads must be periodic in all directions, or not periodic at all")
        edges = [edges_of_vectors(cell) for cell in (state.cell / _LENGTH).cpu().numpy()]
        return torch.as_tensor(np.array(edges), device=self._device)


def bead_state(
    config: PotentialConfig, positions: ArrayLike, box: ArrayLike | None = None, device: torch.device | None = None
) -> SimState:
    """Copies of the beads, with the masses of a registered model's config; beads have no element.

    Args:
        config: that `cg_assets.use.export.read_model` gives with the potential.
        positions: `(s, n, 3)` of s systems [nm].
        box: `(3,)` edges of their periodic box [nm]; None without, for molecules within 100 nm.
        device: the CPU where None.
    """
    places = torch.as_tensor(np.array(positions, dtype=float), device=device)
    count, n_beads, _ = places.shape
    edges = np.full(3, 100.0) if box is None else np.asarray(box, dtype=float)
    masses = torch.tensor(config["bead_masses"], dtype=torch.float64, device=device)
    return SimState(
        positions=places.flatten(0, 1) * _LENGTH,
        masses=masses.repeat(count),
        cell=torch.diag(torch.as_tensor(edges * _LENGTH, device=device)).repeat(count, 1, 1),
        pbc=box is not None,
        atomic_numbers=torch.zeros(count * n_beads, dtype=torch.long, device=device),
        system_idx=torch.arange(count, device=device).repeat_interleave(n_beads),
    )
