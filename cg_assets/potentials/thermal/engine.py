"""What compiled potentials W(R, T) of pairs of beads have: neighbour lists, and checks of positions."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cg_assets.potentials.thermal.base import PRIOR_PART, PRIOR_RATE, ThermalPotential
from cg_assets.potentials.thermal.neighbours import NeighbourLists
from cg_assets.potentials.thermal.pairs import edges_of


class ListEngine(ABC):
    """Energy and forces of a potential at one temperature.

    Attributes:
        neighbours: lists of each replica.
        prior: height [kJ/mol], rate [1/nm] and begin [nm] of the repulsion.
    """

    def __init__(self, module: ThermalPotential, temperature: float, box: ArrayLike | None) -> None:
        """Refuse what the potential cannot be evaluated at.

        Args:
            module: the potential.
            temperature: [K].
            box: edges `(3,)` of the periodic box [nm], or None.

        Raises:
            ValueError: the temperature is not positive or the cutoff beyond half the box.
        """
        edges = None if box is None else torch.as_tensor(np.array(box, dtype=np.float64))
        module.check(torch.zeros(0, module.n_beads, 3), temperature, edges)
        edges_of(torch.zeros(1, 2, 3), edges, module.cutoff)
        self._checked, self._conditions = module, (temperature, edges)
        self.neighbours = NeighbourLists(box, module.cutoff)
        size, begins = (float(value) for value in module.prior)
        self.prior = np.array([size * PRIOR_PART / PRIOR_RATE, PRIOR_RATE, begins])

    @abstractmethod
    def evaluate(
        self,
        place: NDArray[np.float64],
        starts: NDArray[np.int64],
        listed: NDArray[np.int64],
        forces: NDArray[np.float64],
    ) -> float:
        """Energy of one replica of positions `(n, 3)`, with its lists of neighbours; forces are added to `forces`."""

    @torch.no_grad()
    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Energy `(r,)` and forces `(r, n, 3)` of replicas `(r, n, 3)`, in the type of the positions.

        A replica with a bead whose place is not finite has an energy of NaN, and that bead such forces: it has no
        neighbours.

        Raises:
            ValueError: positions have the wrong shape.
        """
        self._checked.check(positions, *self._conditions)
        points = positions.numpy().astype(np.float64)
        energy, forces = np.empty(len(points)), np.zeros_like(points)
        for replica, (place, lists) in enumerate(zip(points, self.neighbours.of(points), strict=True)):
            energy[replica] = self.evaluate(place, *lists, forces[replica])
        lost = ~np.isfinite(points).all(axis=2)
        forces[lost] = np.nan
        energy[np.any(lost, axis=1)] = np.nan
        return torch.as_tensor(energy).to(positions), torch.as_tensor(forces).to(positions)
