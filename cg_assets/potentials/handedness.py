"""Walls that keep the hand of chiral centres, since distances alone do not distinguish left from right."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from cg_assets.potentials.base import Kernel, Potential
from cg_assets.potentials.layers import volumes, wall

MOST_BEADS = 16
"""Up to this many unlike beads, all sets of four are searched for centres that keep their handedness."""

LEAST_VOLUME = 0.25
"""Smallest |volume| in the data, as a part of the mean, from which on a set of four beads counts as a handed centre.
Sets that bend nearly flat now and then do so further than finite data show, and a wall there would be in the way."""

FLAT_ENERGY = 50.0
"""Least energy of a wall where its centre is flat [k_B T]: not even hot replicas change hands."""


class HandednessWalls(Potential):
    """Closes the path through a flat centre, where there are no data.

    Where the signed volume of four unlike beads of an isolated molecule keeps its sign in all data, by more than five
    standard deviations, and never comes near zero, a wall acts below the smallest |volume| of the data.
    """

    volume_low: Tensor
    volume_stiffness: Tensor
    fours: Tensor

    def __init__(self, n_beads: int, thermal_energy: float) -> None:
        """No walls yet.

        Args:
            n_beads: number of beads, all unlike.
            thermal_energy: k_B T of the training data [kJ/mol].
        """
        torch.nn.Module.__init__(self)
        self.n_beads, self.dimension, self.thermal_energy = n_beads, 3, thermal_energy
        fours = torch.tensor(list(itertools.combinations(range(n_beads), 4))).reshape(-1, 4).long()
        self.register_buffer("fours", fours, persistent=False)
        for name in ("volume_low", "volume_stiffness"):
            self.register_buffer(name, torch.zeros(len(fours)))

    @torch.no_grad()
    def fit_statistics(self, positions: Tensor, box: Tensor | None = None, forces: Tensor | None = None) -> None:
        """Find the sets that keep their handedness; stiffness as for distances, but closed when flat."""
        self.volume_stiffness.zero_()
        if box is not None:
            return
        rows = positions.to(self.volume_low).permute(1, 2, 0)
        for index, four in enumerate(self.fours):
            volume = volumes(rows, four[None])[0][0]
            size = volume.abs()
            keeps_away = size.min() > LEAST_VOLUME * size.mean() > LEAST_VOLUME * 5 * size.std()
            if volume.min() * volume.max() <= 0 or not keeps_away:
                continue
            edge = size.kthvalue(max(1, len(size) // 100)).values - size.min()
            self.volume_low[index] = size.min()
            as_for_distances = (0.55 * edge).clamp_min(1e-3 * size.std()).pow(-2)
            self.volume_stiffness[index] = torch.maximum(as_for_distances, 2.0 * FLAT_ENERGY / size.min().square())

    @property
    def is_zero(self) -> bool:
        """Whether there are no handed centres."""
        return not bool(self.volume_stiffness.any())

    def energy(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> Tensor:
        """Energy `(f,)` of positions `(f, n, 3)`."""
        return self.evaluate(positions)[0]

    def evaluate(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy `(f,)` and forces `(f, n, 3)`."""
        active = self.volume_stiffness.nonzero()[:, 0]
        rows, fours = positions.permute(1, 2, 0), self.fours[active]
        volume, gradients = volumes(rows, fours)
        below, slope = wall(self.volume_low[active][:, None] - volume.abs(), self.volume_stiffness[active][:, None])
        pull = (slope * volume.sign())[:, None, None] * gradients
        forces = torch.zeros_like(rows).index_add(0, fours.flatten(), pull.flatten(0, 1))
        return self.thermal_energy * below.sum(dim=0), (self.thermal_energy * forces).permute(2, 0, 1)

    def kernels(self, temperature: float | None, box: Any) -> list[Kernel] | None:
        """In single precision its compiled form."""
        if self.volume_low.dtype != torch.float32:
            return None
        from cg_assets.potentials.handedness_kernel import handedness_kernel

        return [handedness_kernel(self)]
