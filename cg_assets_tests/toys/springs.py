"""A toy potential: each bead on a spring to the origin, stiffer when it is warmer, in any box or none."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from cg_assets.potentials.base import Potential
from cg_assets.potentials.settings import PotentialSettings


class SpringsSettings(PotentialSettings):
    """Nothing to set."""

    type: Literal["toy_springs"]

    @classmethod
    def potential(cls):
        """`Springs`."""
        return Springs


class Springs(Potential):
    """W = T c/2 Σ r² + the edges of the box, where T and the box are given."""

    def __init__(self, config: dict[str, Any], generator: torch.Generator) -> None:
        """Build it for the beads of a config."""
        super().__init__(config, generator)
        self.n_beads, self.dimension = len(config["bead_types"]), 3
        self.constant = torch.nn.Parameter(torch.ones(()))

    def energy(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> Tensor:
        """Energy `(f,)` of positions `(f, n, 3)`."""
        energy = 0.5 * self.constant * positions.square().sum(dim=(1, 2))
        if temperature is not None:
            energy = energy * temperature
        return energy if box is None else energy + box.sum(dim=1)
