"""Well-tempered metadynamics: walkers deposit hills, which become lower as the bias grows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, PositiveFloat

from cg_assets.biases.base import FloatArray
from cg_assets.biases.deposited import DepositedBias, DepositedGrid

if TYPE_CHECKING:
    from cg_assets.mapping.beads import Beads

_MANY = 64
"""From this number of walkers on, hills along one line are added by a compiled loop in single precision."""


class MetadynamicsBias(DepositedBias):
    """Well-tempered metadynamics."""

    type: Literal["metadynamics"]
    height: PositiveFloat
    """First height of a hill [kJ/mol or reduced]."""
    bias_factor: float = Field(gt=1.0, le=10_000.0)
    """Of well-tempered metadynamics: (T + ΔT)/T."""

    def grid(self, beads: Beads) -> HillGrid:
        """No hill yet."""
        return HillGrid(beads, self)


class HillGrid(DepositedGrid):
    """The sum of all hills of well-tempered metadynamics.

    Barducci, Bussi, Parrinello, Phys. Rev. Lett. 100, 020603 (2008): a hill at s has the height
    h exp(-V(s) / ((gamma - 1) kT)), V being the bias before any hill of this time. Hills of all walkers add up: for n
    walkers a height of h/n fills a landscape as one walker does with h.
    """

    def __init__(self, beads: Beads, bias: MetadynamicsBias) -> None:
        """An empty grid."""
        super().__init__(beads, bias)
        self._height, self._tempering = bias.height, (bias.bias_factor - 1.0) * beads.thermal_energy

    def deposit(self, points: FloatArray, energies: FloatArray) -> None:
        """Add a hill for each walker."""
        heights = [self._height * math.exp(-energy / self._tempering) for energy in energies]
        if len(points) >= _MANY and self.periodic == [False]:
            from cg_assets.core.single_precision import add_gaussians

            places, heights32 = self._places(points)[0], np.array(heights, dtype=np.float32)
            add_gaussians(self.values, places, heights32, self.spacing[0], self.widths[0])
            return
        for point, height in zip(points, heights, strict=True):
            self.values += height * self._gaussian(point)
