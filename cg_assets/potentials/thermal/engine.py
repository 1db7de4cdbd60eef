"""What compiled potentials W(R, T) of pairs of beads have: neighbour lists, checks of positions, whole time steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cg_assets.core.baoab import Motion, drift, kick
from cg_assets.potentials.thermal.base import PRIOR_PART, PRIOR_RATE, ThermalPotential
from cg_assets.potentials.thermal.near import Surroundings
from cg_assets.potentials.thermal.neighbours import Lists, NeighbourLists, compiled, renewed
from cg_assets.potentials.thermal.pairs import edges_of
from cg_assets.potentials.thermal.pairs_alone import PairEnergy


class ListEngine:
    """Energy and forces of a potential at one temperature.

    Attributes:
        neighbours: lists of each replica.
        prior: height [kJ/mol], rate [1/nm] and begin [nm] of the repulsion.
        around: what decides which beads are neighbours.
        data: of the potential.
        constant: energy of all beads without interactions [kJ/mol].
        evaluate: compiled; gives the energy of one replica without the constant, of its lists, `around`, `data` and
            forces `(n, 3)`, which are added.
        loop: compiled; steps of one replica, see `advance`.
    """

    around: Surroundings
    data: Any
    constant: float
    evaluate: Callable[..., float]
    loop: Callable[..., tuple[float, Lists]]

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
        self._checked, self._conditions, self._box = module, (temperature, edges), box
        size, begins = (float(value) for value in module.prior)
        self.prior = np.array([size * PRIOR_PART / PRIOR_RATE, PRIOR_RATE, begins])

    def _surround(self, kinds: NDArray[np.int64], cutoff: float, alone: PairEnergy) -> None:
        """Set which beads are neighbours, for kinds `(n,)` and a cutoff, and what their pairs pull alone."""
        self.neighbours = NeighbourLists(self._box, cutoff, alone.cutoff)
        self.around = Surroundings(self.neighbours.box, kinds, int(kinds.max()) + 1, cutoff, alone)

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
        for replica, lists in enumerate(self.neighbours.of(points)):
            own = self.evaluate(lists, self.around, self.data, forces[replica])
            energy[replica] = self.constant + own
        lost = ~np.isfinite(points).all(axis=2)
        forces[lost] = np.nan
        energy[np.any(lost, axis=1)] = np.nan
        return torch.as_tensor(energy).to(positions), torch.as_tensor(forces).to(positions)

    def advance(self, motion: Motion, noise: NDArray[np.float32]) -> Tensor:
        """Move replicas by as many steps as there is noise `(steps, m, n, 3)`; gives their energies `(r,)` at the end.

        A replica takes all its steps before the next, in compiled code.
        """
        energy = np.empty(len(motion.positions), np.float32)
        everyone = self.neighbours.of(motion.positions.astype(np.float64))
        for replica, lists in enumerate(everyone):
            own, everyone[replica] = self.loop(motion.of(replica), noise, lists, self.around, self.data)
            energy[replica] = self.constant + own
        return torch.from_numpy(energy)


@compiled
def moved(motion: Any, noise: Any, lists: Any, box: Any) -> Any:
    """Move a replica until its forces are needed; gives its lists of neighbours."""
    kick(motion)
    drift(motion, noise)
    for bead in range(len(lists.place)):
        for axis in range(3):
            lists.place[bead, axis] = motion.positions[0, bead, axis]
    return renewed(lists, box)


@compiled
def pushed(motion: Any, place: Any, energy: Any, pull: Any) -> Any:
    """Take forces `(n, 3)` and finish the step; gives the energy, NaN where a bead is lost."""
    for bead in range(len(pull)):
        for axis in range(3):
            motion.forces[0, bead, axis] = pull[bead, axis]
            energy += 0.0 * place[bead, axis]
    kick(motion)
    return energy
