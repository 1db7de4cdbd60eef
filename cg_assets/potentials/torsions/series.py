"""A Fourier series in torsions, solved so that the PMF of the torsions is that of the labels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cg_assets.potentials.base import Kernel, Labels, Potential
from cg_assets.potentials.layers import torsion_angles

if TYPE_CHECKING:
    from cg_assets.potentials.torsions.variates import TorsionTorques


def fourier_modes(n_torsions: int, order: int) -> list[list[int]]:
    """Waves exp(i m . angle), one of each pair of opposite ones, in at most two angles with |m| up to `order`."""
    waves = [
        [*mode]
        for mode in itertools.product(range(-order, order + 1), repeat=n_torsions)
        if sum(number * number for number in mode) <= order * order and 1 <= sum(map(bool, mode)) <= 2
    ]
    return [mode for mode in waves if next(number for number in mode if number) > 0]


class TorsionSeries(Potential):
    """A Fourier series in some torsions, which distinguishes left from right.

    It is zero until training ends: slow motions change the forces so little that descent leaves them unfinished, and
    the series is then solved so that the PMF of the torsions is that of the labels (`solve`).
    """

    torsions: Tensor
    modes: Tensor
    series: Tensor

    def __init__(
        self,
        torsions: Sequence[Sequence[int]],
        order: int,
        thermal_energy: float,
        bonds: Sequence[Sequence[int]] = (),
    ) -> None:
        """A series of zeros.

        Args:
            torsions: four beads of each.
            order: largest length of a wave vector.
            thermal_energy: k_B T of the training data [kJ/mol].
            bonds: pairs of beads, from which torques about the torsions are made when the series is solved.
        """
        torch.nn.Module.__init__(self)
        self.dimension, self.thermal_energy = 3, thermal_energy
        self.bonds = [(first, second) for first, second in bonds]
        modes = fourier_modes(len(torsions), order)
        self.register_buffer("torsions", torch.tensor(torsions, dtype=torch.long).reshape(-1, 4), persistent=False)
        self.register_buffer("modes", torch.tensor(modes).float().reshape(len(modes), len(torsions)), persistent=False)
        self.register_buffer("series", torch.zeros(2, len(modes)))

    @property
    def is_zero(self) -> bool:
        """Whether the series is yet to be solved."""
        return not bool(self.series.any())

    def phases(self, positions: Tensor) -> Tensor:
        """Phases `(m, f)` of the waves at positions `(f, n, 3)`."""
        return self.modes @ torsion_angles(positions.permute(1, 2, 0), self.torsions)[0]

    def energy(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> Tensor:
        """Energy `(f,)` of positions `(f, n, 3)`."""
        return self.evaluate(positions)[0]

    def evaluate(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy `(f,)` and forces `(f, n, 3)`."""
        rows = positions.permute(1, 2, 0)
        angle, gradients = torsion_angles(rows, self.torsions)
        phase = self.modes @ angle
        cosine, sine = self.series[0][:, None], self.series[1][:, None]
        energy = (cosine * phase.cos() + sine * phase.sin()).sum(dim=0)
        slope = self.modes.T @ (sine * phase.cos() - cosine * phase.sin())
        pull = -slope[:, None, None] * gradients
        forces = torch.zeros_like(rows).index_add(0, self.torsions.flatten(), pull.flatten(0, 1))
        return self.thermal_energy * energy, (self.thermal_energy * forces).permute(2, 0, 1)

    def kernels(self, temperature: float | None, box: Any) -> list[Kernel] | None:
        """In single precision its compiled form."""
        if self.series.dtype != torch.float32:
            return None
        from cg_assets.potentials.torsions.kernel import series_kernel

        return [series_kernel(self)]

    def fit_statistics(self, positions: Tensor, box: Tensor | None = None, forces: Tensor | None = None) -> None:
        """Make sure, before any training, that there is a torque about each torsion.

        Raises:
            TrainingError: a torsion is not about a bond that splits the molecule in two.
        """
        self._torques(positions.shape[1])

    @torch.no_grad()
    def solve(self, labels: Labels) -> dict[str, float]:
        """Make the PMF of the torsions that of the labels, for which the whole potential is simulated.

        Held-out frames are no longer needed and are used, too; a series that is not fitted to forces cannot flatter
        their loss.
        """
        from cg_assets.potentials.torsions.solve import solve_torsions

        torques, own_frames = self._torques(labels.positions.shape[1]), labels.own_frames
        if own_frames is None:
            raise ValueError("a series in torsions is solved from frames of the potential itself; give own_frames")
        solve_torsions(self, labels.whole or self, labels.parts(), torques, lambda: own_frames(self.torsions))
        return {}

    def _torques(self, n_beads: int) -> TorsionTorques:
        """Torques about the torsions of a molecule of so many beads."""
        from cg_assets.potentials.torsions.torques import BondTorques
        from cg_assets.potentials.torsions.variates import TorsionTorques

        of_bonds = BondTorques(n_beads, self.bonds, self.torsions.device)
        return TorsionTorques(of_bonds, self.bonds, self.torsions, self.thermal_energy)
