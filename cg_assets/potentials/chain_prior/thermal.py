"""A classical force field of a chain of beads whose strengths depend on temperature."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cg_assets.potentials.chain_prior.module import ANGLE_ORDER, KINDS, ChainPrior
from cg_assets.potentials.thermal.dependent import TemperatureDependent
from cg_assets.potentials.thermal.temperature import DependenceConfig

SHAPES = {"bonds": 1, "angles": 0, "dihedrals": 0, "repulsion": 1}
"""Numbers of a term that do not depend on temperature: the length of a bond, the range of a repulsion."""


class ThermalChainPrior(ChainPrior, TemperatureDependent):
    """`ChainPrior` with strengths sum_k s_k(T) a_k [kJ/mol], in which its energy is linear.

    A term is a list of its beads, its shape and the strengths of each W_k, one W_k after the other:

    - `bonds`: [i, j, length, k_0, k_1, ...];
    - `angles` and `dihedrals`: the coefficients of the polynomial or series of W_0, then those of W_1, ...;
    - `repulsion`: [i, j, σ, c_0, c_1, ...], c (σ/r)⁶.
    """

    def __init__(self, terms_by_kind: dict[str, list[list[float]]], form: DependenceConfig) -> None:
        """Read the terms.

        Args:
            terms_by_kind: lists of terms, see above.
            form: of the temperature dependence.

        Raises:
            ValueError: a term has the wrong number of numbers, or one that is not finite.
        """
        torch.nn.Module.__init__(self)
        self.dimension, self.thermal_energy = 3, 1.0  # strengths are energies
        self.depend_on(form)
        for name, beads in KINDS.items():
            terms, first = terms_by_kind.get(name, []), beads + SHAPES[name]
            strengths = torch.tensor([term[first:] for term in terms], dtype=torch.float64)
            each = strengths.numel() // (len(terms) * self.n_terms) if terms else 0
            if not torch.isfinite(strengths).all() or (terms and name == "angles" and each != ANGLE_ORDER):
                raise ValueError(f"prior.{name} lacks finite numbers of {self.n_terms} W_k; fit the prior again")
            shapes = torch.tensor([term[beads:first] for term in terms], dtype=torch.float64)
            index = torch.tensor([term[:beads] for term in terms], dtype=torch.long).reshape(-1, beads)
            self.register_buffer(f"{name}_beads", index, persistent=False)
            self.register_buffer(f"{name}_shapes", shapes.reshape(len(terms), SHAPES[name]).float())
            self.register_buffer(name, strengths.reshape(len(terms), self.n_terms, each).float())

    def evaluate(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy `(f,)` and forces `(f, n, 3)`."""
        return self._shared(positions, self.coefficients_at(temperature, positions)[0].to(positions))

    def energy(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> Tensor:
        """Energy `(f,)` of positions `(f, n, 3)`."""
        return self.evaluate(positions, temperature)[0]

    def terms(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """The energies W_k `(f, n_terms)` of positions `(f, n, 3)` [kJ/mol]."""
        shares = torch.eye(self.n_terms).to(positions)
        return torch.stack([self._shared(positions, share[None])[0] for share in shares], dim=1)

    def add_constants(self, values: Tensor) -> None:
        """A force field has none.

        Raises:
            ValueError: always.
        """
        raise ValueError("a prior has no constants; add them to the network")

    def _shared(self, positions: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """Energy and forces of the sum of all W_k with shares `(f or 1, n_terms)`."""

        def numbers(name: str) -> Tensor:
            strengths = torch.einsum("fk,bkn->bnf", share, getattr(self, name))
            shapes = getattr(self, f"{name}_shapes")[..., None]
            return torch.cat([shapes.expand(-1, -1, len(share)), strengths], dim=1)

        return self._evaluated(positions, numbers)
