"""A classical force field of a chain of beads, which a network need not learn."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cg_assets.potentials.base import Kernel, Potential
from cg_assets.potentials.layers import torsion_angles

KINDS = {"bonds": 2, "angles": 3, "dihedrals": 4, "repulsion": 2}
"""Beads of a term of each kind."""
ANGLE_ORDER = 4
"""Order of the polynomial in the cosine of an angle: the lowest with two minima that rises beyond both."""


class ChainPrior(Potential):
    """A classical force field of a chain of beads.

    Its terms, in units of k_B T, are lists that begin with the beads:

    - `bonds`: [i, j, length, k], k/2 (r - length)²;
    - `angles`: [i, j, l, a_1, a_2, a_3, a_4], Σ a_n cosⁿ θ, which is smooth for straight chains, too, and has room for
      the two peaks of an angle of alpha carbons, in helices and in strands;
    - `dihedrals`: [i, j, l, m, a_1, b_1, a_2, b_2, ...], Σ a_n cos nφ + b_n sin nφ;
    - `repulsion`: [i, j, σ], (σ/r)⁶.

    The odd part of the dihedrals distinguishes left from right.
    """

    bonds: Tensor

    def __init__(self, terms_by_kind: dict[str, list[list[float]]], thermal_energy: float) -> None:
        """Read the terms.

        Args:
            terms_by_kind: lists of terms, see above.
            thermal_energy: k_B T of the data that they were fitted to [kJ/mol].

        Raises:
            ValueError: a term has too few numbers, or one that is not finite, or a bond has a negative constant.
        """
        torch.nn.Module.__init__(self)
        self.dimension, self.thermal_energy = 3, thermal_energy
        for name, beads in KINDS.items():
            terms = terms_by_kind.get(name, [])
            numbers = torch.tensor([term[beads:] for term in terms] or [[0.0]], dtype=torch.float64)[: len(terms)]
            constants = numbers[:, -1] if name == "bonds" else numbers[:0]
            if not torch.isfinite(numbers).all() or (constants < 0).any():
                raise ValueError(f"prior.{name} holds a number that is not finite, or a negative force constant")
            if name == "angles" and len(terms) and numbers.shape[1] != ANGLE_ORDER:
                raise ValueError(
                    f"prior.angles has terms of {numbers.shape[1]} numbers, not the {ANGLE_ORDER} coefficients of a "
                    "polynomial; fit the prior again"
                )
            index = torch.tensor([term[:beads] for term in terms], dtype=torch.long).reshape(-1, beads)
            self.register_buffer(f"{name}_beads", index, persistent=False)
            self.register_buffer(name, numbers.float())

    def energy(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> Tensor:
        """Energy `(f,)` of positions `(f, n, 3)`."""
        return self.evaluate(positions)[0]

    def evaluate(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy `(f,)` and forces `(f, n, 3)`."""
        rows = positions.permute(1, 2, 0)
        energy, forces = torch.zeros_like(rows[0, 0]), torch.zeros_like(rows)
        for name, evaluate in (
            ("bonds", self._bonds),
            ("angles", self._angles),
            ("dihedrals", self._dihedrals),
            ("repulsion", self._repulsion),
        ):
            beads = getattr(self, f"{name}_beads")
            if len(beads):
                more, gradients = evaluate(rows, beads, getattr(self, name))
                energy = energy + more.sum(dim=0)
                forces = forces.index_add(0, beads.flatten(), -gradients.flatten(0, 1))
        return self.thermal_energy * energy, (self.thermal_energy * forces).permute(2, 0, 1)

    def kernels(self, temperature: float | None, box: Any) -> list[Kernel] | None:
        """In single precision its compiled form."""
        if self.bonds.dtype != torch.float32:
            return None
        from cg_assets.potentials.chain_prior.kernel import prior_kernel

        return [prior_kernel(self)]

    @staticmethod
    def _bonds(rows: Tensor, beads: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Energies `(b, f)` and gradients `(b, 2, 3, f)`."""
        length, stiffness = numbers[:, :1], numbers[:, 1:]
        difference = rows[beads[:, 0]] - rows[beads[:, 1]]
        distance = difference.square().sum(dim=1).sqrt()
        slope = stiffness * (distance - length)
        pull = (slope / distance)[:, None] * difference
        return 0.5 * slope * (distance - length), torch.stack([pull, -pull], dim=1)

    @staticmethod
    def _angles(rows: Tensor, beads: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Energies `(a, f)` and gradients `(a, 3, 3, f)`."""
        one, two = rows[beads[:, 0]] - rows[beads[:, 1]], rows[beads[:, 2]] - rows[beads[:, 1]]
        lengths = [leg.square().sum(dim=1, keepdim=True).sqrt() for leg in (one, two)]
        one, two = one / lengths[0], two / lengths[1]
        cosine = (one * two).sum(dim=1)
        energy = slope = torch.zeros_like(cosine)
        for power in range(ANGLE_ORDER, 0, -1):  # Horner's scheme
            slope = energy + slope * cosine
            energy = numbers[:, power - 1, None] + energy * cosine
        energy, slope = energy * cosine, energy + slope * cosine
        by_one = slope[:, None] * (two - cosine[:, None] * one) / lengths[0]
        by_two = slope[:, None] * (one - cosine[:, None] * two) / lengths[1]
        return energy, torch.stack([by_one, -by_one - by_two, by_two], dim=1)

    @staticmethod
    def _dihedrals(rows: Tensor, beads: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Energies `(d, f)` and gradients `(d, 4, 3, f)`."""
        angle, gradients = torsion_angles(rows, beads)
        order = torch.arange(1, numbers.shape[1] // 2 + 1).to(numbers)[None, :, None]
        phase = order * angle[:, None]
        cosine, sine = numbers[:, 0::2, None], numbers[:, 1::2, None]
        energy = (cosine * phase.cos() + sine * phase.sin()).sum(dim=1)
        slope = (order * (sine * phase.cos() - cosine * phase.sin())).sum(dim=1)
        return energy, slope[:, None, None] * gradients

    @staticmethod
    def _repulsion(rows: Tensor, beads: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Energies `(p, f)` and gradients `(p, 2, 3, f)`."""
        difference = rows[beads[:, 0]] - rows[beads[:, 1]]
        square = difference.square().sum(dim=1)
        energy = (numbers.square() / square).pow(3)
        pull = (-6.0 * energy / square)[:, None] * difference
        return energy, torch.stack([pull, -pull], dim=1)
