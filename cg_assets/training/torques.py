"""Torques about bonds: the directions of force space in which a molecule is soft."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class BondTorques:
    """Torque of forces about each bond that splits the molecule, on the smaller of its two sides.

    Attributes:
        bonds: `(b, 2)` beads of the bonds about which something can turn.
        sides: `(b, n_beads)` 1 for beads that turn, 0 for others.
    """

    def __init__(self, n_beads: int, bonds: Sequence[tuple[int, int]], device: torch.device) -> None:
        """Find the bonds that are in no ring and have further beads on both sides."""
        kept, sides = [], []
        for bond in bonds:
            one, other = (_reached(bond[end], bond[1 - end], bonds) for end in (0, 1))
            if one & other or min(len(one), len(other)) < 2:
                continue
            side = min(one, other, key=len)
            kept.append(bond)
            sides.append([float(bead in side) for bead in range(n_beads)])
        self.bonds = torch.tensor(kept, dtype=torch.long, device=device).reshape(-1, 2)
        self.sides = torch.tensor(sides, dtype=torch.float32, device=device).reshape(-1, n_beads)

    def __call__(self, positions: Tensor, forces: Tensor) -> Tensor:
        """Torques `(f, b)` [energy per radian] of forces on positions, both `(f, n_beads, 3)`."""
        first, second = positions[:, self.bonds[:, 0]], positions[:, self.bonds[:, 1]]
        axis = torch.nn.functional.normalize(second - first, dim=2)
        about_origin = self.sides @ torch.linalg.cross(positions, forces, dim=2)
        total = self.sides @ forces
        return ((about_origin - torch.linalg.cross(first, total, dim=2)) * axis).sum(dim=2)


def _reached(start: int, without: int, bonds: Sequence[tuple[int, int]]) -> set[int]:
    """Beads that bonds connect to `start` other than by its bond to `without`."""
    found, front = {start}, [start]
    while front:
        bead = front.pop()
        for i, j in bonds:
            for here, there in ((i, j), (j, i)):
                if here == bead and there not in found and {here, there} != {start, without}:
                    found.add(there)
                    front.append(there)
    return found
