"""Torques that turn torsions, with as little noise as forces allow.

A rigid turn of one side of a bond changes its torsion alone. So does that turn together with any motion that leaves all
torsions as they are, such as stretching a bond: the mean of the generalised force along such a field w is known, for
integrating by parts at given torsions gives <w.F + kT div w> = 0. Multiples of these may be taken off a torque without
changing its mean, multiples that may depend on the torsions themselves, and least squares finds those that leave least
noise (control variates).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cg_assets.mapping.chains import reached
from cg_assets.potentials.layers import torsion_angles
from cg_assets.potentials.torsions.torques import BondTorques


class _Move(NamedTuple):
    """A field that moves one side of a directed bond rigidly; beads that it needs, and the number of the side."""

    first: int
    corner: int
    last: int
    side: int


class TorsionTorques:
    """Torques about torsions and the variates of zero mean that may be taken off them.

    A variate is the generalised force along a move, with its divergence, times 1 or the cosine or sine of a torsion.

    Attributes:
        bond_torques, places, signs: the rigid turns.
        torsions: `(k, 4)` beads.
        stretches, bends, turns: moves that leave the torsions as they are: of a side along its bond; in the plane of an
            angle; about a bond, of one branch behind it.
    """

    def __init__(
        self, bond_torques: BondTorques, bonds: Sequence[tuple[int, int]], torsions: Tensor, thermal_energy: float
    ) -> None:
        """Find the moves.

        Args:
            bond_torques: of the molecule.
            bonds: pairs of beads.
            torsions: `(k, 4)` beads.
            thermal_energy: kT [kJ/mol].

        Raises:
            TrainingError: a torsion is not about a bond that splits the molecule in two.
        """
        self.bond_torques, self.torsions, self.thermal_energy = bond_torques, torsions, thermal_energy
        self.places, self.signs = bond_torques.of_torsions(torsions)
        n_beads, device = bond_torques.sides.shape[1], torsions.device
        ways = [way for first, second in bonds for way in ((first, second), (second, first))]
        behind = {way: reached(way[1], way[0], bonds) for way in ways}
        ways = [way for way in ways if way[0] not in behind[way]]  # no bonds of rings
        number = {way: place for place, way in enumerate(ways)}
        sides = torch.tensor([[float(bead in behind[way]) for bead in range(n_beads)] for way in ways])
        self.sides = sides.reshape(-1, n_beads).to(device)
        smaller = [(a, b) for a, b in ways if (len(behind[a, b]), a) < (len(behind[b, a]), b)]
        corners = [_Move(a, b, d, number[b, d]) for a, b in number for c, d in number if b == c and a != d]
        inner = [move for move in corners if len(behind[move.first, move.corner]) < n_beads - 1]
        along = [_Move(a, b, b, number[a, b]) for a, b in smaller]
        # Bending or turning one of several branches of a bead may turn a torsion, as may a stretch across one of beads
        # that are not neighbours. It shows anywhere.
        places = torch.randn(1, n_beads, 3, generator=torch.Generator().manual_seed(0)).to(device)
        gradients = torsion_angles(places.permute(1, 2, 0), torsions)[1][..., 0]
        slopes = torch.stack(
            [
                torch.zeros_like(places[0]).index_add(0, beads, gradient)
                for beads, gradient in zip(torsions, gradients, strict=True)
            ]
        )
        places = places.expand_as(slopes)

        def harmless(moves: list[_Move], change: Tensor) -> list[_Move]:
            return [move for move, largest in zip(moves, change.abs().amax(dim=0), strict=True) if largest < 1e-4]

        self.stretches = harmless(along, self._stretching(along, places, slopes)[0])
        self.bends = harmless(corners, self._turning(corners, places, slopes, True)[0])
        self.turns = harmless(inner, self._turning(inner, places, slopes, False)[0])

    def _columns(self, moves: list[_Move]) -> Tensor:
        return torch.tensor(moves, dtype=torch.long, device=self.sides.device).reshape(-1, 4).T

    def _stretching(self, moves: list[_Move], positions: Tensor, forces: Tensor) -> tuple[Tensor, Tensor]:
        """Force on each side along its bond, and the length of the bond."""
        first, _, last, side = self._columns(moves)
        along = positions[:, last] - positions[:, first]
        length = along.norm(dim=2)
        return ((self.sides @ forces)[:, side] * along).sum(dim=2) / length, length

    def _turning(self, moves: list[_Move], positions: Tensor, forces: Tensor, in_plane: bool) -> tuple[Tensor, Tensor]:
        """Torque on each side that turns, in the plane of its angle or about its bond, and cotangent of the angle."""
        first, corner, last, side = self._columns(moves)
        before, after = positions[:, first] - positions[:, corner], positions[:, last] - positions[:, corner]
        normal = torch.linalg.cross(before, after, dim=2)
        cotangent = (before * after).sum(dim=2) / normal.norm(dim=2).clamp_min(1e-9)
        axis = torch.nn.functional.normalize(normal if in_plane else before, dim=2)
        pull, about_origin = self.sides @ forces, self.sides @ torch.linalg.cross(positions, forces, dim=2)
        about_corner = about_origin[:, side] - torch.linalg.cross(positions[:, corner], pull[:, side], dim=2)
        return (about_corner * axis).sum(dim=2), cotangent

    def turns_of(self, positions: Tensor, forces: Tensor) -> Tensor:
        """Torques `(f, k)` of rigid turns alone, which turn the torsions up [kT / rad]."""
        return self.bond_torques(positions, forces / self.thermal_energy)[:, self.places] * self.signs

    def __call__(self, positions: Tensor, forces: Tensor) -> tuple[Tensor, Tensor]:
        """Torques `(f, k)` that turn the torsions up [kT / rad] and variates `(f, v)` [kT / rad, kT / nm].

        Args:
            positions: `(f, n_beads, 3)` [nm].
            forces: same shape [kJ/mol/nm].
        """
        torque, forces = self.turns_of(positions, forces), forces / self.thermal_energy
        stretching, length = self._stretching(self.stretches, positions, forces)
        bending, cotangent = self._turning(self.bends, positions, forces, True)
        turning, _ = self._turning(self.turns, positions, forces, False)
        # What is added is the divergence of each move: of a stretch 2 / r, of a bend the cotangent, of a turn nothing.
        moved = torch.cat([stretching + 2.0 / length, bending + cotangent, turning], dim=1)
        angles = torsion_angles(positions.permute(1, 2, 0), self.torsions)[0].T
        waves = torch.cat([torch.ones_like(angles[:, :1]), angles.cos(), angles.sin()], dim=1)
        return torque, (moved[:, :, None] * waves[:, None]).flatten(1)

    @property
    def n_variates(self) -> int:
        """Number of variates."""
        return (len(self.stretches) + len(self.bends) + len(self.turns)) * (1 + 2 * len(self.torsions))
